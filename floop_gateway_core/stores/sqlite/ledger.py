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
from floop_gateway_core.stores.sqlite import books
from floop_gateway_core.types import (
    RECORD_FIELDS,
    AttemptRecord,
    Microcredits,
    ProjectId,
    RequestId,
    UsageFilter,
    UsageRecord,
)

Connection = sqlite3.Connection

_COLUMNS = (*RECORD_FIELDS, "project_id", "attempt_list")
_INSERT_RECORD = f"INSERT OR REPLACE INTO usage ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT_RECORD = f"SELECT {', '.join(_COLUMNS)} FROM usage "
MAX_EXPIRED_AT_ONCE = 1000
"""Holds voided in one transaction, so that a request never waits for an unbounded sweep."""
NO_KEY = ""
"""The prefix of a request without a key, in a column that takes no NULL."""
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
    record, day = settlement.record, settlement.day
    # A project that was deleted meanwhile has given its account another name: the hold knows who pays.
    held_of = connection.execute("SELECT owner FROM holds WHERE request_id = ?", (record.request_id,)).fetchone()
    owner = settlement.owner if held_of is None else str(held_of[0])
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
            books.insert_capture_entries(
                connection, owner, credits, record.request_id, settlement.now, after.account, record.project_id
            )
            if owner != settlement.owner:
                books.close_account(connection, owner, settlement.now, record.project_id)
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
    after, _, _ = ledger.apply(books.account(connection, owner) or Account(), None, ledger.Grant(amount))
    books.save_account(connection, owner, after)
    if amount:
        books.enter(connection, owner, "grant", amount, after, now)
    return after


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


def record(request_id: RequestId, connection: Connection) -> UsageRecord | None:
    """See `BookStore.record`."""
    query = _SELECT_RECORD + "WHERE request_id = ? AND ending IS NOT NULL"
    row = connection.execute(query, (request_id,)).fetchone()
    return None if row is None else _record(row)


def usage_page(
    wanted: UsageFilter, after: tuple[float, str] | None, newest_first: bool, limit: int, connection: Connection
) -> list[UsageRecord]:
    """See `BookStore.usage_page`."""
    conditions, values = ["ending IS NOT NULL"], list[object]()
    if after is not None:
        conditions.append(f"(settled_at, request_id) {'<' if newest_first else '>'} (?, ?)")
        values += after
    if wanted.projects is not None:
        conditions.append(f"project_id IN ({', '.join('?' * len(wanted.projects))})")
        values += sorted(wanted.projects)
    for condition, value in (
        ("started_at >= ?", wanted.since), ("started_at < ?", wanted.until), ("status = ?", wanted.status),
        ("code = ?", wanted.code), ("alias = ?", wanted.alias), ("deployment = ?", wanted.deployment),
        ("dialect = ?", wanted.dialect),
    ):  # fmt: skip
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if wanted.tag is not None:
        name, tag = wanted.tag
        conditions.append(
            "EXISTS (SELECT 1 FROM json_each(tags) WHERE json_extract(value, '$[0]') = ?"
            " AND (? IS NULL OR json_extract(value, '$[1]') = ?))"
        )
        values += (name, tag, tag)
    order = "DESC" if newest_first else "ASC"
    rows = connection.execute(
        f"{_SELECT_RECORD}WHERE {' AND '.join(conditions)} ORDER BY settled_at {order}, request_id {order} LIMIT ?",
        (*values, limit),
    )
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
    return RequestHolds(books.account(connection, owner) or Account(), DayBudget(limit, used, held), joint)


def _finished(connection: Connection, request_id: RequestId) -> bool:
    """Whether the request has ended without ever being held: its record is the mark that refuses a late hold."""
    query = "SELECT 1 FROM usage WHERE request_id = ? AND ending IS NOT NULL"
    return connection.execute(query, (request_id,)).fetchone() is not None


def _save(connection: Connection, record: UsageRecord, owner: str, day_key: int, after: RequestHolds) -> None:
    books.save_account(connection, owner, after.account)
    connection.execute(
        "INSERT INTO days VALUES (?1, ?2, ?3, ?4) ON CONFLICT (project_id, day) DO UPDATE SET used = ?3, held = ?4",
        (record.project_id, day_key, after.budget.used, after.budget.held),
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


def save_record(connection: Connection, record: UsageRecord) -> None:
    """Insert or replace a record."""
    values = {name: getattr(record, name) for name in _COLUMNS}
    values["auto_reasons"] = None if record.auto_reasons is None else _json(record.auto_reasons)
    values["tags"] = _json(record.tags) if record.tags else None
    values["attempt_list"] = _json([astuple(one) for one in record.attempt_list]) if record.attempt_list else None
    values["key_prefix"] = record.key_prefix or NO_KEY
    connection.execute(_INSERT_RECORD, tuple(values.values()))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _record(row: Sequence[object]) -> UsageRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    reasons, code = values["auto_reasons"], values["code"]
    values["auto_reasons"] = tuple(_rows(reasons)) if isinstance(reasons, str) else None
    values["tags"] = tuple(_rows(values["tags"]))
    values["attempt_list"] = tuple(AttemptRecord(*one) for one in _rows(values["attempt_list"]))
    values["key_prefix"] = values["key_prefix"] or None
    values["code"] = ErrorCode(code) if isinstance(code, str) else None
    values["estimated"], values["streamed"] = bool(values["estimated"]), bool(values["streamed"])
    return UsageRecord(**values)  # type: ignore[arg-type]


def _rows(column: object) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in json.loads(column)] if isinstance(column, str) else []
