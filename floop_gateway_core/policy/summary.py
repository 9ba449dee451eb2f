"""Sums of usage records by one or two dimensions, with histograms of their latencies.

A histogram's buckets are a tenth apart, so a percentile is right within 10 %, and two histograms add up exactly.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from floop_gateway_core.types import Microcredits, UsageRecord
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = ["DAY_S", "GROUP", "HOUR_S", "Histogram", "SummaryRow", "group_of", "grouped"]

HOUR_S = 3600
DAY_S = 86_400
BUCKETS_MS = [0] + [round(1.1**power) for power in range(1, 200) if round(1.1**power) != round(1.1 ** (power - 1))]
"""The edges of the buckets, in milliseconds."""


@dataclass(slots=True)
class Histogram:
    """Counts of milliseconds by bucket."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, ms: int | None, times: int = 1) -> None:
        """Count a duration; do nothing for None."""
        if ms is not None:
            bucket = min(bisect_left(BUCKETS_MS, ms), len(BUCKETS_MS) - 1)
            self.counts[bucket] = self.counts.get(bucket, 0) + times

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another histogram."""
        for bucket, count in counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def percentile(self, share: float) -> int | None:
        """Return the milliseconds that `share` of the durations do not exceed, within 10 %; None without any.

        >>> histogram = Histogram()
        >>> histogram.add(100, times=95)
        >>> histogram.add(1000, times=5)
        >>> histogram.percentile(0.5) <= 110, histogram.percentile(0.99) >= 1000
        (True, True)
        """
        left = share * sum(self.counts.values())
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return BUCKETS_MS[bucket]
        return None


@dataclass(slots=True)
class SummaryRow:
    """The sums of one group; `keys` are its values of the dimensions that were asked for."""

    keys: tuple[object, ...]
    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    credits: Microcredits = ZERO_CREDITS
    latency: Histogram = field(default_factory=Histogram)
    first_text: Histogram = field(default_factory=Histogram)

    def add(self, record: UsageRecord, sign: int = 1) -> None:
        """Count a record, as often as it stands for a request; with a `sign` of -1, take it out again."""
        times = sign * record.repeats
        self.requests += times
        self.errors += times if record.code is not None else 0
        self.input_tokens += sign * record.input_tokens
        self.output_tokens += sign * record.output_tokens
        self.credits = Microcredits(self.credits + sign * record.microcredits)
        self.latency.add(record.total_ms, times)
        self.first_text.add(record.first_text_ms, sign)

    def merge(self, other: "SummaryRow") -> None:
        """Add the sums of another group."""
        self.requests += other.requests
        self.errors += other.errors
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.credits = Microcredits(self.credits + other.credits)
        self.latency.merge(other.latency.counts)
        self.first_text.merge(other.first_text.counts)


GROUP = ("project_id", "project", "start", "alias", "deployment", "status")
"""What a store's sums go by; `start` is the first second of a UTC hour or day."""


def group_of(record: UsageRecord, span: int) -> tuple[object, ...]:
    """Return the group of a record, in the order of `GROUP`, with spans of `span` seconds."""
    start = int(record.started_at // span) * span
    return record.project_id, record.project, start, record.alias, record.deployment, record.status


def grouped(rows: "list[SummaryRow]", key: Callable[[tuple[object, ...]], tuple[object, ...]]) -> "list[SummaryRow]":
    """Return the rows added up under other keys, in the keys' order."""
    found: dict[tuple[object, ...], SummaryRow] = {}
    for row in rows:
        wanted = key(row.keys)
        found.setdefault(wanted, SummaryRow(wanted)).merge(row)
    return sorted(found.values(), key=lambda row: tuple("" if one is None else str(one) for one in row.keys))
