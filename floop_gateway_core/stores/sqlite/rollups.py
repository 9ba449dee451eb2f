"""Rows of sums by hour, project, alias, deployment and status, so that a summary does not read every record.

Records are added some minutes after they were settled, in small steps (`roll_up`), and marked. A summary adds up the
whole hours of its period from here, and reads as records what is not marked yet and what lies in a part of an hour.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain

from floop_gateway_core.policy.summary import HOUR_S, Histogram, SummaryRow, group_of, hour_of
from floop_gateway_core.stores.sqlite import usage
from floop_gateway_core.types import Microcredits, UsageFilter, UsageRecord

Connection = sqlite3.Connection

SETTLE_S = 120.0
"""A record that was settled longer ago does not change: the shared record of a minute's refusals has ended."""
FAR_HOUR = 2**32
_KEY = "project_id, hour, alias, deployment, status"
_SUMS = "project, requests, errors, input_tokens, output_tokens, microcredits, latency, first_text"
Key = tuple[str, int, str, str, int]


def roll_up(now: float, limit: int, connection: Connection) -> int:
    """Add up to `limit` records to the sums, and return how many there were."""
    records = usage.select_records(
        connection, "WHERE rolled = 0 AND ending IS NOT NULL AND settled_at < ? ORDER BY settled_at LIMIT ?",
        (now - SETTLE_S, limit),
    )  # fmt: skip
    _add(connection, records, 1)
    connection.executemany("UPDATE usage SET rolled = 1 WHERE request_id = ?", [(one.request_id,) for one in records])
    return len(records)


def take_out(connection: Connection, request_id: str) -> None:
    """Take a record that will be replaced out of the sums again."""
    _add(connection, usage.select_records(connection, "WHERE request_id = ? AND rolled = 1", (request_id,)), -1)


def _add(connection: Connection, records: Sequence[UsageRecord], sign: int) -> None:
    sums: dict[Key, SummaryRow] = {}
    names: dict[Key, str] = {}
    for record in records:
        key: Key = (
            record.project_id, hour_of(record.started_at), record.alias or "", record.deployment or "",
            record.status or 0,
        )  # fmt: skip
        names[key] = record.project
        sums.setdefault(key, SummaryRow(key)).add(record, sign)
    for key, row in sums.items():
        where = "WHERE project_id = ? AND hour = ? AND alias = ? AND deployment = ? AND status = ?"
        before = connection.execute(f"SELECT {_SUMS} FROM rollups {where}", key).fetchone()
        if before is not None:
            row.merge(_row(key, before))
        connection.execute(
            f"INSERT OR REPLACE INTO rollups ({_KEY}, {_SUMS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key, names[key], row.requests, row.errors, row.input_tokens, row.output_tokens, row.credits,
                json.dumps(row.latency.counts), json.dumps(row.first_text.counts),
            ),
        )  # fmt: skip


def _row(keys: tuple[object, ...], sums: Sequence[object]) -> SummaryRow:
    _, requests, errors, input_tokens, output_tokens, microcredits, latency, first_text = sums
    return SummaryRow(
        keys, int(str(requests)), int(str(errors)), int(str(input_tokens)), int(str(output_tokens)),
        Microcredits(int(str(microcredits))), _histogram(latency), _histogram(first_text),
    )  # fmt: skip


def _histogram(column: object) -> Histogram:
    return Histogram({int(bucket): count for bucket, count in json.loads(str(column)).items()})


def summary(wanted: UsageFilter, connection: Connection) -> list[SummaryRow]:
    """Return sums by (project_id, project, hour, alias, deployment, status); the rows of one group may be several."""
    if wanted.code is not None or wanted.tag is not None or wanted.dialect is not None:
        return _sums_of(usage.each_wanted(connection, wanted))
    first = 0 if wanted.since is None else -int(-wanted.since // HOUR_S)
    last = FAR_HOUR if wanted.until is None else max(first, hour_of(wanted.until))
    parts = [usage.each_wanted(connection, wanted, "rolled = 0")]
    if wanted.since is not None:
        parts.append(usage.each_wanted(connection, wanted, "rolled = 1 AND started_at < ?", (first * HOUR_S,)))
    if wanted.until is not None:
        parts.append(usage.each_wanted(connection, wanted, "rolled = 1 AND started_at >= ?", (last * HOUR_S,)))
    return _rolled(connection, wanted, first, last) + _sums_of(chain.from_iterable(parts))


def _rolled(connection: Connection, wanted: UsageFilter, first: int, last: int) -> list[SummaryRow]:
    conditions, values = ["hour >= ?", "hour < ?"], list[object]([first, last])
    if wanted.projects is not None:
        conditions.append(f"project_id IN ({', '.join('?' * len(wanted.projects))})")
        values += sorted(wanted.projects)
    for name in ("alias", "deployment", "status"):
        if (value := getattr(wanted, name)) is not None:
            conditions.append(f"{name} = ?")
            values.append(value)
    query = f"SELECT {_KEY}, {_SUMS} FROM rollups WHERE {' AND '.join(conditions)}"
    return [
        _row((project_id, sums[0], hour * HOUR_S, alias or None, deployment or None, status or None), sums)
        for project_id, hour, alias, deployment, status, *sums in connection.execute(query, values)
    ]


def _sums_of(records: Iterable[UsageRecord]) -> list[SummaryRow]:
    rows: dict[tuple[object, ...], SummaryRow] = {}
    for record in records:
        group = group_of(record)
        rows.setdefault(group, SummaryRow(group)).add(record)
    return list(rows.values())
