"""The SQLite schema and its migrations: `user_version` counts the steps that a file has taken.

A step is never edited once released; a change is a new step. Money is INTEGER micro-credits, instants of the window are
INTEGER microseconds, other times REAL epoch seconds.
"""

import json
import sqlite3

__all__ = ["APPLICATION_ID", "STEPS", "check_ours", "known_version", "migrate"]

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
    # Ids for projects, and STRICT tables: SQLite can change neither in place, so the tables are rebuilt.
    """
    CREATE TABLE new_projects (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, plan TEXT NOT NULL,
        requests_per_minute INTEGER, daily_tokens INTEGER, created_at REAL NOT NULL, suspended_at REAL, deleted_at REAL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO new_projects
        SELECT 'prj_' || lower(hex(randomblob(13))), name, owner, plan, requests_per_minute, daily_tokens, created_at,
        NULL, NULL FROM projects;
    CREATE TABLE new_keys (
        digest TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES new_projects, prefix TEXT NOT NULL,
        created_at REAL NOT NULL, revoked_at REAL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO new_keys
        SELECT digest, new_projects.id, prefix, keys.created_at, revoked_at
        FROM keys JOIN new_projects ON new_projects.name = keys.project;
    DROP TABLE keys;
    DROP TABLE projects;
    ALTER TABLE new_projects RENAME TO projects;
    ALTER TABLE new_keys RENAME TO keys;
    CREATE UNIQUE INDEX names ON projects (name) WHERE deleted_at IS NULL;
    CREATE UNIQUE INDEX one_active_key ON keys (project_id) WHERE revoked_at IS NULL;

    CREATE TABLE new_windows (key TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO new_windows SELECT coalesce(projects.id, project), count
        FROM windows LEFT JOIN projects ON projects.name = project;
    DROP TABLE windows;
    ALTER TABLE new_windows RENAME TO windows;
    CREATE TABLE new_instants (key TEXT NOT NULL, at_us INTEGER NOT NULL) STRICT;
    INSERT INTO new_instants SELECT coalesce(projects.id, project), at_us
        FROM instants LEFT JOIN projects ON projects.name = project;
    DROP TABLE instants;
    ALTER TABLE new_instants RENAME TO instants;
    CREATE INDEX instants_by_time ON instants (key, at_us);

    CREATE TABLE new_accounts (
        owner TEXT PRIMARY KEY,
        posted INTEGER NOT NULL CHECK (posted >= 0),
        held INTEGER NOT NULL CHECK (held BETWEEN 0 AND posted)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO new_accounts SELECT * FROM accounts;
    DROP TABLE accounts;
    ALTER TABLE new_accounts RENAME TO accounts;

    CREATE TABLE new_entries (
        number INTEGER PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, amount INTEGER NOT NULL,
        posted_after INTEGER, held_after INTEGER, request_id TEXT, project_id TEXT, id TEXT, note TEXT, by TEXT,
        at REAL NOT NULL
    ) STRICT;
    INSERT INTO new_entries (number, owner, kind, amount, request_id, at)
        SELECT id, owner, CASE kind WHEN 'write_off' THEN 'written_off' ELSE kind END, amount, request_id, at
        FROM entries;
    DROP TABLE entries;
    ALTER TABLE new_entries RENAME TO entries;
    CREATE UNIQUE INDEX entry_ids ON entries (owner, id) WHERE id IS NOT NULL;
    CREATE INDEX entries_by_owner ON entries (owner, number);

    CREATE TABLE new_days (
        project_id TEXT NOT NULL, day INTEGER NOT NULL,
        used INTEGER NOT NULL, held INTEGER NOT NULL CHECK (held >= 0), PRIMARY KEY (project_id, day)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO new_days SELECT coalesce(projects.id, project), day, used, held
        FROM days LEFT JOIN projects ON projects.name = project;
    DROP TABLE days;
    ALTER TABLE new_days RENAME TO days;

    CREATE TABLE new_holds (
        request_id TEXT PRIMARY KEY, owner TEXT NOT NULL, day INTEGER NOT NULL, state TEXT NOT NULL,
        amount INTEGER NOT NULL, captured INTEGER NOT NULL, overrun INTEGER NOT NULL, written_off INTEGER NOT NULL,
        tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, expires_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO new_holds SELECT * FROM holds;
    DROP TABLE holds;
    ALTER TABLE new_holds RENAME TO holds;
    CREATE INDEX open_holds ON holds (expires_at) WHERE state = 'open';
    CREATE INDEX resolved_holds ON holds (day) WHERE state <> 'open';
    CREATE TABLE named_holds (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, amount INTEGER NOT NULL,
        captured INTEGER NOT NULL, overrun INTEGER NOT NULL, written_off INTEGER NOT NULL, expires_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO named_holds SELECT * FROM meters;
    DROP TABLE meters;
    CREATE INDEX open_named_holds ON named_holds (expires_at) WHERE state = 'open';
    CREATE TABLE claims (
        project_id TEXT NOT NULL, key TEXT NOT NULL, request_id TEXT NOT NULL, digest TEXT NOT NULL,
        expires_at REAL NOT NULL, status INTEGER, answer BLOB, PRIMARY KEY (project_id, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE new_usage (
        request_id TEXT PRIMARY KEY, project_id TEXT NOT NULL, project TEXT NOT NULL, key_prefix TEXT NOT NULL,
        endpoint TEXT NOT NULL, alias TEXT, resolved_alias TEXT, deployment TEXT, status INTEGER, code TEXT,
        input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL, microcredits INTEGER NOT NULL,
        attempts INTEGER NOT NULL, first_text_ms INTEGER, total_ms INTEGER, streamed INTEGER NOT NULL,
        dialect TEXT NOT NULL DEFAULT 'native', tags TEXT, repeats INTEGER NOT NULL DEFAULT 1, replay_of TEXT,
        settled_at REAL, attempt_list TEXT, ending TEXT, finish_reason TEXT, auto_reasons TEXT, started_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO new_usage (
        request_id, project_id, project, key_prefix, endpoint, alias, resolved_alias, deployment, status, code,
        input_tokens, output_tokens, cached_tokens, reasoning_tokens, estimated, microcredits, attempts, first_text_ms,
        total_ms, streamed, settled_at, ending, finish_reason, auto_reasons, started_at
    ) SELECT
        request_id, coalesce(projects.id, project), project, key_prefix, endpoint, alias, resolved_alias, deployment,
        status, code, input_tokens, output_tokens, cached_tokens, reasoning_tokens, estimated, microcredits, attempts,
        first_text_ms, total_ms, streamed, started_at + coalesce(total_ms, 0) / 1000.0, ending, finish_reason,
        auto_reasons, started_at
    FROM usage LEFT JOIN projects ON projects.name = project;
    DROP TABLE usage;
    ALTER TABLE new_usage RENAME TO usage;
    CREATE INDEX usage_by_time ON usage (started_at, request_id);
    CREATE INDEX usage_by_project ON usage (project_id, started_at, request_id);
    """,
    """
    ALTER TABLE keys ADD COLUMN grace_until REAL;
    ALTER TABLE projects ADD COLUMN suspended_by_operator INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN rolled INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX unrolled_usage ON usage (settled_at) WHERE rolled = 0 AND ending IS NOT NULL;
    CREATE TABLE rollups (
        span INTEGER NOT NULL, project_id TEXT NOT NULL, start INTEGER NOT NULL, alias TEXT NOT NULL,
        deployment TEXT NOT NULL, status INTEGER NOT NULL, project TEXT NOT NULL, requests INTEGER NOT NULL,
        errors INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        microcredits INTEGER NOT NULL, latency TEXT NOT NULL, first_text TEXT NOT NULL,
        PRIMARY KEY (span, project_id, start, alias, deployment, status)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX rollups_by_time ON rollups (span, start);
    DROP TABLE claims;
    CREATE TABLE answers (
        project_id TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, request_id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL, answer BLOB NOT NULL, charged INTEGER NOT NULL, posted INTEGER NOT NULL,
        until REAL NOT NULL, PRIMARY KEY (project_id, key)
    ) STRICT;
    CREATE INDEX answers_by_end ON answers (until);
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY, at REAL NOT NULL, by TEXT NOT NULL, what TEXT NOT NULL, project_id TEXT,
        project TEXT, account TEXT, origin TEXT, details TEXT NOT NULL
    ) STRICT;
    CREATE INDEX usage_by_settlement ON usage (settled_at, request_id) WHERE ending IS NOT NULL;
    CREATE INDEX usage_of_project_by_settlement ON usage (project_id, settled_at, request_id) WHERE ending IS NOT NULL;
    CREATE INDEX entries_of_request ON entries (request_id) WHERE request_id IS NOT NULL;
    """,
    """
    CREATE TABLE carried (
        number INTEGER PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, amount INTEGER NOT NULL,
        posted_after INTEGER, held_after INTEGER, request_id TEXT, project_id TEXT, id TEXT NOT NULL, note TEXT, by TEXT,
        at REAL NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX carried_ids ON carried (owner, id);
    """,
    # Histograms that were JSON become numbers, which a summary can add. Rows this large are faster in a table with a ROWID.
    """
    CREATE TABLE new_rollups (
        span INTEGER NOT NULL, project_id TEXT NOT NULL, start INTEGER NOT NULL, alias TEXT NOT NULL,
        deployment TEXT NOT NULL, status INTEGER NOT NULL, project TEXT NOT NULL, requests INTEGER NOT NULL,
        errors INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        microcredits INTEGER NOT NULL, latency_counts BLOB NOT NULL, first_text_counts BLOB NOT NULL,
        PRIMARY KEY (span, project_id, start, alias, deployment, status)
    ) STRICT;
    INSERT INTO new_rollups
        SELECT span, project_id, start, alias, deployment, status, project, requests, errors, input_tokens,
        output_tokens, microcredits, lanes_of_json(latency), lanes_of_json(first_text) FROM rollups;
    DROP TABLE rollups;
    ALTER TABLE new_rollups RENAME TO rollups;
    CREATE INDEX rollups_by_time ON rollups (span, start);
    """,
)


def _lanes_of_json(counts: str) -> bytes:
    """Return counts by bucket, as JSON, as the lowest bucket with a count and one number of 40 bits for each bucket."""
    found = {int(bucket): count for bucket, count in json.loads(counts).items() if count > 0}
    lowest = min(found, default=0)
    lanes: int = sum(count << 40 * (bucket - lowest) for bucket, count in found.items())
    return bytes([lowest]) + lanes.to_bytes((lanes.bit_length() + 7) // 8, "big")


def _take(connection: sqlite3.Connection, step: str) -> None:
    """Execute the statements of a step."""
    connection.create_function("lanes_of_json", 1, _lanes_of_json)
    for statement in filter(str.strip, step.split(";")):
        connection.execute(statement)


def check_ours(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` for a file of another application; an empty file is accepted.

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
            _take(connection, step)
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
        version = known_version(connection)
        for number, step in enumerate(STEPS[version:], version + 1):
            _take(connection, step)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def known_version(connection: sqlite3.Connection) -> int:
    """Return the file's schema; raise `sqlite3.DatabaseError` for a file from a later release."""
    version = _version(connection)
    if version > len(STEPS):
        raise sqlite3.DatabaseError(
            f"this release supports schema {len(STEPS)}, the file has {version}; use the release that wrote it"
        )
    return version


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
