"""The server's functions: what each request does to the store, in one round trip each.

They do the ordinary case of `sql.ledger` and `sql.windows`, for which nothing needs to be decided, and return `other`
without any change if it is another case; the row functions then decide. They return `busy` if a lock is not free and
they are not to wait for it.
"""

__all__ = ["STEP"]

_RECORD = (
    "request_id, project_id, project, key_prefix, endpoint, alias, resolved_alias, deployment, status, code,"
    " input_tokens, output_tokens, cached_tokens, reasoning_tokens, estimated, microcredits, attempts, first_text_ms,"
    " total_ms, streamed, dialect, tags, repeats, replay_of, settled_at, attempt_list, ending, finish_reason,"
    " auto_reasons, started_at"
)

_LOCKS = """
    CREATE FUNCTION floop_gateway.take_locks(locks BIGINT[], waits BOOLEAN, durable BOOLEAN) RETURNS BOOLEAN
    LANGUAGE plpgsql AS $$
    DECLARE
        one BIGINT;
    BEGIN
        IF NOT durable THEN
            PERFORM set_config('synchronous_commit', 'off', true);
        END IF;
        FOREACH one IN ARRAY locks LOOP
            IF waits THEN
                PERFORM pg_advisory_xact_lock(one);
            ELSIF NOT pg_try_advisory_xact_lock(one) THEN
                RETURN false;
            END IF;
        END LOOP;
        RETURN true;
    END $$;
"""

_SPEND = """
    CREATE FUNCTION floop_gateway.spend(
        locks BIGINT[], waits BOOLEAN, durable BOOLEAN,
        window_key TEXT, most BIGINT, now_us BIGINT, window_us BIGINT,
        OUT outcome TEXT, OUT counted BIGINT, OUT oldest_us BIGINT, OUT leaving_us BIGINT
    ) LANGUAGE plpgsql AS $$
    DECLARE
        kept BIGINT;
        newest_us BIGINT;
        gone BIGINT;
    BEGIN
        outcome := 'busy';
        IF NOT floop_gateway.take_locks(locks, waits, durable) THEN
            RETURN;
        END IF;
        outcome := 'done';
        SELECT count INTO kept FROM floop_gateway.windows WHERE key = window_key;
        counted := coalesce(kept, 0);
        SELECT at_us INTO oldest_us FROM floop_gateway.instants WHERE key = window_key ORDER BY at_us LIMIT 1;
        SELECT at_us INTO newest_us FROM floop_gateway.instants WHERE key = window_key ORDER BY at_us DESC LIMIT 1;
        IF newest_us > now_us + window_us THEN
            DELETE FROM floop_gateway.instants WHERE key = window_key AND at_us > now_us + window_us;
            GET DIAGNOSTICS gone = ROW_COUNT;
            counted := counted - gone;
        END IF;
        IF oldest_us <= now_us - window_us THEN
            DELETE FROM floop_gateway.instants WHERE key = window_key AND at_us <= now_us - window_us;
            GET DIAGNOSTICS gone = ROW_COUNT;
            counted := counted - gone;
        END IF;
        IF oldest_us <= now_us - window_us OR oldest_us > now_us + window_us THEN
            SELECT at_us INTO oldest_us FROM floop_gateway.instants WHERE key = window_key ORDER BY at_us LIMIT 1;
        END IF;
        IF counted < most THEN
            INSERT INTO floop_gateway.instants VALUES (window_key, now_us);
            INSERT INTO floop_gateway.windows VALUES (window_key, counted + 1)
                ON CONFLICT (key) DO UPDATE SET count = excluded.count;
        ELSE
            SELECT at_us INTO leaving_us FROM floop_gateway.instants
                WHERE key = window_key ORDER BY at_us LIMIT 1 OFFSET counted - most;
            IF counted <> kept THEN
                UPDATE floop_gateway.windows SET count = counted WHERE key = window_key;
            END IF;
        END IF;
    END $$;
"""

_HOLD = f"""
    CREATE FUNCTION floop_gateway.hold(
        locks BIGINT[], waits BOOLEAN, durable BOOLEAN,
        payer TEXT, of_day BIGINT, budget BIGINT, at DOUBLE PRECISION, until DOUBLE PRECISION,
        credits BIGINT, day_tokens BIGINT, output_count BIGINT, claim_key TEXT, claim_digest TEXT, record JSON,
        OUT outcome TEXT
    ) LANGUAGE plpgsql AS $$
    DECLARE
        logged floop_gateway.usage := json_populate_record(NULL::floop_gateway.usage, record);
        request TEXT := logged.request_id;  -- without the collation, for which the other tables have no index
    BEGIN
        outcome := 'busy';
        IF NOT floop_gateway.take_locks(locks, waits, durable) THEN
            RETURN;
        END IF;
        outcome := 'other';
        IF EXISTS (SELECT FROM floop_gateway.holds WHERE request_id = request)
            OR EXISTS (SELECT FROM floop_gateway.usage WHERE request_id = request)
            OR EXISTS (SELECT FROM floop_gateway.holds WHERE state = 'open' AND owner = payer AND expires_at <= at)
            OR NOT EXISTS (SELECT FROM floop_gateway.accounts WHERE owner = payer AND posted - held >= credits)
            OR budget - day_tokens < coalesce(
                (SELECT used + held FROM floop_gateway.days WHERE project_id = logged.project_id AND day = of_day), 0
            )
            OR (claim_key IS NOT NULL AND EXISTS (
                SELECT FROM floop_gateway.answers WHERE project_id = logged.project_id AND key = claim_key
            ))
        THEN
            RETURN;
        END IF;
        outcome := 'done';
        UPDATE floop_gateway.accounts SET held = held + credits WHERE owner = payer;
        INSERT INTO floop_gateway.days AS days (project_id, day, used, held)
            VALUES (logged.project_id, of_day, 0, day_tokens)
            ON CONFLICT (project_id, day) DO UPDATE SET held = days.held + excluded.held;
        INSERT INTO floop_gateway.holds (
            request_id, owner, day, state, amount, captured, overrun, written_off, tokens, output_tokens, expires_at
        ) VALUES (request, payer, of_day, 'open', credits, 0, 0, 0, day_tokens, output_count, until);
        INSERT INTO floop_gateway.usage ({_RECORD}, rolled)
            SELECT {_RECORD}, 0 FROM (SELECT logged.*) AS values;
        IF claim_key IS NOT NULL THEN
            INSERT INTO floop_gateway.answers (
                project_id, key, digest, request_id, state, answer, charged, posted, until
            ) VALUES (logged.project_id, claim_key, claim_digest, request, 'running', '', 0, 0, until);
        END IF;
    END $$;
"""

_SETTLE = f"""
    CREATE FUNCTION floop_gateway.settle(
        locks BIGINT[], waits BOOLEAN, durable BOOLEAN,
        payer TEXT, of_day BIGINT, at DOUBLE PRECISION, charge BIGINT, spent_tokens BIGINT,
        claim_key TEXT, claim_digest TEXT, kept_answer BYTEA, keep_until DOUBLE PRECISION, record JSON,
        OUT outcome TEXT, OUT amount BIGINT, OUT posted BIGINT, OUT held BIGINT, OUT used BIGINT
    ) LANGUAGE plpgsql AS $$
    DECLARE
        logged floop_gateway.usage := json_populate_record(NULL::floop_gateway.usage, record);
        request TEXT := logged.request_id;  -- without the collation, for which the other tables have no index
        charged BIGINT := coalesce(charge, 0);
        day_tokens BIGINT;
        is_ordinary BOOLEAN;
    BEGIN
        outcome := 'busy';
        IF NOT floop_gateway.take_locks(locks, waits, durable) THEN
            RETURN;
        END IF;
        outcome := 'other';
        SELECT holds.amount, holds.tokens, state = 'open' AND owner = payer AND holds.amount >= charged
            INTO amount, day_tokens, is_ordinary FROM floop_gateway.holds AS holds WHERE request_id = request;
        IF is_ordinary IS NOT true OR (claim_key IS NOT NULL AND EXISTS (
            SELECT FROM floop_gateway.answers
                WHERE project_id = logged.project_id AND key = claim_key AND request_id <> request
        )) THEN
            RETURN;
        END IF;
        UPDATE floop_gateway.days AS days
            SET used = days.used + spent_tokens, held = days.held - day_tokens
            WHERE project_id = logged.project_id AND day = of_day RETURNING days.used INTO STRICT used;
        UPDATE floop_gateway.accounts AS accounts
            SET posted = accounts.posted - charged, held = accounts.held - amount
            WHERE owner = payer RETURNING accounts.posted, accounts.held INTO STRICT posted, held;
        outcome := 'done';
        UPDATE floop_gateway.holds AS holds
            SET state = CASE WHEN charge IS NULL THEN 'voided' ELSE 'captured' END, captured = charged, expires_at = 0
            WHERE request_id = request;
        UPDATE floop_gateway.usage SET ({_RECORD}, rolled) = (SELECT {_RECORD}, 0 FROM (SELECT logged.*) AS one)
            WHERE request_id = request;
        IF charged > 0 THEN
            INSERT INTO floop_gateway.entries (
                at, owner, kind, amount, posted_after, held_after, request_id, project_id
            ) VALUES (at, payer, 'capture', -charged, posted, held, request, logged.project_id);
        END IF;
        IF claim_key IS NOT NULL THEN
            DELETE FROM floop_gateway.answers WHERE request_id = request;
            IF kept_answer IS NOT NULL THEN
                INSERT INTO floop_gateway.answers (
                    project_id, key, digest, request_id, state, answer, charged, posted, until
                ) VALUES (
                    logged.project_id, claim_key, claim_digest, request, 'kept', kept_answer, charged, posted,
                    keep_until
                );
            END IF;
        END IF;
    END $$;
"""

STEP = _LOCKS + _SPEND + _HOLD + _SETTLE
"""The SQL that creates them."""
