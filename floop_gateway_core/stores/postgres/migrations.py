"""Brings the schema up to date, or only looks at it."""

from contextlib import closing
from typing import Any

import psycopg

from floop_gateway_core.errors import StoreUnavailable
from floop_gateway_core.stores.postgres.schema import LOCK, STEPS, script, steps_from
from floop_gateway_core.stores.postgres.session import connect
from floop_gateway_core.stores.postgres.urls import without_our_parameters

__all__ = ["inspect", "migrate", "pending_script"]

Raw = psycopg.Connection[tuple[Any, ...]]


def migrate(conninfo: str, timeout_s: float) -> None:
    """Bring the schema up to date; processes that start together take turns.

    If it already is, nothing is written, so a role that may not create tables can use a schema migrated by another.
    """
    with closing(connect(conninfo, timeout_s)) as raw:
        if _version(raw) < len(STEPS):
            with raw.transaction():
                raw.execute(LOCK.encode())
                raw.execute(steps_from(_version(raw)).encode())


def _version(raw: Raw) -> int:
    """Return how many steps the schema has taken; raise `StoreUnavailable` for one that this release cannot use."""
    (found,) = raw.execute("SELECT to_regclass('floop_gateway.schema_version') IS NOT NULL").fetchone() or (False,)
    row = raw.execute("SELECT version, oldest FROM floop_gateway.schema_version").fetchone() if found else None
    version, oldest = row or (0, 0)
    if oldest > len(STEPS):
        raise StoreUnavailable(
            f"PostgreSQL: this release supports schema {len(STEPS)}, found {version}; use the release that wrote it"
        )
    return int(version)


def pending_script(url: str, timeout_s: float) -> str:
    """Return the SQL that `migrate` would run, for people who run it themselves; empty if the schema is up to date."""
    try:
        with closing(connect(without_our_parameters(url)[0], timeout_s)) as raw:
            return script(_version(raw))
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL: {str(error).splitlines()[0]}") from None


def inspect(url: str, timeout_s: float) -> tuple[str, int | None]:
    """Return the state of a store and its number of projects, without changing it; raise `StoreUnavailable`."""
    try:
        with closing(connect(without_our_parameters(url)[0], timeout_s)) as raw:
            version = _version(raw)
            if version < len(STEPS):
                return f"will be migrated from schema {version} to {len(STEPS)}" if version else "will be created", None
            query = "SELECT count(*) FROM floop_gateway.projects WHERE deleted_at IS NULL"
            (projects,) = raw.execute(query).fetchone() or (0,)
            return "ready", projects
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL: {str(error).splitlines()[0]}") from None
