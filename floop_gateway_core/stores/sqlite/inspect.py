"""Looks at a file without changing it, for `floop-gateway check`."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

from floop_gateway_core.errors import StoreUnavailable
from floop_gateway_core.stores.sqlite.schema import STEPS, check_ours, known_version

__all__ = ["inspect"]


def inspect(path: str | Path) -> tuple[str, int | None]:
    """Return the state of a store's file and its number of projects; raise `StoreUnavailable` if it cannot be opened.

    The file is opened read-only: it is neither created nor migrated.
    """
    path = Path(path)
    if not path.exists():
        if not path.parent.is_dir():
            raise StoreUnavailable(f"SQLite: {path.parent} is not a directory")
        return "will be created", None
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=1.0)
        try:
            check_ours(connection)
            version = known_version(connection)
            if version < len(STEPS):
                return f"will be migrated from schema {version} to {len(STEPS)}" if version else "will be created", None
            (projects,) = connection.execute("SELECT count(*) FROM projects WHERE deleted_at IS NULL").fetchone()
            return "ready", projects
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"SQLite: {error}") from None
