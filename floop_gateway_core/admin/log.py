"""The usage log as an operator reads it: pages, and sums by time, alias, deployment and so on."""

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

from floop_gateway_core.admin.money import MoneyAdmin
from floop_gateway_core.errors import AdminError
from floop_gateway_core.types import Microcredits, UsageFilter, UsageRecord
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = ["DIMENSIONS", "Cursor", "LogAdmin", "SummaryRow"]

Dimension = Literal["hour", "day", "alias", "deployment", "status", "project", "owner"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
Cursor = tuple[float, str]
"""The place of a record in the log: when it was settled, and its id."""
RECORDS_A_PAGE = 1000
BUCKETS_MS = [0] + [round(1.1**power) for power in range(1, 200) if round(1.1**power) != round(1.1 ** (power - 1))]
"""The edges of the histograms of milliseconds, a tenth apart: a percentile is right within 10 %."""


@dataclass(slots=True)
class Histogram:
    """Counts of milliseconds by bucket."""

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0

    def add(self, ms: int | None, times: int = 1) -> None:
        """Count a duration; None is no duration."""
        if ms is not None:
            bucket = min(bisect_left(BUCKETS_MS, ms), len(BUCKETS_MS) - 1)
            self.counts[bucket] = self.counts.get(bucket, 0) + times
            self.total += times

    def percentile(self, share: float) -> int | None:
        """Return the milliseconds that `share` of the durations do not exceed, within 10 %; None without any."""
        left = share * self.total
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return BUCKETS_MS[bucket]
        return None


@dataclass(slots=True)
class SummaryRow:
    """The sums of one group; `keys` are its values of the dimensions asked for."""

    keys: tuple[object, ...]
    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    credits: Microcredits = ZERO_CREDITS
    latency: Histogram = field(default_factory=Histogram)
    first_text: Histogram = field(default_factory=Histogram)

    def add(self, record: UsageRecord) -> None:
        """Count a record, as often as it stands for a request."""
        self.requests += record.repeats
        self.errors += record.repeats if record.code is not None else 0
        self.input_tokens += record.input_tokens
        self.output_tokens += record.output_tokens
        self.credits = Microcredits(self.credits + record.microcredits)
        self.latency.add(record.total_ms, record.repeats)
        self.first_text.add(record.first_text_ms)


class LogAdmin(MoneyAdmin):
    """What an operator reads in the usage log."""

    async def usage_page(
        self, wanted: UsageFilter, *, after: Cursor | None = None, newest_first: bool = True, limit: int = 100
    ) -> list[UsageRecord]:
        """Return the next records behind a place in the log, by settlement."""
        await self.expire()
        return await self._ledger.usage_page(wanted, after=after, newest_first=newest_first, limit=limit)

    async def every_record(self, wanted: UsageFilter, *, newest_first: bool = True) -> AsyncIterator[UsageRecord]:
        """Yield all wanted records, by settlement."""
        after: Cursor | None = None
        while True:
            page = await self.usage_page(wanted, after=after, newest_first=newest_first, limit=RECORDS_A_PAGE)
            for record in page:
                yield record
            if len(page) < RECORDS_A_PAGE:
                return
            after = place_of(page[-1])

    async def summary(self, wanted: UsageFilter, by: Sequence[str]) -> list[SummaryRow]:
        """Return sums of the wanted records by one or two of `DIMENSIONS`, ordered by their keys.

        Raises `AdminError` for another dimension.
        """
        if not 1 <= len(by) <= 2 or len(set(by)) != len(by) or not set(by) <= set(DIMENSIONS):
            raise AdminError(f"by must be one or two of {', '.join(DIMENSIONS)}")
        owners: Mapping[str, str] = {}
        if "owner" in by:
            owners = {project.id: project.owner for project in await self._store.projects()}
        keys = [_key_of(dimension, owners) for dimension in by]
        rows: dict[tuple[object, ...], SummaryRow] = {}
        async for record in self.every_record(wanted):
            group = tuple(key(record) for key in keys)
            rows.setdefault(group, SummaryRow(group)).add(record)
        return sorted(rows.values(), key=lambda row: tuple(str(key or "") for key in row.keys))


def place_of(record: UsageRecord) -> Cursor:
    """Return a record's place in the log."""
    return record.settled_at or 0.0, record.request_id


def _key_of(dimension: str, owners: Mapping[str, str]) -> Callable[[UsageRecord], object]:
    match dimension:
        case "hour":
            return lambda record: _start(record.started_at, "%Y-%m-%dT%H:00:00Z")
        case "day":
            return lambda record: _start(record.started_at, "%Y-%m-%d")
        case "owner":
            return lambda record: owners.get(record.project_id)
        case _:
            return lambda record: getattr(record, dimension)


def _start(at: float, form: str) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(form)
