"""Rows of the usage log."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

import msgspec

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy.summary import Counted
from floop_gateway_core.stores.sql.connection import Connection, among, upsert
from floop_gateway_core.types import RECORD_FIELDS, AttemptRecord, RequestId, UsageFilter, UsageRecord

_COLUMNS = (*RECORD_FIELDS, "project_id", "attempt_list")
_UPSERT_RECORD = upsert("usage", ", ".join((*_COLUMNS, "rolled")), "request_id")
_SELECT_RECORD = f"SELECT {', '.join(_COLUMNS)} FROM usage "
NO_KEY = ""
"""The prefix of a request without a key, in a column that takes no NULL."""
PAGE_RECORDS = 1000
"""Records read at a time, so that listing a long log holds little memory and blocks no writer."""


def save_record(connection: Connection, record: UsageRecord) -> None:
    """Insert or replace a record."""
    connection.execute(_UPSERT_RECORD, (*columns_of(record).values(), 0))


def columns_of(record: UsageRecord) -> dict[str, object]:
    """Return a record's columns and their values."""
    values: dict[str, Any] = {name: getattr(record, name) for name in _COLUMNS}
    values["auto_reasons"] = None if record.auto_reasons is None else _json(record.auto_reasons)
    values["tags"] = _json(record.tags) if record.tags else None
    values["attempt_list"] = _json([astuple(one) for one in record.attempt_list]) if record.attempt_list else None
    values["key_prefix"] = record.key_prefix or NO_KEY
    for name in ("estimated", "streamed", "microcredits"):
        values[name] = int(values[name])
    return values


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


def select_records(connection: Connection, where: str, values: Sequence[object]) -> list[UsageRecord]:
    """Return the records of a condition."""
    return [_record(row) for row in connection.execute(_SELECT_RECORD + where, values).fetchall()]


def update_records(
    connection: Connection, change: str, where: str, values: Sequence[object]
) -> list[tuple[UsageRecord, bool]]:
    """Change the records of a condition; return each as it is now, and whether it is in the sums."""
    query = f"UPDATE usage SET {change} WHERE {where} RETURNING {', '.join(_COLUMNS)}, rolled"
    return [(_record(row[:-1]), bool(row[-1])) for row in connection.execute(query, values).fetchall()]


def each_wanted(
    connection: Connection, wanted: UsageFilter, condition: str = "1 = 1", values: Sequence[object] = ()
) -> Iterator[Counted]:
    """Iterate over what sums need of the finished records of a filter and a condition, in no order."""
    conditions, found = _conditions(wanted)
    query = f"SELECT {', '.join(Counted._fields)} FROM usage WHERE {' AND '.join([condition, *conditions])}"
    return map(Counted._make, connection.execute(query, (*values, *found)))


def _conditions(wanted: UsageFilter) -> tuple[list[str], list[object]]:
    """Return a filter as conditions and their values."""
    conditions, values = ["ending IS NOT NULL"], list[object]()
    if wanted.projects is not None:
        conditions.append(among("project_id", len(wanted.projects)))
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
        # A text inside JSON has no bare quotation mark, so this finds pairs, or the start of a pair, and nothing else.
        conditions.append("replace(tags, ?, '') <> tags")
        values.append(_json((name, tag)) if tag is not None else _json((name,)).removesuffix("]") + ",")
    return conditions, values


def usage_page(
    wanted: UsageFilter, after: tuple[float, str] | None, newest_first: bool, limit: int, connection: Connection
) -> list[UsageRecord]:
    """See `BookStore.usage_page`."""
    conditions, values = _conditions(wanted)
    if after is not None:
        conditions.append(f"(settled_at, request_id) {'<' if newest_first else '>'} (?, ?)")
        values += after
    order = "DESC" if newest_first else "ASC"
    where = f"WHERE {' AND '.join(conditions)} ORDER BY settled_at {order}, request_id {order} LIMIT ?"
    return select_records(connection, where, (*values, limit))
