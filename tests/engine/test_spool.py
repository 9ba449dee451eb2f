"""A store that goes away under answers: told and billed once, later, by this process or the next."""

import threading
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from floop_gateway_core import MemoryStore, Usage
from floop_gateway_core.engine.settle import deliver_spool
from floop_gateway_core.stores.base import Settled, Settlement, StoreUnavailable
from floop_gateway_core.stores.spool import SettlementSpool
from floop_gateway_core.testing.answers import Reply
from tests.engine.kit import Bench, SlowLedger, bench

pytestmark = pytest.mark.anyio


def with_spool(b: Bench, folder: Path) -> SettlementSpool:
    b.gateway.runtime.spool = spool = SettlementSpool(folder / "a.spool")
    return spool


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_told_its_charge_and_charged_once_the_store_is_back(tmp_path: Path, stream: bool) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("away")])
    async with bench(Reply(usage=Usage(12, 4)), ledger=ledger.over) as b:
        spool = with_spool(b, tmp_path)
        answer = await b.ask(stream=stream)
        assert (200, 12, 4, 240) == (answer.status, *answer.usage, answer.charged)
        assert "credits_remaining" not in answer.last["usage"]
        assert "error" not in answer.last
        assert [] == await b.records()
        assert not spool.is_empty
        await b.ask()
        first, second = await b.records()
        assert (answer.headers["x-request-id"], 240, "complete") == (first.request_id, first.microcredits, first.ending)
        assert "complete" == second.ending
        assert spool.is_empty
        await b.settled(2)


async def test_a_spool_that_takes_nothing_leaves_the_answer_unpaid_and_undelivered(tmp_path: Path) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("away")] * 1000)
    async with bench(ledger=ledger.over) as b:
        with_spool(b, tmp_path / "is not there")
        routing = b.gateway.runtime.routing
        b.gateway.runtime.routing = replace(routing, limits=replace(routing.limits, settle_s=0.1))
        assert 503 == (await b.ask()).status
        ledger.fail_settle.clear()
        await b.gateway.aclose()
        assert ("refused", 0) == ((record := await b.settled()).ending, record.microcredits)


async def test_a_spool_waits_while_the_store_is_away_and_survives_the_process(tmp_path: Path) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("away")] * 3)
    async with bench(Reply(usage=Usage(12, 4)), ledger=ledger.over) as b:
        spool = with_spool(b, tmp_path)
        await b.ask()
        await b.gateway.start()  # the store is away still
        assert not spool.is_empty
        ledger.fail_settle.clear()
        b.gateway.runtime.spooled = 0  # another process knows nothing of it
        await b.gateway.start()
        assert 240 == (await b.settled()).microcredits
        assert spool.is_empty


async def test_a_store_that_fails_a_request_is_not_asked_again_for_its_refusal(tmp_path: Path) -> None:
    ledger = SlowLedger(MemoryStore(), fail_hold=StoreUnavailable("locked"))
    async with bench(ledger=ledger.over) as b:
        spool = with_spool(b, tmp_path)
        refused = await b.ask()
        assert (503, False) == (refused.status, spool.is_empty)
        assert [] == await b.records()
        ledger.fail_hold = None
        assert 200 == (await b.ask()).status
        first, second = await b.records()
        assert (refused.headers["x-request-id"], 503, "refused") == (first.request_id, first.status, first.ending)
        assert "complete" == second.ending
        assert spool.is_empty
        await b.settled(2)


async def test_the_refusal_of_a_store_that_is_only_busy_is_recorded_without_another_request() -> None:
    ledger = SlowLedger(MemoryStore(), fail_hold=StoreUnavailable("locked"))
    async with bench(ledger=ledger.over) as b:
        assert 503 == (await b.ask()).status
        assert [] == await b.records()
        with anyio.fail_after(5):
            while not await b.records():
                await anyio.sleep(0.01)
        assert 0 == len(b.gateway.runtime.pending_settlements)
        assert "refused" == (await b.settled()).ending


async def test_what_is_spooled_during_a_delivery_is_delivered_by_a_later_one(tmp_path: Path) -> None:
    ledger = SlowLedger(MemoryStore())
    async with bench(Reply(usage=Usage(12, 4)), ledger=ledger.over) as b:
        spool = with_spool(b, tmp_path)
        taken, looked, go_on = spool.taken, anyio.Event(), threading.Event()

        def slowly() -> list[Path]:
            files = taken()
            anyio.from_thread.run_sync(looked.set)
            go_on.wait(5)
            return files

        spool.taken = slowly  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(deliver_spool, b.gateway.runtime)
            await looked.wait()
            ledger.fail_settle = [StoreUnavailable("away")]
            await b.ask()
            go_on.set()
        spool.taken = taken  # type: ignore[method-assign]
        await b.ask()
        assert spool.is_empty
        await b.settled(2)


async def test_a_settlement_that_waits_is_retried_by_one_request_at_a_time() -> None:
    ledger = SlowLedger(MemoryStore(), fail_hold=StoreUnavailable("away"), settle_s=0.02)
    async with bench(ledger=ledger.over) as b:
        refused = (await b.ask()).headers["x-request-id"]
        ledger.fail_hold = None
        tries, settle = list[str](), ledger.settle

        async def noted(settlement: Settlement) -> Settled:
            tries.append(settlement.record.request_id)
            return await settle(settlement)

        ledger.settle = noted  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(b.ask)
        assert 1 == tries.count(refused)


async def test_a_long_outage_leaves_few_files(tmp_path: Path) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("away")] * 1000)
    async with bench(Reply(usage=Usage(12, 4)), ledger=ledger.over) as b:
        spool = with_spool(b, tmp_path)
        for _ in range(5):
            await b.ask()
            await deliver_spool(b.gateway.runtime)
        assert 2 >= len(list(tmp_path.iterdir()))
        ledger.fail_settle.clear()
        await deliver_spool(b.gateway.runtime)
        assert spool.is_empty
        await b.settled(5)


async def test_what_another_process_has_delivered_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("away")])
    async with bench(Reply(usage=Usage(12, 4)), ledger=ledger.over) as b:
        spool = with_spool(b, tmp_path)
        await b.ask()
        taken = spool.taken

        def slowly() -> list[Path]:
            files = taken()
            for file in files:
                file.unlink()
            return files

        monkeypatch.setattr(spool, "taken", slowly)
        await deliver_spool(b.gateway.runtime)
        assert spool.is_empty
        assert "cannot be read" not in caplog.text
