"""Brings the schema up to date, or only looks at it."""

import time
from contextlib import closing
from typing import Any

import psycopg

from floop_gateway_core.errors import StoreUnavailable
from floop_gateway_core.stores.postgres.schema import LOCK, STEPS, script, steps_from
from floop_gateway_core.stores.postgres.session import GRACE_S, Watched, connect
from floop_gateway_core.stores.postgres.urls import without_our_parameters

__all__ = ["inspect", "migrate", "pending_script"]

CANNOT_MIGRATE = (
    "PostgreSQL: this role may not create or change the schema; let one that may run what `floop-gateway migrate --sql`"
    " prints"
)
Raw = psycopg.Connection[tuple[Any, ...]]


def migrate(conninfo: str, timeout_s: float) -> None:
    """Bring the schema up to date; processes that start together take turns.

    If it already is, nothing is written, so a role that may not create tables can use a schema migrated by another.
    """
    with closing(connect(conninfo, timeout_s)) as raw:
        if _version_in_time(raw, timeout_s) < len(STEPS):
            _must_be_able_to_migrate(raw)
            with raw.transaction():
                raw.execute(LOCK.encode())
                raw.execute(steps_from(_version(raw)).encode())


def _version_in_time(raw: Watched, timeout_s: float) -> int:
    raw.deadline = time.monotonic() + timeout_s + GRACE_S
    try:
        return _version(raw)
    finally:
        raw.deadline = float("inf")  # a migration may take long


def _version(raw: Raw) -> int:
    """Return how many steps the schema has taken; raise `StoreUnavailable` for one that this release cannot use."""
    # The catalogue itself, because what `to_regclass` says may be older than a migration that has just ended.
    query = (
        "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = 'floop_gateway' AND relname = 'schema_version')"
    )
    (found,) = raw.execute(query.encode()).fetchone() or (False,)
    row = raw.execute("SELECT version, oldest FROM floop_gateway.schema_version").fetchone() if found else None
    version, oldest = row or (0, 0)
    if oldest > len(STEPS):
        raise StoreUnavailable(
            f"PostgreSQL: this release supports schema {len(STEPS)}, found {version}; use the release that wrote it"
        )
    return int(version)


def _must_be_able_to_migrate(raw: Raw) -> None:
    query = (
        "SELECT CASE WHEN to_regnamespace('floop_gateway') IS NULL"
        " THEN has_database_privilege(current_database(), 'CREATE')"
        " ELSE has_schema_privilege('floop_gateway', 'CREATE') END"
    )
    (may,) = raw.execute(query.encode()).fetchone() or (False,)
    if not may:
        raise StoreUnavailable(CANNOT_MIGRATE)


def pending_script(url: str, timeout_s: float) -> str:
    """Return the SQL that `migrate` would run, for people who run it themselves; empty if the schema is up to date."""
    try:
        with closing(connect(without_our_parameters(url)[0], timeout_s)) as raw:
            return script(_version_in_time(raw, timeout_s))
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL: {str(error).splitlines()[0]}") from None


def inspect(url: str, timeout_s: float) -> tuple[str, int | None]:
    """Return the state of a store and its number of projects, without changing it; raise `StoreUnavailable`."""
    try:
        with closing(connect(without_our_parameters(url)[0], timeout_s)) as raw:
            version = _version_in_time(raw, timeout_s)
            if version < len(STEPS):
                _must_be_able_to_migrate(raw)
                return f"will be migrated from schema {version} to {len(STEPS)}" if version else "will be created", None
            query = "SELECT count(*) FROM floop_gateway.projects WHERE deleted_at IS NULL"
            (projects,) = raw.execute(query).fetchone() or (0,)
            return "ready", projects
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL: {str(error).splitlines()[0]}") from None
