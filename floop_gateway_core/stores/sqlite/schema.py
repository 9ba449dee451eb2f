"""The SQLite schema and its migrations: `user_version` counts the steps that a file has taken.

A step is never edited once released; a change is a new step. Money is INTEGER micro-credits, instants of the window are
INTEGER microseconds, other times REAL epoch seconds.
"""

import sqlite3

__all__ = ["APPLICATION_ID", "STEPS", "check_ours", "migrate"]

APPLICATION_ID = int.from_bytes(b"flop", "big")
"""Marks the file as ours, in SQLite's own header."""

STEPS = (
    """
    CREATE TABLE projects (
        name TEXT PRIMARY KEY, owner TEXT NOT NULL, plan TEXT NOT NULL,
        requests_per_minute INTEGER, daily_tokens INTEGER, created_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        digest TEXT PRIMARY KEY, project TEXT NOT NULL REFERENCES projects, prefix TEXT NOT NULL,
        created_at REAL NOT NULL, revoked_at REAL
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX one_active_key ON keys (project) WHERE revoked_at IS NULL;

    CREATE TABLE windows (project TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE instants (project TEXT NOT NULL, at_us INTEGER NOT NULL);
    CREATE INDEX instants_by_time ON instants (project, at_us);

    CREATE TABLE accounts (
        owner TEXT PRIMARY KEY,
        posted INTEGER NOT NULL CHECK (posted >= 0),
        held INTEGER NOT NULL CHECK (held BETWEEN 0 AND posted)
    ) WITHOUT ROWID;
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, amount INTEGER NOT NULL,
        request_id TEXT, at REAL NOT NULL
    );
    CREATE TABLE days (
        project TEXT NOT NULL, day INTEGER NOT NULL,
        used INTEGER NOT NULL, held INTEGER NOT NULL CHECK (held >= 0), PRIMARY KEY (project, day)
    ) WITHOUT ROWID;
    CREATE TABLE holds (
        request_id TEXT PRIMARY KEY, owner TEXT NOT NULL, day INTEGER NOT NULL, state TEXT NOT NULL,
        amount INTEGER NOT NULL, captured INTEGER NOT NULL, overrun INTEGER NOT NULL, written_off INTEGER NOT NULL,
        tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, expires_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX open_holds ON holds (expires_at) WHERE state = 'open';

    CREATE TABLE usage (
        request_id TEXT PRIMARY KEY, project TEXT NOT NULL, key_prefix TEXT NOT NULL, endpoint TEXT NOT NULL,
        alias TEXT, resolved_alias TEXT, deployment TEXT, status INTEGER, code TEXT,
        input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL, microcredits INTEGER NOT NULL,
        attempts INTEGER NOT NULL, first_text_ms INTEGER, total_ms INTEGER, streamed INTEGER NOT NULL,
        ending TEXT, finish_reason TEXT, auto_reasons TEXT, started_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX usage_by_time ON usage (started_at, request_id);
    CREATE INDEX usage_by_project ON usage (project, started_at, request_id);
    """,
    """
    CREATE TABLE meters (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, amount INTEGER NOT NULL,
        captured INTEGER NOT NULL, overrun INTEGER NOT NULL, written_off INTEGER NOT NULL, expires_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX open_meters ON meters (expires_at) WHERE state = 'open';
    """,
)


def check_ours(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` for a file of another application; an empty file is free to take.

    Files from before the mark are recognized by their tables, which must be exactly those of their version.
    """
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    if found == APPLICATION_ID:
        return
    tables = _tables(connection)
    version = _version(connection)
    if found == 0 and ((not tables and version == 0) or (0 < version <= len(STEPS) and tables == _tables_of(version))):
        return
    if found == 0 and version > len(STEPS) and tables >= _tables_of(len(STEPS)):
        return  # one of ours from a later release, which `migrate` refuses with a better message
    raise sqlite3.DatabaseError("the file belongs to another application; it was not changed")


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {(name, " ".join(sql.split())) for name, sql in rows}


def _tables_of(version: int) -> set[tuple[str, str]]:
    connection = sqlite3.connect(":memory:")
    try:
        for step in STEPS[:version]:
            connection.executescript(step)
        return _tables(connection)
    finally:
        connection.close()


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file up to date; processes that start together take turns. Raises for a file from a later release."""
    (marked,) = connection.execute("PRAGMA application_id").fetchone()
    if _version(connection) == len(STEPS) and marked == APPLICATION_ID:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(STEPS):
            raise sqlite3.DatabaseError(
                f"the file has schema {version}, this release knows {len(STEPS)}: use the release that wrote it"
            )
        for number, step in enumerate(STEPS[version:], version + 1):
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
