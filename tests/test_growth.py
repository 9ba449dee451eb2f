"""What a request costs does not grow with frames, keys, holds or the log: counted in calls and steps, not in seconds."""

import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import anyio
import pytest

from floop_gateway_core import MemoryStore
from floop_gateway_core.bench.upstream import answer
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.providers.options import Options
from floop_gateway_core.stores.sql import ledger, projects, usage, windows
from floop_gateway_core.stores.sqlite.schema import migrate
from floop_gateway_core.testing.suites.facts import NOW, hold_request, project, settlement
from floop_gateway_core.types import Microcredits, ProjectId, RequestId


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions `work` calls, those written in C among them."""
    count = 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def decoded(frames: int, cut: int) -> None:
    """Decode an answer of so many frames that comes in pieces of `cut` bytes."""
    lines = answer(frames).split(b"\r\n")
    events = b"".join(line for line in lines if line.startswith(b"data:"))
    decoder = OpenAICodec(Options()).decoder()
    for at in range(0, len(events), cut):
        decoder.feed(events[at : at + cut])


@pytest.mark.parametrize("cut", [1400, 65536])
def test_a_frame_costs_the_same_in_a_short_and_a_long_answer(cut: int) -> None:
    few, many = (calls_of(lambda frames=frames: decoded(frames, cut)) / frames for frames in (100, 10_000))  # type: ignore[misc]
    assert many <= few * 1.1


def test_an_event_of_8_mb_in_small_pieces_is_looked_at_once() -> None:
    def fed(size: int) -> None:
        decoder = OpenAICodec(Options()).decoder()
        event = b'data: {"choices":[{"delta":{"content":"' + b"x" * size + b'"}}]}\n\n'
        for at in range(0, len(event), 1400):
            decoder.feed(event[at : at + 1400])

    small, large = (calls_of(lambda size=size: fed(size)) / size for size in (100_000, 2_000_000))  # type: ignore[misc]
    assert large <= small * 1.1


async def request_of(store: MemoryStore, number: int, owner: str = "o") -> None:
    request = hold_request(f"req_{number}", owner=owner)
    await store.hold(request)
    await store.settle(settlement(request, 40, tokens=42))


def test_an_admission_in_memory_costs_the_same_with_many_keys_and_holds() -> None:
    def cost(keys: int) -> int:
        store = MemoryStore()

        async def fill() -> None:
            for number in range(keys):
                await store.create_project(project(str(number)), digest=str(number), credits=Microcredits(10**9))
                await store.acquire(ProjectId(str(number)), 10, NOW)
                await store.hold(hold_request(f"open_{number}", project=ProjectId(str(number))))

        anyio.run(fill)

        def admit() -> None:
            coroutine = request_of(store, 0)
            with pytest.raises(StopIteration):
                coroutine.send(None)

        return calls_of(admit)

    assert cost(3_000) <= cost(3) * 1.1


def steps_of(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """Return how many steps SQLite's machine takes."""
    steps = 0

    def note() -> None:
        nonlocal steps
        steps += 1

    connection.set_progress_handler(note, 1)
    try:
        work()
    finally:
        connection.set_progress_handler(None, 1)
    return steps


def filled(path: Path, *, keys: int, records: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection)
    connection.execute("BEGIN")
    for number in range(keys):
        projects.create(connection, project(str(number)), str(number))
        windows.acquire(connection, ProjectId(str(number)), 100, NOW)
    ledger.grant_credits(connection, "o", Microcredits(10**9), NOW)
    record = replace(hold_request("req").record, ending="complete", settled_at=NOW, status=200)
    for number in range(records):
        usage.save_record(connection, replace(record, request_id=RequestId(f"old_{number}"), started_at=NOW - number))
    connection.execute("COMMIT")
    return connection


def test_a_request_in_sqlite_takes_the_same_steps_with_many_keys_and_a_long_log(tmp_path: Path) -> None:
    def cost(name: str, *, keys: int, records: int) -> int:
        connection = filled(tmp_path / name, keys=keys, records=records)

        def request() -> None:
            projects.by_digest("0", NOW, connection)
            windows.acquire(connection, ProjectId("0"), 100, NOW)
            asked = hold_request("req_0", project=ProjectId("0"))
            ledger.hold(connection, asked)
            ledger.settle(connection, settlement(asked, 40, tokens=42))

        try:
            return steps_of(connection, request)
        finally:
            connection.close()

    small = cost("small.db", keys=10, records=0)
    assert cost("keys.db", keys=2_000, records=0) <= small * 1.1
    assert cost("records.db", keys=10, records=20_000) <= small * 1.1
