"""The store in memory passes the suite, from several threads too, and bounds its log."""

import logging.handlers
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from floop_gateway_core.stores.memory import MemoryStore
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, hold_request, project, settlement
from floop_gateway_core.testing.suites.stores import StoreSuite
from floop_gateway_core.types import AuditLine, Microcredits, Project, ProjectId

pytestmark = pytest.mark.anyio


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


@pytest.fixture
def eager_threads() -> object:
    """Switch threads as often as the interpreter can, so that what is not guarded shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run `work` in so many threads, each on an event loop of its own, started together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


@pytest.mark.usefixtures("eager_threads")
def test_of_200_requests_of_20_event_loops_10_are_admitted() -> None:
    store, admitted = MemoryStore(), []

    async def ask_ten() -> None:
        for _ in range(10):
            admitted.append((await store.acquire(PROJECT, 10, NOW)).allowed)

    in_threads(20, lambda _: anyio.run(ask_ten))
    assert (10, 190) == (admitted.count(True), admitted.count(False))


@pytest.mark.usefixtures("eager_threads")
def test_holds_of_20_event_loops_never_set_aside_more_than_there_is() -> None:
    store = MemoryStore()

    async def prepare() -> None:
        await store.grant_credits("o", Microcredits(250), NOW)

    async def hold_and_settle(number: int) -> None:
        for turn in range(5):
            request = hold_request(f"req_{number}_{turn}", fixed_tokens=9, output_tokens=1)
            await store.hold(request)
            await store.settle(settlement(request, 10, tokens=10))

    anyio.run(prepare)
    in_threads(20, lambda number: anyio.run(hold_and_settle, number))
    account, day = anyio.run(store.account, "o"), anyio.run(store.day, PROJECT, int(NOW) // 86_400)
    assert account is not None
    assert (0, 0) == (account.held, day[1])
    assert 250 == account.posted + day[0]


def test_a_rotation_within_a_rotation_leaves_one_active_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads rotate at once; the second gets its turn between the steps of the first, if there is such a place."""
    store = MemoryStore()
    anyio.run(lambda: store.create_project(project(), digest="old"))
    change = store._change

    def rotate(digest: str) -> Project:
        return anyio.run(lambda: store.rotate_key(PROJECT, digest=digest, key_prefix="…", now=NOW))

    other = threading.Thread(target=rotate, args=("other",))

    def interrupted(id: ProjectId, line: AuditLine | None, **changes: object) -> Project:
        if other.ident is None:
            other.start()
            other.join(timeout=1)  # if the first rotation holds the lock, the second waits until it is over
        return change(id, line, **changes)

    monkeypatch.setattr(store, "_change", interrupted)
    rotate("first")
    other.join()
    active = [digest for digest in ("old", "other", "first") if anyio.run(store.authenticate, digest, NOW)]
    assert 1 == len(active)


async def test_the_oldest_records_are_forgotten_beyond_the_bound() -> None:
    store = MemoryStore(max_records=3)
    for number in range(5):
        await store.settle(settlement(hold_request(f"req_{number}", now=NOW + number)))
    assert ["req_2", "req_3", "req_4"] == [record.request_id async for record in store.usage()]


async def test_a_listing_does_not_change_while_requests_end() -> None:
    store = MemoryStore()
    await store.settle(settlement(hold_request("req_1")))
    listing = store.usage()
    first = await anext(listing)
    await store.settle(settlement(hold_request("req_2")))
    assert ["req_1"] == [first.request_id, *[record.request_id async for record in listing]]


SERVER = """
import multiprocessing, sys
from tests.stores.test_memory import worker
if __name__ == "__main__":
    for workers in (1, 2):
        context = multiprocessing.get_context(sys.argv[1])
        queue = context.Queue()
        started = [context.Process(target=worker, args=(queue,)) for _ in range(workers)]
        for one in started: one.start()
        print(sorted(queue.get(timeout=60) for _ in started), flush=True)
        for one in started: one.kill(); one.join()
"""


def worker(found: "multiprocessing.Queue[int]") -> None:
    """Serve one request, say how often that was warned of, and live on."""
    monitor = logging.handlers.BufferingHandler(100)
    logging.getLogger("floop_gateway").addHandler(monitor)
    store = MemoryStore()
    anyio.run(store.acquire, PROJECT, 10, NOW)
    anyio.run(store.acquire, PROJECT, 10, NOW)
    found.put(len([one for one in monitor.buffer if "several workers" in one.getMessage()]))
    threading.Event().wait()


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is seen there")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_each_of_several_workers_but_one_warns(start: str, tmp_path: Path) -> None:
    """Two workers of one server see each other; a single one, and this process with its many stores, see nobody."""
    (tmp_path / "server.py").write_text(SERVER)
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "server.py"), start],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ("[0]\n[0, 1]\n", "") == (ran.stdout, ran.stderr)
