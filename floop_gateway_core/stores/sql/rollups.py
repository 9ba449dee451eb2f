"""Rows of sums by day and by hour, so that a summary does not read every record.

Records are added a few minutes after they were settled, in small steps (`roll_up`), and marked. A summary takes the
full days and hours of its period from here, and reads individual records only for partial hours and those not yet
marked.
"""

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter

from floop_gateway_core.policy.summary import DAY_S, GROUP, HOUR_S, Histogram, SummaryRow, packed, sums_of, unpacked
from floop_gateway_core.stores.sql import usage
from floop_gateway_core.stores.sql.connection import Connection, among, upsert
from floop_gateway_core.types import Microcredits, UsageFilter, UsageRecord

SETTLE_S = 120.0
"""Records settled longer ago than this hardly change: the shared record of a minute's refusals has ended by then."""
FAR = 2**40
# The index is named because the planner prefers the one by time, which holds every record.
_FRESH = (
    "request_id IN (SELECT request_id FROM usage INDEXED BY unrolled_usage WHERE rolled = 0 AND ending IS NOT NULL)"
)
_KEY = "span, project_id, start, alias, deployment, status"
_SUMS = "project, requests, errors, input_tokens, output_tokens, microcredits, latency_counts, first_text_counts"
_LOCK = (
    "UPDATE rollups SET requests = requests"
    " WHERE span = ? AND project_id = ? AND start = ? AND alias = ? AND deployment = ? AND status = ?"
    f" RETURNING {_SUMS}"
)
_VALUE_OF = {name: name for name in GROUP} | {
    "alias": "nullif(alias, '')", "deployment": "nullif(deployment, '')", "status": "nullif(status, 0)",
}  # fmt: skip
_TOTALS = ", ".join(
    [f"CAST(sum({name}) AS BIGINT)" for name in ("requests", "errors", "input_tokens", "output_tokens", "microcredits")]
    + [f"sum_of_lanes({name})" for name in ("latency_counts", "first_text_counts")]
)
_UPSERT = upsert("rollups", f"{_KEY}, {_SUMS}", _KEY)
Key = tuple[int, str, int, str, str, int]


def roll_up(now: float, limit: int, connection: Connection) -> int:
    """Add up to `limit` records to the sums, and return how many there were."""
    records = usage.update_records(
        connection, "rolled = 1",
        "rolled = 0 AND request_id IN (SELECT request_id FROM usage"
        " WHERE rolled = 0 AND ending IS NOT NULL AND settled_at < ? ORDER BY settled_at LIMIT ?)",
        (now - SETTLE_S, limit),
    )  # fmt: skip
    _add(connection, [record for record, _ in records], 1)
    return len(records)


def prune(connection: Connection, before: float, limit: int) -> int:
    """Delete the sums of up to `limit` hours and days that ended before a time; return how many rows those were."""
    deleted = 0
    for span in (HOUR_S, DAY_S):
        starts = connection.execute(
            "SELECT DISTINCT start FROM rollups WHERE span = ? AND start < ? ORDER BY start LIMIT ?",
            (span, before - span, limit),
        ).fetchall()
        for (start,) in starts:
            rows = connection.execute("DELETE FROM rollups WHERE span = ? AND start = ? RETURNING 1", (span, start))
            deleted += len(rows.fetchall())
    return deleted


def take_out(connection: Connection, request_id: str) -> None:
    """Take a record that will be replaced out of the sums again."""
    records = usage.update_records(
        connection, "rolled = rolled", "request_id = ?", (request_id,)
    )  # waits for `roll_up`
    _add(connection, [record for record, rolled in records if rolled], -1)


def _add(connection: Connection, records: Sequence[UsageRecord], sign: int) -> None:
    sums: dict[Key, SummaryRow] = {}
    names: dict[Key, str] = {}
    for record in records:
        alias, deployment, status = record.alias or "", record.deployment or "", record.status or 0
        for span in (HOUR_S, DAY_S):
            start = int(record.started_at // span) * span
            key: Key = span, record.project_id, start, alias, deployment, status
            names[key] = record.project
            sums.setdefault(key, SummaryRow(key)).add(record, sign)
    for key, row in sorted(sums.items(), key=itemgetter(0)):  # every process locks these rows in the same order
        before = connection.execute(_LOCK, key).fetchone()
        if before is not None:
            *sums_before, latency, first_text = before[1:]
            row.merge(_row(key, sums_before, unpacked(latency), unpacked(first_text)))
        elif sign < 0:
            continue  # the sums of that time have been deleted
        connection.execute(
            _UPSERT,
            (
                *key, names[key], row.requests, row.errors, row.input_tokens, row.output_tokens, row.credits,
                packed(row.latency.lanes), packed(row.first_text.lanes),
            ),
        )  # fmt: skip


def _row(keys: tuple[object, ...], sums: Sequence[int], latency: int, first_text: int) -> SummaryRow:
    requests, errors, input_tokens, output_tokens, microcredits = sums
    return SummaryRow(
        keys, requests, errors, input_tokens, output_tokens, Microcredits(microcredits),
        Histogram(latency), Histogram(first_text),
    )  # fmt: skip


def summary(wanted: UsageFilter, span: int, by: Sequence[str], connection: Connection) -> list[SummaryRow]:
    """See `BookStore.summary`."""
    if wanted.code is not None or wanted.tag is not None or wanted.dialect is not None:
        return sums_of(usage.each_wanted(connection, wanted), span, by)
    since, until = wanted.since or 0.0, FAR if wanted.until is None else wanted.until
    first_hour, last_hour = _whole(since, until, HOUR_S)
    first_day, last_day = _whole(since, until, DAY_S)
    if span == HOUR_S:
        rows = _rolled(connection, wanted, by, HOUR_S, first_hour, last_hour)
    else:
        rows = (
            _rolled(connection, wanted, by, DAY_S, first_day, last_day)
            + _rolled(connection, wanted, by, HOUR_S, first_hour, min(first_day, last_hour))
            + _rolled(connection, wanted, by, HOUR_S, last_day, last_hour)
        )
    parts = [usage.each_wanted(connection, wanted, _FRESH)]
    if wanted.since is not None:
        parts.append(usage.each_wanted(connection, wanted, "rolled = 1 AND started_at < ?", (first_hour,)))
    if wanted.until is not None:
        parts.append(usage.each_wanted(connection, wanted, "rolled = 1 AND started_at >= ?", (last_hour,)))
    return rows + sums_of(chain.from_iterable(parts), span, by)


def _whole(since: float, until: float, span: int) -> tuple[int, int]:
    """Return the start of the first span that lies entirely within a period, and the end of the last one."""
    first = -int(-since // span) * span
    return first, max(first, int(until // span) * span)


def _rolled(
    connection: Connection, wanted: UsageFilter, by: Sequence[str], span: int, since: int, until: int
) -> list[SummaryRow]:
    if since >= until:
        return []
    conditions, values = ["span = ?", "start >= ?", "start < ?"], list[object]([span, since, until])
    if wanted.projects is not None:
        conditions.append(among("project_id", len(wanted.projects)))
        values += sorted(wanted.projects)
    for name in ("alias", "deployment", "status"):
        if (value := getattr(wanted, name)) is not None:
            conditions.append(f"{name} = ?")
            values.append(value)
    keys = ", ".join([_VALUE_OF[name] for name in by])
    places = ", ".join(str(place) for place in range(1, len(by) + 1))
    query = f"SELECT {keys}, {_TOTALS} FROM rollups WHERE {' AND '.join(conditions)} GROUP BY {places}"
    return [
        _row(row[: len(by)], row[len(by) : -2], _added(row[-2]), _added(row[-1]))
        for row in connection.execute(query, values)
    ]


def _added(histograms: str) -> int:
    """Return the sum of lanes in hexadecimal: those of all rows that a database has found, or one that it has added up."""
    return sum([unpacked(bytes.fromhex(lanes)) for lanes in histograms.split(",")])
