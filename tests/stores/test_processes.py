"""Every store for several processes holds when they come together, when one is killed, and over a fork."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.stores.base import Store
from floop_gateway_core.stores.registry import inspect_store, open_store
from floop_gateway_core.testing.suites.facts import DAY, NOW, PROJECT, TTL_S, project
from floop_gateway_core.testing.suites.interleaved import InterleavedSuite
from floop_gateway_core.types import Microcredits
from tests.postgres import empty, new_database

pytestmark = pytest.mark.anyio

PREAMBLE = """
import anyio, os, signal, sys
from floop_gateway_core.policy.admission import Held
from floop_gateway_core.stores.registry import open_store
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, hold_request, settlement
store = open_store(sys.argv[1], timeout_s=30.0)
number = sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def database() -> str:
    return new_database()


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gateway.db'}"
    database = str(request.getfixturevalue("database"))
    store = open_store(database)
    await store.setup()
    await store.aclose()
    empty(database)
    return database


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = open_store(url)
    await store.setup()
    yield store
    await store.aclose()


class TestInterleaved(InterleavedSuite):
    @pytest.fixture
    async def stores(self, url: str) -> AsyncIterator[list[Store]]:
        stores = [open_store(url), open_store(url)]
        yield stores
        for store in stores:
            await store.aclose()


def run_processes(url: str, script: str, count: int) -> list[str]:
    """Start Python `count` times, let all go at once when the last one is ready, and give what each printed."""
    command = [sys.executable, "-c", PREAMBLE + script, url]
    started = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60)[0] for process in started]
    assert [0] * count == [process.returncode for process in started]
    return printed


async def test_of_200_requests_of_4_processes_exactly_10_are_admitted(url: str) -> None:
    script = """
async def main():
    async def ask():
        decision = await store.acquire(PROJECT, 10, NOW)
        print("admitted" if decision.allowed else f"wait {decision.retry_after_s}")
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(ask)
anyio.run(main)
"""
    answers = "".join(run_processes(url, script, 4)).splitlines()
    assert (10, 190) == (answers.count("admitted"), answers.count("wait 60"))


async def test_a_balance_is_never_overspent_by_4_processes(url: str, store: Store) -> None:
    await store.grant_credits("o", Microcredits(300), NOW)
    script = """
async def main():
    async def one(turn):
        request = hold_request(f"req_{number}_{turn}", fixed_tokens=9, output_tokens=1)
        if isinstance(await store.hold(request), Held):
            settled = await store.settle(settlement(request, 12, tokens=12))
            print(settled.hold.charged, settled.account.available)
    async with anyio.create_task_group() as group:
        for turn in range(16):
            group.start_soon(one, turn)
anyio.run(main)
"""
    printed = [line.split() for line in "".join(run_processes(url, script, 4)).splitlines()]
    charged = sum(int(charge) for charge, _ in printed)
    assert all(int(available) >= 0 for _, available in printed)
    assert Account(Microcredits(300 - charged)) == await store.account("o")
    assert (12 * len(printed), 0) == await store.day(PROJECT, DAY)
    assert charged == sum([record.microcredits async for record in store.usage()])


async def test_processes_that_start_together_migrate_a_file_once(url: str) -> None:
    script = "anyio.run(store.setup); print('fine')"
    assert ["fine\n"] * 4 == run_processes(url, script, 4)
    assert ("ready", 0) == inspect_store(url)


async def test_a_hold_of_a_process_that_was_killed_expires_and_its_record_is_lost(url: str, store: Store) -> None:
    await store.grant_credits("o", Microcredits(1_000), NOW)
    script = """
async def main():
    await store.hold(hold_request("req_done"))
    await store.settle(settlement(hold_request("req_done"), 40, tokens=42))
    await store.hold(hold_request("req_lost"))
    os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""
    killed = subprocess.run([sys.executable, "-c", PREAMBLE + script, url, "0"], input="go\n", text=True,
                            stdout=subprocess.DEVNULL)  # fmt: skip
    assert -signal.SIGKILL == killed.returncode
    assert Account(Microcredits(960), Microcredits(100)) == await store.account("o")
    assert ["req_done"] == [record.request_id async for record in store.usage()]
    assert [1, 0] == [await store.expire(NOW + TTL_S) for _ in range(2)]
    assert Account(Microcredits(960)) == await store.account("o")
    assert (42, 0) == await store.day(PROJECT, DAY)
    endings = {record.request_id: record.ending async for record in store.usage()}
    assert {"req_done": "complete", "req_lost": "lost"} == endings


async def test_a_change_in_one_process_shows_at_once_in_another(url: str, store: Store) -> None:
    await store.create_project(project(), digest="old")
    assert await store.authenticate("old", NOW) is not None
    script = """
async def main():
    await store.rotate_key(PROJECT, digest="new", key_prefix="…", now=NOW)
anyio.run(main)
"""
    run_processes(url, script, 1)
    assert await store.authenticate("old", NOW) is None
    assert await store.authenticate("new", NOW) is not None


async def test_a_process_that_is_forked_with_the_store_open_shares_the_file(url: str) -> None:
    script = """
import warnings
warnings.simplefilter("ignore")

async def ask(count):
    for _ in range(count):
        decision = await store.acquire(PROJECT, 10, NOW)
        os.write(1, b"admitted\\n" if decision.allowed else b"refused\\n")  # one write a line, or lines of processes mix

anyio.run(ask, 2)
children = []
for _ in range(3):
    if not (child := os.fork()):
        anyio.run(ask, 4)
        sys.stdout.flush()
        os._exit(0)
    children.append(child)
anyio.run(ask, 3)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
anyio.run(ask, 1)
"""
    (printed,) = run_processes(url, script, 1)
    answers = printed.splitlines()
    assert (10, 8) == (answers.count("admitted"), answers.count("refused"))
