"""A key that hammers fills the log with ten records a minute and one that counts the rest."""

from dataclasses import replace

import anyio
import pytest

from floop_gateway_core import MemoryStore, StoreUnavailable
from floop_gateway_core.engine.refusal_log import RefusalLog
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.testing.clock import FakeClock
from floop_gateway_core.testing.suites.facts import hold_request
from floop_gateway_core.types import RequestId, UsageRecord
from tests.engine.kit import bench

pytestmark = pytest.mark.anyio

NOW = 1_700_000_040.0  # the start of a UTC minute
LIMITED = Refusal(ErrorCode.RATE_LIMITED, "Too many.")


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


class Failing(MemoryStore):
    down = False

    async def log(self, record: UsageRecord) -> None:
        if self.down:
            raise StoreUnavailable("down")
        await super().log(record)


async def test_counts_that_the_store_did_not_take_are_written_later() -> None:
    log, store = RefusalLog(), Failing()
    record = hold_request("req_1").record
    for _ in range(10):
        assert await log.note(record, LIMITED, store, now=NOW, monotonic=0.0) is None
    store.down = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await log.note(record, LIMITED, store, now=NOW, monotonic=0.0)
    store.down = False
    assert "req_1" == await log.note(record, LIMITED, store, now=NOW, monotonic=0.0)
    assert [3] == [one.repeats async for one in store.usage()]
    # A minute later what was counted since is written, and the minute is forgotten.
    await log.note(record, LIMITED, store, now=NOW, monotonic=0.5)
    await log.note(replace(record, request_id=RequestId("req_2")), LIMITED, store, now=NOW + 60.0, monotonic=60.0)
    assert [4] == [one.repeats async for one in store.usage()]
    await log.flush(store, now=NOW + 120.0, monotonic=120.0)
    assert {} == log._minutes


async def test_old_records_are_deleted_a_few_at_a_time_while_requests_come() -> None:
    clock = FakeClock(NOW)
    async with bench(clock=clock, settings={"retention": {"usage_days": 1}}) as b:
        assert 200 == (await b.ask()).status
        clock.now += 2 * 86_400.0
        b.gateway.runtime.pruned_at -= 61.0
        assert 200 == (await b.ask()).status
        assert [clock.now] == [record.started_at for record in await b.records()]
