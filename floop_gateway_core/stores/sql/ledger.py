"""Rows of accounts, days, holds and usage. Each function runs inside a transaction that its caller opened.

`policy.holds` decides; here its values are loaded and saved. Every movement of money leaves an entry.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from floop_gateway_core.policy import holds, ledger
from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.budget import DayBudget
from floop_gateway_core.policy.holds import RequestHold, RequestHolds
from floop_gateway_core.policy.ledger import Account, Hold
from floop_gateway_core.stores.base import DayUsage, HoldRequest, Settled, Settlement
from floop_gateway_core.stores.sql import answers, books, rollups, usage
from floop_gateway_core.stores.sql.connection import Connection, upsert
from floop_gateway_core.types import (
    Microcredits,
    ProjectId,
    RequestId,
    UsageRecord,
)

_UPSERT_DAY = upsert("days", "project_id, day, used, held", "project_id, day")
_UPSERT_HOLD = upsert(
    "holds",
    "request_id, owner, day, state, amount, captured, overrun, written_off, tokens, output_tokens, expires_at",
    "request_id",
)
_LOAD = (
    "SELECT coalesce(holds.owner, ?), accounts.posted, accounts.held, days.used, days.held,"
    " holds.amount, holds.state, holds.captured, holds.overrun, holds.written_off, holds.tokens, holds.output_tokens,"
    " usage.request_id,"
    " EXISTS (SELECT 1 FROM holds WHERE state = 'open' AND owner = ? AND expires_at <= ?)"
    " FROM (SELECT 1) AS one"
    " LEFT JOIN holds ON holds.request_id = ?"
    " LEFT JOIN accounts ON accounts.owner = coalesce(holds.owner, ?)"
    " LEFT JOIN days ON days.project_id = ? AND days.day = ?"
    " LEFT JOIN usage ON usage.request_id = ? AND usage.ending IS NOT NULL"
)
MAX_EXPIRED_AT_ONCE = 1000
"""Holds voided in one transaction, so that a request never waits for an unbounded sweep."""


def hold(connection: Connection, request: HoldRequest) -> Held | HoldRefused:
    """See `LedgerStore.hold`. Expired holds are voided first, so that their amounts are available again."""
    if (taken := answers.taken(connection, request)) is not None:
        return taken
    record = request.record
    load = partial(_load, connection, record, request.owner, request.day, request.budget_tokens, request.now)
    if (loaded := load()).has_expired:
        expire(connection, request.owner, request.now)
        loaded = load()
    before = loaded.holds
    after, granted = holds.place(before, request.estimate)
    if isinstance(granted, Held) and before.hold is None and after.hold is not None:
        _save(connection, record, request.owner, request.day, after)
        _save_hold(connection, record.request_id, request.owner, request.day, after.hold, request.expires_at)
        usage.save_record(connection, record)
        answers.claim(connection, request)
    return granted


def settle(connection: Connection, settlement: Settlement) -> Settled:
    """See `LedgerStore.settle`."""
    return _resolve(connection, settlement, lambda before: holds.settle(before, settlement.charge, settlement.tokens))


def _resolve(
    connection: Connection, settlement: Settlement, resolve: Callable[[RequestHolds], RequestHolds]
) -> Settled:
    record, day = settlement.record, settlement.day
    loaded = _load(connection, record, settlement.owner, day, 0, settlement.now)
    before, owner = loaded.holds, loaded.owner
    after = resolve(before)
    if after.hold is None:
        raise AssertionError("settling always leaves a hold or its mark")
    if before.hold is None or after.hold.credits != before.hold.credits:
        credits = after.hold.credits
        if record.microcredits != credits.charged:
            record = replace(record, microcredits=credits.charged)
        if before.hold is not None and not before.hold.open:  # its record, `lost`, may have been added up already
            rollups.take_out(connection, record.request_id)
        usage.save_record(connection, record)
        if before.hold is not None:
            _save_hold(connection, record.request_id, owner, day, after.hold, expires_at=0.0)
            _save(connection, record, owner, day, after)
            books.insert_capture_entries(
                connection, owner, credits, record.request_id, settlement.now, after.account, record.project_id
            )
            if owner != settlement.owner:
                books.close_account(connection, owner, settlement.now, record.project_id)
        answers.settle(connection, settlement, Settled(credits, after.account))
    return Settled(after.hold.credits, after.account, after.budget.used)


def payers_of_expired(now: float, connection: Connection) -> list[str]:
    """Return the owners of accounts with expired holds."""
    query = "SELECT DISTINCT owner FROM holds WHERE state = 'open' AND expires_at <= ? ORDER BY owner LIMIT ?"
    return [str(row[0]) for row in connection.execute(query, (now, MAX_EXPIRED_AT_ONCE)).fetchall()]


def expire(connection: Connection, owner: str, now: float) -> int:
    """Void the holds on an account that have expired, and return how many there were."""
    over = connection.execute(
        "SELECT request_id, day FROM holds WHERE state = 'open' AND expires_at <= ? AND owner = ? LIMIT ?",
        (now, owner, MAX_EXPIRED_AT_ONCE),
    ).fetchall()
    for request_id, day in over:
        (record,) = usage.select_records(connection, "WHERE request_id = ?", (request_id,))
        lost = replace(record, ending="lost", settled_at=now)
        _resolve(connection, Settlement(lost, owner, day, now), holds.expire)
        answers.free(connection, request_id)
    return len(over)


def grant_credits(
    connection: Connection,
    owner: str,
    amount: Microcredits,
    now: float,
    *,
    by: str | None = None,
    project_id: ProjectId | None = None,
) -> Account:
    """See `LedgerStore.grant_credits`."""
    after, _, _ = ledger.apply(books.account(connection, owner) or Account(), None, ledger.Grant(amount))
    books.save_account(connection, owner, after)
    if amount:
        books.enter(connection, owner, "grant", amount, after, now, by=by, project_id=project_id)
    return after


def day(connection: Connection, project: ProjectId, day: int) -> DayUsage:
    """See `LedgerStore.day`."""
    row = connection.execute("SELECT used, held FROM days WHERE project_id = ? AND day = ?", (project, day)).fetchone()
    return DayUsage(0, 0) if row is None else DayUsage(*row)


def prune(connection: Connection, before: float, day: int, now: float, limit: int) -> int:
    """See `LedgerStore.prune`."""
    records = connection.execute(
        "DELETE FROM usage WHERE request_id IN (SELECT request_id FROM usage"
        " WHERE started_at < ? AND settled_at < ? AND ending IS NOT NULL AND rolled = 1"
        " ORDER BY started_at LIMIT ?) RETURNING 1",
        (before, before, limit),
    ).fetchall()
    resolved = connection.execute(
        "DELETE FROM holds WHERE request_id IN (SELECT request_id FROM holds"
        " WHERE state <> 'open' AND day < ? LIMIT ?) RETURNING 1",
        (day, limit),
    ).fetchall()
    return len(records) + len(resolved) + answers.prune(connection, now, limit)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The rows that a request touches, and who pays: the hold's owner, as deleting a project renames its account."""

    holds: RequestHolds
    owner: str
    has_expired: bool


def _load(connection: Connection, record: UsageRecord, owner: str, day_key: int, limit: int, now: float) -> _Loaded:
    """Read everything in one statement: each one is a round trip in some databases."""
    request_id = record.request_id
    row = connection.execute(_LOAD, (owner, owner, now, request_id, owner, record.project_id, day_key, request_id))
    payer, posted, held, used, set_aside, *columns, finished, expired = row.fetchone()
    joint = RequestHold(Hold(*columns[:5]), *columns[5:]) if columns[0] is not None else None
    if joint is None and finished is not None:  # it has ended without ever being held; its record refuses a late hold
        joint = RequestHold(Hold(ledger.ZERO, "voided"))
    account = Account() if posted is None else Account(Microcredits(posted), Microcredits(held))
    holds = RequestHolds(account, DayBudget(limit, used or 0, set_aside or 0), joint)
    return _Loaded(holds, str(payer), bool(expired))


def _save(connection: Connection, record: UsageRecord, owner: str, day_key: int, after: RequestHolds) -> None:
    books.save_account(connection, owner, after.account)
    connection.execute(_UPSERT_DAY, (record.project_id, day_key, after.budget.used, after.budget.held))


def _save_hold(
    connection: Connection, request_id: RequestId, owner: str, day_key: int, joint: RequestHold, expires_at: float
) -> None:
    credits = joint.credits
    connection.execute(
        _UPSERT_HOLD,
        (
            request_id, owner, day_key, credits.state, credits.amount, credits.captured, credits.overrun,
            credits.written_off, joint.tokens, joint.output_tokens, expires_at,
        ),
    )  # fmt: skip
