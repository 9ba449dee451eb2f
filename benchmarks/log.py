"""Measure the administration's reads of a long usage log beside the bare queries, and beside a short log.

Run `python -m benchmarks.log [RECORDS]` (1 000 000 by default). Each figure is the median of some runs in one process.
"""

import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import anyio

from floop_gateway_core import Gateway
from floop_gateway_core.stores.sql import rollups, usage
from floop_gateway_core.stores.sqlite import SQLiteStore
from floop_gateway_core.types import Microcredits, ProjectId, RequestId, UsageFilter, UsageRecord

NOW = 1_790_000_000.0
DAYS = 60
PROJECTS = 20
RUNS = 7


def fill(path: Path, records: int) -> None:
    """Write a log over 60 days, of 20 projects, and roll it up."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    for number in range(records):
        at = NOW - DAYS * 86400 * (1 - number / records)
        project = ProjectId(f"prj_{number % PROJECTS}")
        usage.save_record(
            connection,
            UsageRecord(
                RequestId(f"req_{number}"), project, f"shop-{number % PROJECTS}", "flp_sk_ab12…", "chat", started_at=at,
                alias=("fast", "smart", "reason")[number % 3], deployment=("mini", "big", "think")[number % 3],
                status=(200, 200, 200, 502)[number % 4], ending="complete", settled_at=at + 2, input_tokens=number % 1000,
                output_tokens=number % 300, microcredits=Microcredits(number % 5000), total_ms=200 + number % 4000,
            ),
        )  # fmt: skip
    connection.commit()
    while rollups.roll_up(NOW + 1000, 5000, connection):
        connection.commit()
    connection.close()


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Return the median milliseconds of a call."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        await call()
        times.append((time.perf_counter() - start) * 1000)
    return median(times)


async def measure(path: Path, records: int) -> None:
    """Print the milliseconds of both reads and of the bare queries."""
    store = SQLiteStore(path)
    admin = Gateway(store=store).admin
    month = UsageFilter(since=NOW - 30 * 86400)
    bare = sqlite3.connect(path)

    async def bare_page() -> None:
        bare.execute(
            "SELECT * FROM usage WHERE ending IS NOT NULL ORDER BY settled_at DESC, request_id DESC LIMIT 100"
        ).fetchall()

    async def bare_summary() -> None:
        """Read what lies in the period: full days, the hours before the first one, the records before the first hour."""
        since = month.since or 0.0
        day, hour = (-int(-since // span) * span for span in (86400, 3600))
        sums = "SELECT * FROM rollups WHERE span = ? AND start >= ? AND start < ?"
        for span, first, last in ((86400, day, NOW), (3600, hour, day)):
            bare.execute(sums, (span, first, last)).fetchall()
        bare.execute("SELECT * FROM usage WHERE started_at >= ? AND started_at < ?", (since, hour)).fetchall()

    async def page() -> None:
        await store.usage_page(UsageFilter(), after=None, newest_first=True, limit=100)

    async def summary() -> None:
        await admin.summary(month, ("day", "alias"))

    for name, call, floor in (("page of 100", page, bare_page), ("30-day summary", summary, bare_summary)):
        await call()
        print(f"{records:>9} records  {name:<15} {await timed(call):8.2f} ms  bare query {await timed(floor):8.2f} ms")
    bare.close()
    await store.aclose()


def main() -> None:
    """Measure a log of 10 000 records, then a long one."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for records in (10_000, most):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.db"
            anyio.run(create, path)
            fill(path, records)
            anyio.run(measure, path, records)


async def create(path: Path) -> None:
    """Create the file with its schema."""
    store = SQLiteStore(path)
    await store.projects()
    await store.aclose()


if __name__ == "__main__":
    main()
