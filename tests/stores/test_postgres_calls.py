"""The server's functions do what the row functions do, whatever they are asked."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import anyio
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from floop_gateway_core.policy.idempotency import Claim
from floop_gateway_core.stores.base import HoldRequest, Settlement, Store
from floop_gateway_core.stores.postgres import PostgresStore
from floop_gateway_core.stores.postgres.jobs import Job
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, hold_request, project, settlement
from floop_gateway_core.types import Microcredits
from tests.postgres import empty, new_database

Command = Callable[[Store], Awaitable[object]]
TABLES = ("accounts", "answers", "days", "entries", "holds", "instants", "usage", "windows")


class WithoutFunctions(PostgresStore):
    """Does everything by the row functions."""

    async def _call(self, work: Any, locks: Any, call: Any, *, durable: bool = True) -> Any:
        return await self._workers.run(Job(work, locks, durable))


@pytest.fixture(scope="module")
def databases() -> tuple[str, str]:
    return new_database(), new_database()


moments = st.sampled_from([NOW - 60, NOW, NOW + 30, NOW + 60, NOW + 600, NOW + 601])
claims = st.sampled_from([None, Claim("k", "d"), Claim("l", "e")])


@st.composite
def requests(draw: st.DrawFn) -> HoldRequest:
    """Return requests that fit, or just do not fit, into the budget and the account."""
    request = hold_request(
        draw(st.sampled_from(["req_1", "req_2", "req_3", "req_4"])),
        owner=draw(st.sampled_from(["o", "o", "o", "nobody"])),
        output_tokens=draw(st.sampled_from([0, 1, 90])),
        microcredits_per_token=draw(st.sampled_from([0, 1, 3])),
        budget_tokens=draw(st.sampled_from([110, 111, 2**63])),
        now=draw(moments),
    )
    record = replace(request.record, alias=draw(st.sampled_from([None, "a\0b"])), tags=(("a", "b\0"),))
    return replace(request, record=record, claim=draw(claims))


@st.composite
def settlements(draw: st.DrawFn) -> Settlement:
    """Return settlements that are covered by their holds, or not."""
    request, charge = draw(requests()), draw(st.sampled_from([None, 0, 7, 100, 5_000]))
    end = settlement(request, charge, tokens=draw(st.integers(0, 50)))
    return replace(end, now=draw(moments), claim=request.claim, answer=draw(st.sampled_from([None, b"answer\0"])))


def _hold(request: HoldRequest) -> Command:
    return lambda store: store.hold(request)


def _settle(end: Settlement) -> Command:
    return lambda store: store.settle(end)


def _acquire(limit: int, now: float) -> Command:
    return lambda store: store.acquire(PROJECT, limit, now)


def _expire(now: float) -> Command:
    return lambda store: store.expire(now)


several = st.lists(
    st.builds(_hold, requests())
    | st.builds(_hold, requests())
    | st.builds(_settle, settlements())
    | st.builds(_acquire, st.integers(1, 3), moments)
    | st.builds(_expire, moments),
    min_size=4,
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(several)
@example([_acquire(3, NOW), _acquire(3, NOW + 30), _acquire(1, NOW + 30)])
def test_a_call_does_what_the_row_functions_do(databases: tuple[str, str], commands: list[Command]) -> None:
    found = []
    for store in (PostgresStore(databases[0]), WithoutFunctions(databases[1])):
        found.append((anyio.run(_run, store, commands), _rows(store._conninfo)))
    assert found[0] == found[1]


async def _run(store: PostgresStore, commands: list[Command]) -> list[object]:
    await store.setup()
    empty(store._conninfo)
    await store.create_project(project(), digest="d", credits=Microcredits(400))
    answers: list[object] = []
    for command in commands:
        try:
            answers.append(await command(store))
        except Exception as error:
            answers.append(repr(error))
    await store.aclose()
    return answers


def _rows(url: str) -> dict[str, list[str]]:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        return {
            table: sorted(map(repr, connection.execute(f"SELECT * FROM floop_gateway.{table}".encode()).fetchall()))
            for table in TABLES
        }
