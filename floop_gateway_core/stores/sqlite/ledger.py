"""Rows of accounts, days, holds and usage. Each function runs inside a transaction that its caller opened.

`policy.holds` decides; here its values are loaded and saved. Every movement of money leaves an entry.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from typing import Any

import msgspec

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy import holds, ledger
from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.budget import DayBudget
from floop_gateway_core.policy.holds import RequestHold, RequestHolds
from floop_gateway_core.policy.ledger import Account, Hold
from floop_gateway_core.stores.base import DayUsage, HoldRequest, Settled, Settlement
from floop_gateway_core.types import RECORD_FIELDS, AttemptRecord, Microcredits, ProjectId, RequestId, UsageRecord

Connection = sqlite3.Connection

_COLUMNS = (*RECORD_FIELDS, "project_id", "attempt_list")
_INSERT_RECORD = f"INSERT OR REPLACE INTO usage ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT_RECORD = f"SELECT {', '.join(_COLUMNS)} FROM usage "
MAX_EXPIRED_AT_ONCE = 1000
"""Holds voided in one transaction, so that a request never waits for an unbounded sweep."""
PAGE_RECORDS = 1000
"""Records read at a time, so that listing a long log holds little memory and blocks no writer."""


def hold(connection: Connection, request: HoldRequest) -> Held | HoldRefused:
    """Chores run inside requests: expired holds are voided first, so that their amounts are available again."""
    if has_expired(request.now, connection):
        expire(connection, request.now)
    record = request.record
    before = _load(connection, record, request.owner, request.day, request.budget_tokens)
    after, granted = holds.place(before, request.estimate)
    if isinstance(granted, Held) and before.hold is None and after.hold is not None:
        _save(connection, record, request.owner, request.day, after)
        _save_hold(connection, record.request_id, request.owner, request.day, after.hold, request.expires_at)
        save_record(connection, record)
    return granted


def settle(connection: Connection, settlement: Settlement) -> Settled:
    """See `LedgerStore.settle`."""
    return _resolve(connection, settlement, lambda before: holds.settle(before, settlement.charge, settlement.tokens))


def _resolve(
    connection: Connection, settlement: Settlement, resolve: Callable[[RequestHolds], RequestHolds]
) -> Settled:
    record, owner, day = settlement.record, settlement.owner, settlement.day
    before = _load(connection, record, owner, day, limit=0)
    after = resolve(before)
    if after.hold is None:
        raise AssertionError("settling always leaves a hold or its mark")
    if before.hold is None or after.hold.credits != before.hold.credits:
        credits = after.hold.credits
        if record.microcredits != credits.charged:
            record = replace(record, microcredits=credits.charged)
        save_record(connection, record)
        if before.hold is not None:
            _save_hold(connection, record.request_id, owner, day, after.hold, expires_at=0.0)
            _save(connection, record, owner, day, after)
            insert_capture_entries(connection, owner, credits, record.request_id, settlement.now)
    return Settled(after.hold.credits, after.account)


def has_expired(now: float, connection: Connection) -> object:
    """Return None if no hold has expired."""
    return connection.execute("SELECT 1 FROM holds WHERE state = 'open' AND expires_at <= ? LIMIT 1", (now,)).fetchone()


def expire(connection: Connection, now: float) -> int:
    """See `LedgerStore.expire`."""
    over = connection.execute(
        "SELECT request_id, owner, day FROM holds WHERE state = 'open' AND expires_at <= ? LIMIT ?",
        (now, MAX_EXPIRED_AT_ONCE),
    ).fetchall()
    for request_id, owner, day in over:
        row = connection.execute(_SELECT_RECORD + "WHERE request_id = ?", (request_id,)).fetchone()
        lost = replace(_record(row), ending="lost", settled_at=now)
        _resolve(connection, Settlement(lost, owner, day, now), holds.expire)
    return len(over)


def grant_credits(connection: Connection, owner: str, amount: Microcredits, now: float) -> Account:
    """See `LedgerStore.grant_credits`."""
    after, _, _ = ledger.apply(account(connection, owner) or Account(), None, ledger.Grant(amount))
    save_account(connection, owner, after)
    if amount:
        _enter(connection, owner, "grant", amount, None, now)
    return after


def account(connection: Connection, owner: str) -> Account | None:
    """See `LedgerStore.account`."""
    row = connection.execute("SELECT posted, held FROM accounts WHERE owner = ?", (owner,)).fetchone()
    return None if row is None else Account(Microcredits(row[0]), Microcredits(row[1]))


def day(connection: Connection, project: ProjectId, day: int) -> DayUsage:
    """See `LedgerStore.day`."""
    row = connection.execute("SELECT used, held FROM days WHERE project_id = ? AND day = ?", (project, day)).fetchone()
    return DayUsage(0, 0) if row is None else DayUsage(*row)


def prune(connection: Connection, before: float, day: int, limit: int) -> int:
    """See `LedgerStore.prune`."""
    records = connection.execute(
        "DELETE FROM usage WHERE request_id IN (SELECT request_id FROM usage"
        " WHERE started_at < ?1 AND settled_at < ?1 AND ending IS NOT NULL ORDER BY started_at LIMIT ?2)",
        (before, limit),
    ).rowcount
    resolved = connection.execute(
        "DELETE FROM holds WHERE request_id IN (SELECT request_id FROM holds"
        " WHERE state <> 'open' AND day < ? LIMIT ?)",
        (day, limit),
    ).rowcount
    return records + resolved


def usage(project: str | None, after: tuple[float, str], connection: Connection) -> list[UsageRecord]:
    """Return the next page of finished records after a position in the log."""
    where = "WHERE (started_at, request_id) > (?, ?) AND ending IS NOT NULL"
    values: Sequence[object] = after
    if project is not None:
        column = "project_id" if project.startswith("prj_") else "project"
        where, values = f"{where} AND {column} = ?", (*after, project)
    rows = connection.execute(f"{_SELECT_RECORD}{where} ORDER BY started_at, request_id LIMIT {PAGE_RECORDS}", values)
    return [_record(row) for row in rows.fetchall()]


def _load(connection: Connection, record: UsageRecord, owner: str, day_key: int, limit: int) -> RequestHolds:
    used, held = day(connection, record.project_id, day_key)
    row = connection.execute(
        "SELECT amount, state, captured, overrun, written_off, tokens, output_tokens FROM holds WHERE request_id = ?",
        (record.request_id,),
    ).fetchone()
    joint = RequestHold(Hold(*row[:5]), *row[5:]) if row else None
    if joint is None and _finished(connection, record.request_id):
        joint = RequestHold(Hold(ledger.ZERO, "voided"))
    return RequestHolds(account(connection, owner) or Account(), DayBudget(limit, used, held), joint)


def _finished(connection: Connection, request_id: RequestId) -> bool:
    """Whether the request has ended without ever being held: its record is the mark that refuses a late hold."""
    query = "SELECT 1 FROM usage WHERE request_id = ? AND ending IS NOT NULL"
    return connection.execute(query, (request_id,)).fetchone() is not None


def _save(connection: Connection, record: UsageRecord, owner: str, day_key: int, after: RequestHolds) -> None:
    save_account(connection, owner, after.account)
    connection.execute(
        "INSERT INTO days VALUES (?1, ?2, ?3, ?4) ON CONFLICT (project_id, day) DO UPDATE SET used = ?3, held = ?4",
        (record.project_id, day_key, after.budget.used, after.budget.held),
    )


def save_account(connection: Connection, owner: str, after: Account) -> None:
    """Insert or update an account."""
    connection.execute(
        "INSERT INTO accounts VALUES (?1, ?2, ?3) ON CONFLICT (owner) DO UPDATE SET posted = ?2, held = ?3",
        (owner, after.posted, after.held),
    )


def _save_hold(
    connection: Connection, request_id: RequestId, owner: str, day_key: int, joint: RequestHold, expires_at: float
) -> None:
    credits = joint.credits
    connection.execute(
        "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request_id, owner, day_key, credits.state, credits.amount, credits.captured, credits.overrun,
            credits.written_off, joint.tokens, joint.output_tokens, expires_at,
        ),
    )  # fmt: skip


def insert_capture_entries(connection: Connection, owner: str, hold: Hold, id: str, now: float) -> None:
    """Insert the entries of a resolved hold."""
    for kind, amount in (
        ("capture", -hold.captured),
        ("overrun", -hold.overrun),
        ("written_off", hold.written_off),
    ):
        if amount:
            _enter(connection, owner, kind, amount, id, now)


def _enter(connection: Connection, owner: str, kind: str, amount: int, request_id: str | None, now: float) -> None:
    connection.execute(
        "INSERT INTO entries (owner, kind, amount, request_id, at) VALUES (?, ?, ?, ?, ?)",
        (owner, kind, amount, request_id, now),
    )


def save_record(connection: Connection, record: UsageRecord) -> None:
    """Insert or replace a record."""
    values = {name: getattr(record, name) for name in _COLUMNS}
    values["auto_reasons"] = None if record.auto_reasons is None else _json(record.auto_reasons)
    values["tags"] = _json(record.tags) if record.tags else None
    values["attempt_list"] = _json([astuple(one) for one in record.attempt_list]) if record.attempt_list else None
    connection.execute(_INSERT_RECORD, tuple(values.values()))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _record(row: Sequence[object]) -> UsageRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    reasons, code = values["auto_reasons"], values["code"]
    values["auto_reasons"] = tuple(_rows(reasons)) if isinstance(reasons, str) else None
    values["tags"] = tuple(_rows(values["tags"]))
    values["attempt_list"] = tuple(AttemptRecord(*one) for one in _rows(values["attempt_list"]))
    values["code"] = ErrorCode(code) if isinstance(code, str) else None
    values["estimated"], values["streamed"] = bool(values["estimated"]), bool(values["streamed"])
    return UsageRecord(**values)  # type: ignore[arg-type]


def _rows(column: object) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in json.loads(column)] if isinstance(column, str) else []
