"""A key that hammers fills the log with ten records a minute and one that counts the rest."""

import anyio
import pytest

from floop_gateway_core.testing.clock import FakeClock
from tests.engine.kit import bench

pytestmark = pytest.mark.anyio

NOW = 1_700_000_040.0  # the start of a UTC minute


async def test_the_first_ten_refusals_have_their_own_record_and_the_rest_share_one() -> None:
    async with bench(plan={"requests_per_minute": 1}, clock=FakeClock(NOW)) as b:
        assert 200 == (await b.ask()).status
        answers = [await b.ask() for _ in range(40)]
        assert {429} == {answer.status for answer in answers}
        shared = {answer.headers.get("x-record-id") for answer in answers[10:]}
        assert 1 == len(shared)
        assert {None} == {answer.headers.get("x-record-id") for answer in answers[:10]}
        assert 40 == len({answer.headers["x-request-id"] for answer in answers})
        records = [record async for record in b.gateway.usage()]
        refused = [record for record in records if record.code == "RATE_LIMITED"]
        assert [1] * 10 + [30] == sorted(record.repeats for record in refused)
        (counted,) = [record for record in refused if record.repeats > 1]
        assert ({counted.request_id}, 429, "refused", 0) == (
            shared,
            counted.status,
            counted.ending,
            counted.microcredits,
        )


async def test_a_new_minute_begins_with_records_of_their_own() -> None:
    clock = FakeClock(NOW)
    async with bench(plan={"requests_per_minute": 1}, clock=clock) as b:
        assert 200 == (await b.ask()).status
        for _ in range(15):
            await b.ask()
        clock.now += 59.0
        assert 429 == (await b.ask()).status  # the same minute still
        clock.now += 1.5
        assert 200 == (await b.ask()).status
        for _ in range(3):
            assert "x-record-id" not in (await b.ask()).headers
        assert 10 + 6 + 3 == sum([record.repeats async for record in b.gateway.usage() if record.code])


async def test_counts_are_written_when_the_gateway_is_closed() -> None:
    async with bench(plan={"requests_per_minute": 1}, clock=FakeClock(NOW)) as b:
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(b.ask)
        await b.gateway.aclose()
        assert 49 == sum([record.repeats for record in await b.records() if record.code == "RATE_LIMITED"])
