"""Measure admissions and settlements of each store beside its bare driver, as ratios in one run.

Run `python -m benchmarks.stores [CALLS [ROWS]]`. The floor writes one row and commits it, with the same driver, durability
and number of connections. Accounts and projects are as many as callers. Everything is measured with an empty log and
again with one of 1 000 000 records, or of ROWS. The servers come from the package index.
"""

import itertools
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import anyio
import anyio.to_thread
import psycopg
import redis.asyncio

from floop_gateway_core.stores.base import Store
from floop_gateway_core.stores.registry import open_store
from floop_gateway_core.stores.valkey import ValkeyRate
from floop_gateway_core.testing.suites.facts import NOW, hold_request, project, settlement
from floop_gateway_core.types import Microcredits, ProjectId
from tests.postgres import start_server
from tests.serving import valkey_server

CALLERS = (1, 64)
CONNECTIONS = 4
ROUNDS = 3
FILL = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})
    INSERT INTO {schema}usage (
        request_id, project_id, project, key_prefix, endpoint, alias, status, input_tokens, output_tokens, cached_tokens,
        reasoning_tokens, estimated, microcredits, attempts, streamed, settled_at, ending, started_at, rolled
    ) SELECT
        'old_' || n, 'prj_' || n % 100, 'shop-' || n % 100, 'flp_sk_ab12', 'chat', 'fast', 200, 100, 10, 0, 0, 0, 50, 1, 0,
        {now} - n, 'complete', {now} - n, 1
    FROM numbers
"""
Call = Callable[[int, int], Awaitable[object]]
"""One call of a caller (its number, and the number of the call)."""
_ids = itertools.count()


async def rate_of(call: Call, callers: int, calls: int) -> float:
    """Return calls a second."""
    numbers = iter(range(calls))

    async def one(caller: int) -> None:
        for number in numbers:
            await call(caller, number)

    start = time.perf_counter()
    async with anyio.create_task_group() as group:
        for caller in range(callers):
            group.start_soon(one, caller)
    return calls / (time.perf_counter() - start)


def in_threads(work: Sequence[Callable[[], object]], calls: int) -> float:
    """Return calls a second of functions that wait, one thread each."""
    numbers = iter(range(calls))

    def run(one: Callable[[], object]) -> None:
        for _ in numbers:
            one()

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return calls / (time.perf_counter() - start)


def sqlite_floor(path: Path, callers: int, calls: int) -> float:
    """Write one row a transaction, on one connection: SQLite has one writer."""
    del callers
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("CREATE TABLE IF NOT EXISTS floor (id INTEGER PRIMARY KEY, n INTEGER)")
        write = "INSERT INTO floor VALUES (?, 0) ON CONFLICT (id) DO UPDATE SET n = n + 1"
        start = time.perf_counter()
        for number in range(calls):
            connection.execute(write, (number % 64,))
        return calls / (time.perf_counter() - start)


def postgres_floor(url: str, callers: int, calls: int) -> float:
    """Write one row a transaction, on as many connections as the store has."""
    connections = [psycopg.connect(url, autocommit=True) for _ in range(min(callers, CONNECTIONS))]
    connections[0].execute("CREATE TABLE IF NOT EXISTS floor (id bigint PRIMARY KEY, n bigint)")
    write = "INSERT INTO floor VALUES (%s, 0) ON CONFLICT (id) DO UPDATE SET n = floor.n + 1"
    found = in_threads([partial(one.execute, write, (id,)) for id, one in enumerate(connections)], calls)
    for one in connections:
        one.close()
    return found


@asynccontextmanager
async def calls_of(store: Store, callers: int) -> AsyncIterator[dict[str, Call]]:
    """Yield the calls that a request makes; each caller has a project and an account of its own."""
    run = f"{os.getpid()}-{next(_ids)}"
    projects = [
        replace(project(), id=ProjectId(f"prj_{run}-{one}"), name=f"{run}-{one}", owner=f"owner-{run}-{one}")
        for one in range(callers)
    ]
    for one in projects:
        await store.create_project(one, digest=one.id, credits=Microcredits(10**12))

    async def rate(caller: int, number: int) -> None:
        await store.authenticate_and_acquire(projects[caller].id, {"default": 10**6}, NOW)

    async def hold_and_settle(caller: int, number: int) -> None:
        one = projects[caller]
        request = hold_request(f"req_{run}-{next(_ids)}", project=one.id, owner=one.owner, budget_tokens=10**12)
        await store.hold(request)
        await store.settle(settlement(request, 50, tokens=60))

    yield {"key and rate": rate, "hold, settle": hold_and_settle}


def fill_sqlite(path: Path, rows: int) -> None:
    """Write a log of so many records."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(FILL.format(rows=rows, schema="", now=NOW))
        connection.commit()


def fill_postgres(url: str, rows: int) -> None:
    """Write a log of so many records, and let the planner know."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(FILL.format(rows=rows, schema="floop_gateway.", now=NOW).encode())
        connection.execute("VACUUM ANALYZE floop_gateway.usage")


def show(name: str, callers: int, what: str, found: list[float], floor: list[float], transactions: int) -> None:
    """Print one line; a call of two transactions counts twice."""
    each, least = median(found) * transactions, median(floor)
    print(f"{name:10} {callers:>3} callers  {what:14} {each:8.0f} transactions/s   {each / least:5.2f} of the floor")


async def measure(name: str, store: Store, floor: Callable[[int, int], float], calls: int) -> None:
    """Print the ratios of one store."""
    await store.setup()
    for callers in CALLERS:
        floors, found = [], dict[str, list[float]]()
        async with calls_of(store, callers) as kinds:
            for _ in range(ROUNDS):
                floors.append(await anyio.to_thread.run_sync(floor, callers, calls))
                for what, call in kinds.items():
                    found.setdefault(what, []).append(await rate_of(call, callers, calls))
        for what, rates in found.items():
            show(name, callers, what, rates, floors, 2 if "," in what else 1)
    await store.aclose()


async def measure_valkey(calls: int) -> None:
    """Print the ratio of the rate on Valkey: one script beside one command, on as many connections."""
    with valkey_server() as server:
        url = f"redis://127.0.0.1:{server.port}"
        store, client = ValkeyRate(url), redis.asyncio.Redis.from_url(url)

        async def spend(caller: int, number: int) -> None:
            await store.acquire(ProjectId(f"prj_{caller}"), 10**6, NOW)

        async def increase(caller: int, number: int) -> None:
            await client.incr(f"floor_{caller}")

        for callers in CALLERS:
            floors, found = [], []
            for _ in range(ROUNDS):
                floors.append(await rate_of(increase, callers, calls))
                found.append(await rate_of(spend, callers, calls))
            show("Valkey", callers, "rate", found, floors, 1)
        await client.aclose()
        await store.aclose()


async def main(calls: int, rows: int) -> None:
    """Print the ratios of all stores."""
    folder = Path(tempfile.mkdtemp())
    sqlite, url = folder / "a.db", start_server(folder / "pg").get_uri()
    kinds = (
        ("SQLite", f"sqlite:///{sqlite}", partial(sqlite_floor, folder / "floor.db"), partial(fill_sqlite, sqlite)),
        ("PostgreSQL", url, partial(postgres_floor, url), partial(fill_postgres, url)),
    )
    for name, address, floor, fill in kinds:
        await measure(name, open_store(address), floor, calls)
        await anyio.to_thread.run_sync(fill, rows)
        print(f"with {rows} records:")
        await measure(name, open_store(address), floor, calls)
    await measure_valkey(calls)


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:]]
    anyio.run(main, given[0] if given else 2000, given[1] if given[1:] else 1_000_000)
