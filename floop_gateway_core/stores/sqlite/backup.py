"""Copies a running store to a new file with SQLite's backup API."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from floop_gateway_core.errors import AdminError, StoreUnavailable

__all__ = ["copy_to"]

PAGES_AT_ONCE = 256
"""After this many pages, others may write to the source."""


def copy_to(source: Path, target: Path) -> None:
    """Copy a store's file as a consistent snapshot. In the copy, open holds are expired and stored answers are deleted.

    Raises `AdminError` if the target exists, and `StoreUnavailable` if the source cannot be read.
    """
    if not source.exists():
        raise StoreUnavailable(f"SQLite: {source} does not exist")
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise AdminError(f"{target}: {error.strerror}; a backup goes into a new file") from None
    try:
        with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy, pages=PAGES_AT_ONCE)
            copy.execute("UPDATE holds SET expires_at = 0 WHERE state = 'open'")
            copy.execute("UPDATE named_holds SET expires_at = 0 WHERE state = 'open'")
            copy.execute("DELETE FROM answers")
            copy.commit()
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise StoreUnavailable(f"SQLite: {error}") from None
