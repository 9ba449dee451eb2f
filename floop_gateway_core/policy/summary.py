"""Sums of usage records by one or two dimensions, with histograms of their latencies.

A histogram's buckets are a tenth apart, so a percentile is right within 10 %, and two histograms add up exactly.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from floop_gateway_core.types import Microcredits, UsageRecord
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = [
    "DAY_S",
    "GROUP",
    "HOUR_S",
    "Counted",
    "Histogram",
    "SummaryRow",
    "group_of",
    "grouped",
    "packed",
    "sums_of",
    "unpacked",
]

HOUR_S = 3600
DAY_S = 86_400
BUCKETS_MS = [0] + [round(1.1**power) for power in range(1, 200) if round(1.1**power) != round(1.1 ** (power - 1))]
"""The edges of the buckets, in milliseconds."""
LANE_BYTES = 5
"""The size of a bucket's count: a sum may have a million million durations in one bucket."""
LANE_BITS = 8 * LANE_BYTES


@dataclass(slots=True)
class Histogram:
    """Counts of milliseconds by bucket. They lie side by side in one integer, so that adding two is one addition."""

    lanes: int = 0

    def add(self, ms: int | None, times: int = 1) -> None:
        """Count a duration; do nothing for None."""
        if ms is not None:
            self.lanes += times << LANE_BITS * bisect_left(BUCKETS_MS, ms, 0, len(BUCKETS_MS) - 1)

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        self.lanes += other.lanes

    def counts(self) -> list[int]:
        """Return the counts by bucket, up to the last one that is not 0."""
        lanes = self.lanes.to_bytes(LANE_BYTES * len(BUCKETS_MS), "little").rstrip(b"\0")
        return [int.from_bytes(lanes[at : at + LANE_BYTES], "little") for at in range(0, len(lanes), LANE_BYTES)]

    def percentile(self, share: float) -> int | None:
        """Return the milliseconds that `share` of the durations do not exceed, within 10 %; None without any.

        >>> histogram = Histogram()
        >>> histogram.add(100, times=95)
        >>> histogram.add(1000, times=5)
        >>> histogram.percentile(0.5) <= 110, histogram.percentile(0.99) >= 1000
        (True, True)
        """
        counts = self.counts()
        left = share * sum(counts)
        for edge_ms, count in zip(BUCKETS_MS, counts, strict=False):
            left -= count
            if count and left <= 0:
                return edge_ms
        return None


def packed(lanes: int) -> bytes:
    """Return a histogram's lanes as a store keeps them: how many low ones are 0, and the others, highest byte first."""
    lanes = max(0, lanes)
    empty = ((lanes & -lanes).bit_length() - 1) // LANE_BITS if lanes else 0
    lanes >>= LANE_BITS * empty
    return bytes([empty]) + lanes.to_bytes((lanes.bit_length() + 7) // 8, "big")


def unpacked(column: bytes) -> int:
    """Return the lanes of a histogram from a store.

    >>> unpacked(packed(7 << 400)) == 7 << 400, packed(0)
    (True, b'\\x00')
    """
    return int.from_bytes(column[1:], "big") << LANE_BITS * column[0]


class Counted(NamedTuple):
    """What sums need of a record."""

    project_id: str
    project: str
    started_at: float
    alias: str | None
    deployment: str | None
    status: int | None
    code: str | None
    repeats: int
    input_tokens: int
    output_tokens: int
    microcredits: int
    total_ms: int | None
    first_text_ms: int | None


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

    def add(self, record: UsageRecord | Counted, sign: int = 1) -> None:
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
        self.latency.merge(other.latency)
        self.first_text.merge(other.first_text)


GROUP = ("project_id", "project", "start", "alias", "deployment", "status")
"""What a store's sums go by; `start` is the first second of a UTC hour or day."""


def group_of(record: UsageRecord | Counted, span: int) -> tuple[object, ...]:
    """Return the group of a record, in the order of `GROUP`, with spans of `span` seconds."""
    start = int(record.started_at // span) * span
    return record.project_id, record.project, start, record.alias, record.deployment, record.status


def sums_of(records: Iterable[UsageRecord | Counted], span: int, by: Sequence[str]) -> list[SummaryRow]:
    """Return the sums of records by some of `GROUP`."""
    places = [GROUP.index(name) for name in by]
    rows: dict[tuple[object, ...], SummaryRow] = {}
    for record in records:
        group = group_of(record, span)
        keys = tuple([group[place] for place in places])
        rows.setdefault(keys, SummaryRow(keys)).add(record)
    return list(rows.values())


def grouped(rows: "list[SummaryRow]", key: Callable[[tuple[object, ...]], tuple[object, ...]]) -> "list[SummaryRow]":
    """Return the rows added up under other keys, in the keys' order."""
    found: dict[tuple[object, ...], SummaryRow] = {}
    for row in rows:
        wanted = key(row.keys)
        found.setdefault(wanted, SummaryRow(wanted)).merge(row)
    return sorted(found.values(), key=lambda row: tuple("" if one is None else str(one) for one in row.keys))
