"""The PostgreSQL schema and its migrations, in the schema `floop_gateway` of the database.

A step is never edited once released; a change is a new step. A step only adds, so that processes of the release before
go on while those of the next one start; what they no longer need goes in a step of a later release.
Money is BIGINT micro-credits, instants of the window are BIGINT microseconds, other times epoch seconds.
"""

from textwrap import dedent

from floop_gateway_core.stores.postgres import functions

__all__ = ["LOCK", "OLDEST", "STEPS", "script", "steps_from"]

OLDEST = 1
"""Releases that know this many steps can still use the schema."""
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('floop_gateway migrations', 0))"
"""Processes that migrate at the same time take turns."""

STEPS = (
    """
    CREATE TABLE floop_gateway.projects (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, plan TEXT NOT NULL,
        requests_per_minute BIGINT, daily_tokens BIGINT, created_at DOUBLE PRECISION NOT NULL,
        suspended_at DOUBLE PRECISION, deleted_at DOUBLE PRECISION, suspended_by_operator BIGINT NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX names ON floop_gateway.projects (name) WHERE deleted_at IS NULL;
    CREATE TABLE floop_gateway.keys (
        digest TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES floop_gateway.projects, prefix TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, revoked_at DOUBLE PRECISION, grace_until DOUBLE PRECISION
    );
    CREATE UNIQUE INDEX one_active_key ON floop_gateway.keys (project_id) WHERE revoked_at IS NULL;

    CREATE TABLE floop_gateway.windows (key TEXT PRIMARY KEY, count BIGINT NOT NULL);
    CREATE TABLE floop_gateway.instants (key TEXT NOT NULL, at_us BIGINT NOT NULL);
    CREATE INDEX instants_by_time ON floop_gateway.instants (key, at_us);

    CREATE TABLE floop_gateway.accounts (
        owner TEXT COLLATE "C" PRIMARY KEY,
        posted BIGINT NOT NULL CHECK (posted >= 0),
        held BIGINT NOT NULL CHECK (held BETWEEN 0 AND posted)
    );
    CREATE TABLE floop_gateway.entries (
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL,
        amount BIGINT NOT NULL, posted_after BIGINT, held_after BIGINT, request_id TEXT, project_id TEXT, id TEXT,
        note TEXT, by TEXT, at DOUBLE PRECISION NOT NULL
    );
    CREATE UNIQUE INDEX entry_ids ON floop_gateway.entries (owner, id) WHERE id IS NOT NULL;
    CREATE INDEX entries_by_owner ON floop_gateway.entries (owner, number);
    CREATE INDEX entries_of_request ON floop_gateway.entries (request_id) WHERE request_id IS NOT NULL;
    CREATE TABLE floop_gateway.days (
        project_id TEXT NOT NULL, day BIGINT NOT NULL,
        used BIGINT NOT NULL, held BIGINT NOT NULL CHECK (held >= 0), PRIMARY KEY (project_id, day)
    );
    CREATE TABLE floop_gateway.holds (
        request_id TEXT PRIMARY KEY, owner TEXT NOT NULL, day BIGINT NOT NULL, state TEXT NOT NULL,
        amount BIGINT NOT NULL, captured BIGINT NOT NULL, overrun BIGINT NOT NULL, written_off BIGINT NOT NULL,
        tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, expires_at DOUBLE PRECISION NOT NULL
    );
    CREATE INDEX open_holds ON floop_gateway.holds (expires_at) WHERE state = 'open';
    CREATE INDEX open_holds_of_account ON floop_gateway.holds (owner, expires_at) WHERE state = 'open';
    CREATE INDEX resolved_holds ON floop_gateway.holds (day) WHERE state <> 'open';
    CREATE TABLE floop_gateway.named_holds (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, amount BIGINT NOT NULL,
        captured BIGINT NOT NULL, overrun BIGINT NOT NULL, written_off BIGINT NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL
    );
    CREATE INDEX open_named_holds ON floop_gateway.named_holds (expires_at) WHERE state = 'open';
    CREATE TABLE floop_gateway.answers (
        project_id TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, request_id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL, answer BYTEA NOT NULL, charged BIGINT NOT NULL, posted BIGINT NOT NULL,
        until DOUBLE PRECISION NOT NULL, PRIMARY KEY (project_id, key)
    );
    CREATE INDEX answers_by_end ON floop_gateway.answers (until);

    CREATE TABLE floop_gateway.usage (
        request_id TEXT COLLATE "C" PRIMARY KEY, project_id TEXT NOT NULL, project TEXT NOT NULL,
        key_prefix TEXT NOT NULL, endpoint TEXT NOT NULL, alias TEXT, resolved_alias TEXT, deployment TEXT,
        status BIGINT, code TEXT, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
        cached_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL, estimated BIGINT NOT NULL,
        microcredits BIGINT NOT NULL, attempts BIGINT NOT NULL, first_text_ms BIGINT, total_ms BIGINT,
        streamed BIGINT NOT NULL, dialect TEXT NOT NULL DEFAULT 'native', tags TEXT,
        repeats BIGINT NOT NULL DEFAULT 1, replay_of TEXT, settled_at DOUBLE PRECISION, attempt_list TEXT, ending TEXT,
        finish_reason TEXT, auto_reasons TEXT, started_at DOUBLE PRECISION NOT NULL, rolled BIGINT NOT NULL DEFAULT 0
    );
    CREATE INDEX usage_by_time ON floop_gateway.usage (started_at, request_id);
    CREATE INDEX usage_by_project ON floop_gateway.usage (project_id, started_at, request_id);
    CREATE INDEX unrolled_usage ON floop_gateway.usage (settled_at) WHERE rolled = 0 AND ending IS NOT NULL;
    CREATE INDEX usage_by_settlement ON floop_gateway.usage (settled_at, request_id) WHERE ending IS NOT NULL;
    CREATE INDEX usage_of_project_by_settlement
        ON floop_gateway.usage (project_id, settled_at, request_id) WHERE ending IS NOT NULL;
    CREATE TABLE floop_gateway.rollups (
        span BIGINT NOT NULL, project_id TEXT NOT NULL, start BIGINT NOT NULL, alias TEXT NOT NULL,
        deployment TEXT NOT NULL, status BIGINT NOT NULL, project TEXT NOT NULL, requests BIGINT NOT NULL,
        errors BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
        microcredits BIGINT NOT NULL, latency TEXT NOT NULL, first_text TEXT NOT NULL,
        PRIMARY KEY (span, project_id, start, alias, deployment, status)
    );
    CREATE INDEX rollups_by_time ON floop_gateway.rollups (span, start);
    CREATE TABLE floop_gateway.audit (
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at DOUBLE PRECISION NOT NULL, by TEXT NOT NULL,
        what TEXT NOT NULL, project_id TEXT, project TEXT, account TEXT, origin TEXT, details TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE floop_gateway.carried (
        number BIGINT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, amount BIGINT NOT NULL,
        posted_after BIGINT, held_after BIGINT, request_id TEXT, project_id TEXT, id TEXT NOT NULL, note TEXT, by TEXT,
        at DOUBLE PRECISION NOT NULL
    );
    CREATE UNIQUE INDEX carried_ids ON floop_gateway.carried (owner, id);
    """,
    functions.STEP,
    # Histograms that were JSON become the lowest bucket with a count, and a number that a summary can add. This step does
    # not only add: processes of the release before answer requests as before, but their summaries fail, and so do charges
    # that come after their hold has expired. What they do not add up is added up by processes of this release.
    """
    CREATE FUNCTION floop_gateway.lanes_of_json(counts TEXT) RETURNS BYTEA LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(decode(
            lpad(to_hex(min(bucket)), 2, '0') ||
            string_agg(lpad(to_hex(greatest(value::BIGINT, 0)), 10, '0'), '' ORDER BY bucket DESC), 'hex'), '\\x00')
        FROM generate_series(
            (SELECT min(key::INT) FROM json_each_text(counts::JSON) WHERE value::BIGINT > 0),
            (SELECT max(key::INT) FROM json_each_text(counts::JSON) WHERE value::BIGINT > 0)
        ) AS bucket
        LEFT JOIN json_each_text(counts::JSON) AS counted ON counted.key::INT = bucket
    $$;
    ALTER TABLE floop_gateway.rollups
        ALTER COLUMN latency TYPE BYTEA USING floop_gateway.lanes_of_json(latency),
        ALTER COLUMN first_text TYPE BYTEA USING floop_gateway.lanes_of_json(first_text);
    ALTER TABLE floop_gateway.rollups RENAME COLUMN latency TO latency_counts;
    ALTER TABLE floop_gateway.rollups RENAME COLUMN first_text TO first_text_counts;
    DROP FUNCTION floop_gateway.lanes_of_json(TEXT);
    """,
)


def steps_from(version: int) -> str:
    """Return the SQL that brings the schema from a version up to date, to be run in one transaction that has `LOCK`."""
    return "".join(
        (
            "CREATE SCHEMA IF NOT EXISTS floop_gateway;\n",
            "CREATE TABLE IF NOT EXISTS floop_gateway.schema_version (version BIGINT NOT NULL, oldest BIGINT NOT NULL);\n",
            *(dedent(step).lstrip("\n") for step in STEPS[version:]),
            "DELETE FROM floop_gateway.schema_version;\n",
            f"INSERT INTO floop_gateway.schema_version VALUES ({len(STEPS)}, {OLDEST});\n",
        )
    )


def script(version: int) -> str:
    """Return the same as a script with its transaction; empty if the schema is up to date."""
    return "" if version >= len(STEPS) else f"BEGIN;\n{LOCK};\n{steps_from(version)}COMMIT;\n"
