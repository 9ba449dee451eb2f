"""Many processes against one balance, one daily budget and one rate: is anything overspent, and how long does it take?

Run `python -m benchmarks.contention [PROCESSES] [REQUESTS]`; the default is 8 processes with 1 250 requests each, all at
once. Each limit is lower than what is asked for. The servers come from the package index.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from floop_gateway_core import Gateway, GatewayError, Settings
from floop_gateway_core.policy.budget import utc_day
from tests.postgres import start_server
from tests.serving import valkey_server

PROMPT = "one two three"
CREDITS_MICRO = 1000
"""The price of a token."""


def settings(store: str, rate: str | None, requests: int) -> Settings:
    """Return the configuration: the rate admits three quarters of the requests, the budget half of them."""
    values: dict[str, Any] = {
        "store": store,
        "store_timeout_s": 30.0,
        "plans": {
            "default": {"requests_per_minute": requests * 3 // 4, "daily_tokens": requests * 4, "concurrency": 10**6}
        },
        "deployments": {"echo": {"provider": "echo", "microcredits_per_token": CREDITS_MICRO}},
        "routes": {alias: ["echo"] for alias in ("fast", "smart", "reason")},
    }
    return Settings.read(values | ({"rate_store": rate} if rate else {}), source="benchmark")


async def work(store: str, rate: str | None, total: int, mine: int, key: str) -> None:
    """Send all requests of this process concurrently, and print how many had each outcome."""
    async with Gateway(settings(store, rate, total)) as gateway:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

        async def one() -> str:
            try:
                await gateway.generate(key, PROMPT, model="fast", max_tokens=4)
            except GatewayError as error:
                return error.code.value
            return "ok"

        print(json.dumps(Counter(await asyncio.gather(*[one() for _ in range(mine)]))), flush=True)


async def new_key(gateway: Gateway, balance: int) -> str:
    """Create the project that all requests belong to."""
    async with gateway:
        return (await gateway.admin.create_project("p", credits=str(balance / 10**6))).key


async def is_right(gateway: Gateway, balance: int, budget: int) -> bool:
    """Return whether the books add up: nothing overspent, nothing held."""
    async with gateway:
        project = await gateway.admin.project("p")
        account = await gateway.admin.account(project.owner)
        day = await gateway.store.day(project.id, utc_day(time.time()))
        charged = sum([record.microcredits async for record in gateway.store.usage()])
        return account.posted + charged == balance and (account.held, day.held) == (0, 0) and day.used <= budget


def measure(name: str, store: str, rate: str | None, processes: int, each: int) -> None:
    """Run one combination of stores and print what came of it."""
    total = processes * each
    balance = total * 3 * CREDITS_MICRO  # for less than the budget
    key = asyncio.run(new_key(Gateway(settings(store, rate, total)), balance))
    command = [sys.executable, "-m", "benchmarks.contention", "--work", store, rate or "", str(total), str(each), key]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    began = time.monotonic()
    for worker in workers:
        assert worker.stdin is not None
        print(file=worker.stdin, flush=True)
    found: Counter[str] = Counter()
    for worker in workers:
        found.update(json.loads(worker.communicate()[0]))
    seconds = time.monotonic() - began
    right = asyncio.run(is_right(Gateway(settings(store, rate, total)), balance, total * 4))
    right = right and not {"SERVICE_UNAVAILABLE", "INTERNAL_ERROR"} & found.keys()
    right = right and (seconds > 60 or total - found["RATE_LIMITED"] == total * 3 // 4)
    ends = ", ".join(f"{code} {count}" for code, count in sorted(found.items()))
    print(f"{name:22} {seconds:5.1f} s, {total / seconds:5.0f} requests/s  {'right' if right else 'WRONG'}: {ends}")


@contextmanager
def stores() -> Iterator[list[tuple[str, str, str | None]]]:
    """Start the servers, and yield the combinations."""
    folder = Path(tempfile.mkdtemp(prefix="floop-contention-"))
    with valkey_server() as valkey:
        yield [
            ("SQLite", f"sqlite:///{folder / 'a.db'}", None),
            ("PostgreSQL", start_server(folder / "pg").get_uri(), None),
            ("PostgreSQL and Valkey", start_server(folder / "pg2").get_uri(), f"valkey://127.0.0.1:{valkey.port}"),
        ]


def main(processes: int, each: int) -> None:
    """Measure every combination."""
    with stores() as combinations:
        for name, store, rate in combinations:
            measure(name, store, rate, processes, each)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        _, _, store, rate, total, mine, key = sys.argv
        asyncio.run(work(store, rate or None, int(total), int(mine), key))
    else:
        main(*map(int, sys.argv[1:]) if len(sys.argv) > 1 else (8, 1250))
