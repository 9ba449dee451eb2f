"""What a request costs, however it ends: one record, no hold left behind, and the charge that the contract names."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from floop_gateway_core import MemoryStore, Usage, estimate_messages
from floop_gateway_core.engine import run
from floop_gateway_core.observability.events import AttemptEnded, AttemptStarted, FirstText
from floop_gateway_core.stores.base import Settled, Settlement, StoreUnavailable
from floop_gateway_core.testing import Break, Hold, Reply, Status
from floop_gateway_core.testing.answers import Vendor
from floop_gateway_core.testing.clock import FakeClock
from floop_gateway_core.types import Message, UsageRecord
from tests.engine.kit import (
    CREDITS,
    PROMPT,
    RATE_IN,
    RATE_OUT,
    Answered,
    Bench,
    SlowLedger,
    bench,
    cancelled_natively,
    eventually,
    expected_input,
    expected_output,
    port_that_does_not_answer,
    price,
    read,
)

pytestmark = pytest.mark.anyio

UPPER = estimate_messages([Message.of("user", PROMPT)], None, "o200k").upper
"""What the hold takes for the prompt's tokens."""


def held_for(output_tokens: int, *, thinking_tokens: int = 0) -> int:
    return UPPER * RATE_IN + (output_tokens + thinking_tokens) * RATE_OUT


# -- holds and grants --------------------------------------------------------------------------------------------------


async def test_what_a_request_may_cost_is_held_while_it_runs_and_freed_when_it_ends() -> None:
    go_on = anyio.Event()
    async with bench(Reply(hold=Hold(go_on))) as b, anyio.create_task_group() as tasks:
        tasks.start_soon(b.ask)
        await eventually(lambda: any(isinstance(event, FirstText) for event in b.told))
        account = await b.account()
        assert (account.posted, account.held) == (CREDITS, held_for(100))
        assert await b.used(int(b.gateway.runtime.clock()) // 86_400) == (0, UPPER + 100)
        go_on.set()
        await eventually(lambda: b.upstream.streams_open == 0)
        await eventually_records(b, 1)
        assert (await b.settled()).microcredits == price(Usage(12, 4))


async def test_a_thinking_deployment_holds_its_allowance_and_asks_for_it() -> None:
    go_on = anyio.Event()
    every = {"thinking_tokens": 2048, "vocabulary": "o200k"}
    reply = Reply(thinking=["Hm."], usage=Usage(12, 904), hold=Hold(go_on))
    async with bench(reply, vendor="anthropic", every=every) as b, anyio.create_task_group() as tasks:
        tasks.start_soon(b.ask)
        await eventually(lambda: any(isinstance(event, FirstText) for event in b.told))
        assert (await b.account()).held == held_for(100, thinking_tokens=2048)
        sent = b.upstream.requests[0].json
        assert isinstance(sent, dict)
        assert (sent["max_tokens"], sent["thinking"]["budget_tokens"]) == (2148, 2048)
        go_on.set()
        await eventually_records(b, 1)
        record = await b.settled()
        assert (record.output_tokens, record.microcredits) == (904, price(Usage(12, 904)))


async def test_the_hold_is_the_dearest_case_of_the_route_and_the_charge_is_of_the_deployment_that_served() -> None:
    dear = {"b": {"output_microcredits_per_token": 500}}
    async with bench(Status(401), route="ab", deployments=dear) as b:
        answer = await b.ask(max_tokens=5)
        assert answer.headers["x-gateway-model"] == "b"
        record = await b.settled()
        assert record.microcredits == answer.charged == 12 * RATE_IN + 4 * 500


@pytest.mark.parametrize("left", [1, 7, 99])
async def test_a_near_empty_account_gets_a_smaller_answer(left: int, stream: bool) -> None:
    async with bench(Reply(usage=Usage(12, 1)), credits=held_for(left) + RATE_OUT - 1) as b:
        assert (await b.ask(stream=stream)).status == 200
        assert granted(b) == left
        await b.settled()


@pytest.mark.parametrize("left", [1, 7, 99])
async def test_a_nearly_used_up_budget_gets_a_smaller_answer(left: int, stream: bool) -> None:
    async with bench(plan={"daily_tokens": UPPER + left}) as b:
        assert (await b.ask(stream=stream)).status == 200
        assert granted(b) == left
        await b.settled()


async def test_what_cannot_pay_for_one_token_of_output_is_refused_and_leaves_no_hold(stream: bool) -> None:
    async with bench(credits=held_for(1) - 1) as b:
        answer = await b.ask(stream=stream)
        assert (answer.status, answer.code) == (402, "INSUFFICIENT_CREDITS")
        record = await b.settled()
        assert (record.status, record.ending, record.attempts) == (402, "refused", 0)
    async with bench(plan={"daily_tokens": UPPER}) as b:
        answer = await b.ask(stream=stream)
        assert (answer.status, answer.code) == (429, "BUDGET_EXCEEDED")
        assert "retry-after" not in answer.headers, "not even a whole day's budget could take it"
        record = await b.settled()
        assert (record.status, record.ending, record.attempts) == (429, "refused", 0)
        assert b.upstream.requests == []


async def test_a_request_of_price_0_needs_no_credits(stream: bool) -> None:
    free = {"input_microcredits_per_token": 0, "output_microcredits_per_token": 0}
    async with bench(every=free, credits=0) as b:
        answer = await b.ask(stream=stream)
        assert (answer.status, answer.charged) == (200, 0)
        await b.settled()


def granted(b: Bench) -> int:
    sent = b.upstream.requests[0].json
    assert isinstance(sent, dict)
    return int(sent["max_tokens"])


# -- overruns ----------------------------------------------------------------------------------------------------------


async def test_an_overrun_is_charged_from_what_is_available(vendor: Vendor, stream: bool) -> None:
    async with bench(Reply(usage=Usage(12, 1000)), vendor=vendor) as b:
        answer = await b.ask(stream=stream, max_tokens=10)
        assert answer.usage == (12, 1000)
        assert answer.charged == price(Usage(12, 1000))
        assert (await b.settled()).microcredits == price(Usage(12, 1000))


async def test_what_the_account_cannot_pay_of_an_overrun_is_written_off(stream: bool) -> None:
    async with bench(Reply(usage=Usage(12, 1000)), credits=held_for(10) + 77) as b:
        answer = await b.ask(stream=stream, max_tokens=10)
        assert answer.charged == held_for(10) + 77
        assert answer.last["usage"]["credits_remaining"] == 0
        assert (await b.settled()).microcredits == held_for(10) + 77
        assert (await b.ask()).status == 402


async def test_an_overrun_is_never_paid_out_of_another_requests_hold() -> None:
    go_on = anyio.Event()
    answers = (Reply(hold=Hold(go_on)), Reply(usage=Usage(12, 1000)))
    async with bench(*answers, credits=2 * held_for(10) + 77) as b, anyio.create_task_group() as tasks:

        async def wait() -> None:
            assert (await b.ask(max_tokens=10)).charged == price(Usage(12, 4))

        tasks.start_soon(wait)
        await eventually(lambda: len(b.upstream.requests) == 1)
        assert (await b.ask(max_tokens=10)).charged == held_for(10) + 77
        account = await b.account()
        assert (account.posted, account.held) == (held_for(10), held_for(10))
        go_on.set()
        await eventually_records(b, 2)
        await b.settled(records=2)


# -- the moment of the capture -----------------------------------------------------------------------------------------


async def test_the_capture_is_made_before_the_usage_is_told(vendor: Vendor) -> None:
    async with bench(vendor=vendor) as b:
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            async for chunk in reply.body:
                if b'"usage"' in chunk:
                    assert (await b.settled()).ending == "complete"
        await b.settled()


async def test_the_capture_is_made_before_a_plain_answer_is_built(vendor: Vendor) -> None:
    async with bench(vendor=vendor) as b:
        async with b.open() as reply:
            record = (await b.records())[0]
            assert (record.ending, record.microcredits) == ("complete", price(Usage(12, 4)))
            assert (await read(reply)).charged == price(Usage(12, 4))
        await b.settled()


async def test_once_the_terminal_event_is_read_the_request_is_complete_though_nobody_takes_its_last_bytes(
    vendor: Vendor,
) -> None:
    async with bench(vendor=vendor) as b:
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            async for chunk in reply.body:
                if b'"usage"' in chunk:
                    break
        record = await b.settled()
        assert (record.ending, record.status, record.finish_reason) == ("complete", 200, "end_turn")


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
async def test_an_answer_that_came_in_one_piece_is_complete_though_the_client_leaves_at_its_first_text(
    vendor: Vendor,
) -> None:
    async with bench(Reply(split="whole"), vendor=vendor) as b:
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            assert b"Hello" in await anext(reply.body)
        record = await b.settled()
        assert (record.ending, record.microcredits) == ("complete", price(Usage(12, 4)))
        assert b.failures() == 0


async def test_a_failed_attempt_that_the_client_saw_nothing_of_is_not_charged() -> None:
    async with bench(Break("reset", texts=3), route="ab", limits={"attempts": 2}) as b:
        answer = await b.ask()
        assert (answer.text, answer.headers["x-gateway-model"]) == ("Hello, world!", "b")
        record = await b.settled()
        assert (record.attempts, record.microcredits) == (2, price(Usage(12, 4)))


# -- clients that leave ------------------------------------------------------------------------------------------------

LEAVING = pytest.mark.parametrize(
    ("anyio_backend", "leaving"), [("asyncio", "by scope"), ("asyncio", "natively"), ("trio", "by scope")]
)


async def leave(b: Bench, leaving: str, when: Callable[[], bool], **fields: object) -> None:
    """Ask, and be gone when something holds."""

    async def ask() -> None:
        await b.send(b.request(**fields))

    if leaving == "natively":
        await cancelled_natively(ask, when)
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await eventually(when)
        tasks.cancel_scope.cancel()


def heard(b: Bench, kind: type) -> Callable[[], bool]:
    return lambda: any(isinstance(event, kind) for event in b.told)


@LEAVING
async def test_a_client_that_leaves_before_anything_was_sent_pays_nothing(leaving: str, stream: bool) -> None:
    with port_that_does_not_answer() as url:
        async with bench(every={"base_url": url}) as b:
            await leave(b, leaving, heard(b, AttemptStarted), stream=stream)
            record = await b.settled()
            assert (record.status, record.code, record.ending) == (499, None, "client_gone")
            assert (record.attempts, record.microcredits, record.estimated) == (1, 0, False)
            assert b.failures() == 0


@LEAVING
async def test_a_client_that_leaves_once_the_request_was_sent_pays_for_its_input(
    leaving: str, vendor: Vendor, stream: bool
) -> None:
    async with bench(Break("stall", "head"), vendor=vendor) as b:
        await leave(b, leaving, lambda: len(b.upstream.requests) == 1, stream=stream)
        record = await b.settled()
        assert (record.status, record.code, record.ending) == (499, None, "client_gone")
        assert (record.input_tokens, record.output_tokens, record.estimated) == (expected_input(vendor), 0, True)
        assert record.microcredits == price(Usage(expected_input(vendor), 0))
        assert b.upstream.requests[0].cut
        assert b.failures() == 0


@LEAVING
async def test_a_client_that_leaves_in_mid_stream_pays_for_what_was_produced(
    leaving: str, vendor: Vendor, stream: bool
) -> None:
    async with bench(Reply(hold=Hold(anyio.Event())), vendor=vendor) as b:
        await leave(b, leaving, heard(b, FirstText), stream=stream)
        record = await b.settled()
        assert (record.status, record.code, record.ending) == (200 if stream else 499, None, "client_gone")
        usage = {
            "openai": Usage(expected_input(vendor), expected_output(vendor, "Hello")),
            "anthropic": Usage(12, expected_output(vendor, "Hello")),
            "gemini": Usage(12, 1),
        }[vendor]
        assert (record.input_tokens, record.output_tokens) == (usage.input_tokens, usage.output_tokens)
        assert (record.estimated, record.finish_reason) == (vendor != "gemini", None)
        assert record.microcredits == price(usage)
        assert b.upstream.requests[0].cut
        assert b.failures() == 0


@LEAVING
async def test_a_client_that_leaves_during_the_back_off_pays_nothing(leaving: str, stream: bool) -> None:
    async with bench(default=Status(503, headers={"retry-after": "8"})) as b:
        await leave(b, leaving, heard(b, AttemptEnded), stream=stream)
        record = await b.settled()
        assert (record.status, record.ending, record.attempts) == (499, "client_gone", 1)
        assert (record.microcredits, record.input_tokens, record.estimated) == (0, 0, False)
        assert b.failures() == 1, "the failed attempt counts, the client's leaving does not"


@LEAVING
async def test_a_client_that_leaves_while_the_request_is_settled_changes_nothing(leaving: str, stream: bool) -> None:
    slow = SlowLedger(MemoryStore(), settle_s=0.1)
    async with bench(ledger=slow.over) as b:
        await leave(b, leaving, lambda: slow.settling > 0, stream=stream)
        record = await b.settled()
        assert (record.ending, record.microcredits) == ("complete", price(Usage(12, 4)))


@LEAVING
async def test_a_client_that_leaves_while_the_hold_is_placed_leaves_no_hold(leaving: str, stream: bool) -> None:
    slow = SlowLedger(MemoryStore(), hold_s=5.0)
    async with bench(ledger=slow.over) as b:
        await leave(b, leaving, lambda: slow.placed > 0, stream=stream)
        record = await b.settled()
        assert (record.status, record.ending, record.microcredits) == (499, "client_gone", 0)
        assert b.upstream.requests == []


@LEAVING
async def test_a_client_that_leaves_when_everything_was_read_leaks_no_connection(leaving: str) -> None:
    async with bench() as b:
        for _ in range(4):
            written = anyio.Event()

            async def write_slowly(written: anyio.Event = written) -> None:
                async with b.open() as reply:
                    assert reply.status == 200
                    written.set()
                    await anyio.sleep_forever()

            if leaving == "natively":
                await cancelled_natively(write_slowly, written.is_set)
            else:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(write_slowly)
                    await written.wait()
                    tasks.cancel_scope.cancel()
        assert (await b.ask()).status == 200
        assert b.upstream.open_connections <= 1, "each is pooled for the next, or closed"
        await b.settled(records=5)


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_recorded_once() -> None:
    from floop_gateway_core import ClientDisconnected

    class Torn:
        async def read(self) -> bytes:
            raise ClientDisconnected

    async with bench() as b:
        await b.send(b.raw(Torn()))
        record = await b.settled()
        assert (record.status, record.code, record.ending) == (499, None, "client_gone")


# -- slow clients ------------------------------------------------------------------------------------------------------


async def test_total_s_ends_a_stream_whose_client_is_too_slow(vendor: Vendor) -> None:
    async with bench(Reply(endless=True, delay_s=0.01), vendor=vendor, limits={"total_s": 0.3}) as b:
        began = anyio.current_time()
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            await anext(reply.body)
            await anyio.sleep_forever()
        assert 0.3 <= anyio.current_time() - began < 3
        record = await b.settled()
        assert (record.status, record.ending) == (200, "client_gone")
        assert record.microcredits > 0
        assert b.failures() == 0, "a slow client is not the deployment's failure"


async def test_a_client_that_comes_back_when_total_s_is_over_finds_an_error_and_trips_no_breaker(
    vendor: Vendor,
) -> None:
    async with bench(Reply(hold=Hold(anyio.Event())), vendor=vendor, limits={"total_s": 0.3}) as b:
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            raw = await anext(reply.body)
            await anyio.sleep(0.5)
            async for chunk in reply.body:
                raw += chunk
        answer = Answered(200, {"content-type": "text/event-stream"}, raw)
        assert (answer.text, answer.last["code"]) == ("Hello", "PROVIDER_ERROR")
        await b.settled()
        assert b.failures() == 0, "our own deadline is not the deployment's failure"


async def test_a_client_that_reads_slowly_is_not_taken_for_an_upstream_that_stalls(vendor: Vendor) -> None:
    """The upstream has long sent everything; only the client was busy for longer than `between_events_s`."""
    async with bench(vendor=vendor, limits={"between_events_s": 0.1}) as b:
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            raw = b""
            async for chunk in reply.body:
                raw += chunk
                if chunk.startswith(b'data: {"text"'):
                    await anyio.sleep(0.25)
        answer = Answered(200, {"content-type": "text/event-stream"}, raw)
        assert (answer.text, answer.last["finishReason"]) == ("Hello, world!", "end_turn")
        assert (await b.settled()).ending == "complete"
        assert b.failures() == 0


# -- many at once ------------------------------------------------------------------------------------------------------


async def test_64_at_once_on_an_account_that_affords_a_few_never_overdraw_it(stream: bool) -> None:
    credits = held_for(10) * 5 + 13
    async with bench(default=Reply(delay_s=0.005), credits=credits) as b:
        answers = await all_at_once(b, 64, stream=stream, max_tokens=10)
        assert {answer.status for answer in answers} == {200, 402}
        served = [answer for answer in answers if answer.status == 200]
        assert len(served) >= 5
        assert all("retry-after" in answer.headers for answer in answers if answer.status == 402)
        await b.settled(records=64)
        assert sum(answer.charged for answer in served) == credits - (await b.account()).posted


async def test_64_at_once_on_a_budget_that_holds_a_few_never_exceed_it(stream: bool) -> None:
    budget = (UPPER + 10) * 5 + 3
    async with bench(default=Reply(delay_s=0.005), plan={"daily_tokens": budget}) as b:
        answers = await all_at_once(b, 64, stream=stream, max_tokens=10)
        assert {answer.status for answer in answers} == {200, 429}
        await b.settled(records=64)
        used, held = await b.day()
        assert 0 < used <= budget
        assert held == 0


async def all_at_once(b: Bench, number: int, **fields: object) -> list[Answered]:
    answers: list[Answered] = []

    async def ask() -> None:
        answers.append(await b.send(b.request(**fields)))
        account = await b.account()
        assert 0 <= account.held <= account.posted

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(ask)
    return answers


# -- stores that fail --------------------------------------------------------------------------------------------------


async def test_a_store_that_breaks_in_the_hold_is_our_fault(stream: bool) -> None:
    ledger = SlowLedger(MemoryStore(), fail_hold=RuntimeError("no such table"))
    async with bench(ledger=ledger.over) as b:
        answer = await b.ask(stream=stream)
        assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
        assert "table" not in answer.raw.decode()
        record = await b.settled()
        assert (record.request_id, record.ending) == (answer.headers["x-request-id"], "internal_error")
        assert (record.status, record.code, record.microcredits) == (500, "INTERNAL_ERROR", 0)


async def test_a_store_that_does_not_answer_is_503_for_five_seconds(stream: bool) -> None:
    ledger = SlowLedger(MemoryStore(), fail_hold=StoreUnavailable("locked"))
    async with bench(ledger=ledger.over) as b:
        answer = await b.ask(stream=stream)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "SERVICE_UNAVAILABLE", "5")
        assert answer.headers["x-request-id"]
        await b.gateway.aclose()
        record = await b.settled()
        assert (record.status, record.ending, record.attempts) == (503, "refused", 0)


async def test_a_store_that_does_not_answer_whose_key_it_is_gives_503_and_no_record() -> None:
    class Away(MemoryStore):
        async def authenticate_and_acquire(self, *_: object) -> Any:
            raise StoreUnavailable("away")

    async with bench() as b:
        b.gateway.store.authenticate_and_acquire = Away().authenticate_and_acquire  # type: ignore[method-assign, assignment]
        answer = await b.ask()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "SERVICE_UNAVAILABLE", "5")
        assert answer.headers["x-request-id"]
        assert await b.records() == []


async def test_a_settlement_is_tried_again_until_the_store_answers(stream: bool) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("locked"), StoreUnavailable("locked")])
    async with bench(ledger=ledger.over) as b:
        answer = await b.ask(stream=stream)
        assert (answer.status, answer.text, answer.charged) == (200, "Hello, world!", price(Usage(12, 4)))
        assert (await b.settled()).ending == "complete"


async def test_a_settlement_that_breaks_is_told_as_our_fault(stream: bool) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[RuntimeError("no such table")])
    async with bench(ledger=ledger.over) as b:
        answer = await b.ask(stream=stream)
        if stream:
            assert (answer.status, answer.text) == (200, "Hello, world!")
            assert (answer.last["code"], answer.last["finishReason"]) == ("INTERNAL_ERROR", "error")
        else:
            assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
        assert "table" not in answer.raw.decode()
        assert len(await b.records()) <= 1


async def eventually_records(b: Bench, number: int) -> None:
    with anyio.fail_after(5):
        while len(await b.records()) < number:
            await anyio.sleep(0.005)


async def test_the_costs_are_told_as_exact_decimals(stream: bool) -> None:
    every = {"input_microcredits_per_token": "0.000001", "output_microcredits_per_token": "0.000001"}
    async with bench(every=every, credits=3) as b:
        answer = await b.ask(stream=stream)
        assert b'"credits_used": 0.000001, "credits_remaining": 0.000002' in answer.raw
        await b.settled()


# -- a store that stays away -------------------------------------------------------------------------------------------


def gives_up_soon(b: Bench) -> None:
    """Let a settlement be given up after a moment, and not after half a minute."""
    routing = b.gateway.runtime.routing
    b.gateway.runtime.routing = replace(routing, limits=replace(routing.limits, settle_s=0.1))


@pytest.mark.parametrize("headers", [(), [("Idempotency-Key", "order-1")]], ids=["", "with a key"])
async def test_a_stream_that_cannot_be_settled_in_time_tells_its_usage_and_is_billed_later(
    headers: Sequence[tuple[str, str]],
) -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("locked")] * 1000)
    async with bench(Reply(usage=Usage(12, 4)), ledger=ledger.over) as b:
        gives_up_soon(b)
        request = b.request(stream=True)
        answer = await b.send(replace(request, headers=(*request.headers, *headers)))
        assert ("SERVICE_UNAVAILABLE", 12, 4) == (answer.last["code"], *answer.usage)
        assert 240 == answer.charged
        assert "credits_remaining" not in answer.last["usage"]
        assert [] == await b.records()
        ledger.fail_settle.clear()
        await b.ask(stream=True)
        first, second = await b.records()
        assert (answer.headers["x-request-id"], 240) == (first.request_id, first.microcredits)
        assert ("internal_error", 200, "SERVICE_UNAVAILABLE", "error") == (
            first.ending,
            first.status,
            first.code,
            first.finish_reason,
        )
        assert "complete" == second.ending
        await b.settled(2)


async def test_a_plain_answer_that_cannot_be_settled_is_not_delivered_and_not_charged() -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("locked")] * 1000)
    async with bench(ledger=ledger.over) as b:
        gives_up_soon(b)
        answer = await b.ask()
        assert (503, "SERVICE_UNAVAILABLE", "5") == (answer.status, answer.code, answer.headers["retry-after"])
        ledger.fail_settle.clear()
        await b.gateway.aclose()
        record = await b.settled()
        assert (503, "SERVICE_UNAVAILABLE", "refused", 0) == (
            record.status,
            record.code,
            record.ending,
            record.microcredits,
        )


async def test_a_client_that_left_owes_what_was_produced_until_the_store_takes_it() -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("locked")] * 1000)
    async with bench(Reply(endless=True), ledger=ledger.over) as b:
        gives_up_soon(b)
        with pytest.raises(StoreUnavailable):
            async with b.open(stream=True) as reply:
                assert not isinstance(reply.body, bytes)
                await anext(aiter(reply.body))
        ledger.fail_settle.clear()
        await b.gateway.aclose()
        assert "client_gone" == (record := await b.settled()).ending
        assert record.microcredits > 0


# -- the moment of admission -------------------------------------------------------------------------------------------


async def test_the_day_is_that_of_the_admission_not_of_the_first_byte() -> None:
    """A body that spans midnight is admitted under the new day's budget."""
    clock = FakeClock(10 * 86_400 - 2.0)

    class Body:
        def __init__(self, body: bytes) -> None:
            self.left = [body]

        async def read(self) -> bytes:
            clock.now = 10 * 86_400 + 1.0
            return self.left.pop() if self.left else b""

    async with bench(clock=clock) as b:
        answer = await b.send(b.raw(Body(b'{"messages": [{"role": "user", "content": "Hi"}], "model": "fast"}')))
        assert 200 == answer.status
        (record,) = await b.records()
        assert 10 * 86_400 - 2.0 == record.started_at
        assert (16, 0) == await b.used(10)
        assert (0, 0) == await b.used(9)


async def test_an_owed_settlement_that_breaks_hurts_nobody_else() -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("locked")] * 1000)
    async with bench(ledger=ledger.over) as b:
        gives_up_soon(b)
        await b.ask(stream=True)
        assert 1 == len(b.gateway.runtime.pending_settlements)
        ledger.fail_settle[:] = []
        settle = ledger.settle

        async def broken(settlement: Settlement) -> Settled:
            if settlement is b.gateway.runtime.pending_settlements[0]:
                raise ValueError("this one never can be settled")
            return await settle(settlement)

        ledger.settle = broken  # type: ignore[method-assign]
        answer = await b.ask(stream=True)
        assert (200, "end_turn", 0) == (
            answer.status,
            answer.last["finishReason"],
            len(b.gateway.runtime.pending_settlements),
        )


async def test_a_body_that_takes_longer_than_the_request_may_is_refused_as_a_slow_body() -> None:
    class Never:
        reads = 0

        async def read(self) -> bytes:
            self.reads += 1
            if self.reads == 1:
                await anyio.sleep_forever()
            await anyio.sleep(1.5)  # longer than the request has, and than it is given to end
            return b""

    async with bench(limits={"total_s": 0.2}, settings={"body_s": 60.0}) as b:
        answer = await b.send(b.raw(Never(), headers=(("Content-Length", "9"),)))
        assert (400, "INVALID_BODY") == (answer.status, answer.code)
        record = await b.settled()
        assert (400, "INVALID_BODY", "refused") == (record.status, record.code, record.ending)


async def test_a_clock_that_steps_forward_gives_no_answer_away(stream: bool) -> None:
    clock, go_on = FakeClock(), anyio.Event()
    async with bench(Reply(hold=Hold(go_on)), clock=clock) as b, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(b.ask, stream=stream))
        await b.upstream.until(lambda u: u.streams_open == 1)
        clock.now += 400.0
        assert 200 == (await b.ask()).status  # whose hold sweeps those that have expired
        assert 0 == await b.gateway.admin.expire()
        go_on.set()
        await eventually_records(b, 2)
        records = await b.records()
        assert {"complete"} == {record.ending for record in records}
        assert all(record.microcredits > 0 for record in records)


# -- reasoning that the stream does not show -----------------------------------------------------------------------------


THINKS = {"thinking": "low", "thinking_allowance_tokens": 1_000}


async def left_early(b: Bench) -> UsageRecord:
    """Leave a stream after its first text, and return its record."""
    before = len(await b.records())
    async with b.open(stream=True) as reply:
        assert not isinstance(reply.body, bytes)
        await anext(reply.body)
    return await settled(b, before + 1)


async def settled(b: Bench, number: int = 1) -> UsageRecord:
    """Return the last of so many records once all have been settled."""
    with anyio.fail_after(10):
        while len(found := await b.records()) < number:
            await anyio.sleep(0.01)
    return found[-1]


async def test_leaving_early_does_not_make_hidden_reasoning_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "READ_ON_S", 0.05)
    slow = Reply(["one ", "two"], hold=Hold(anyio.Event(), at="text", texts=1))
    honest = Reply(["one ", "two"], usage=Usage(12, 704, reasoning_tokens=700))
    async with bench(slow, honest, slow, every=THINKS) as b:
        first = await left_early(b)
        assert (500, True) == (first.reasoning_tokens, first.estimated)  # half the allowance: nothing is known yet
        await b.ask()
        then = await left_early(b)
        assert (700, True) == (then.reasoning_tokens, then.estimated)  # what complete answers have taken
        assert "client_gone" == then.ending
        assert then.microcredits > 700 * RATE_OUT


@pytest.mark.parametrize(
    ("usage", "reasoning"),
    [
        (Usage(12, 304, reasoning_tokens=300), 300),
        (Usage(12, 304), 290),  # a vendor that counts thinking as output, without saying how much of it
        (Usage(12, 9), 0),
        (None, 500),
    ],
)
async def test_an_answer_is_read_on_for_its_report_of_hidden_reasoning(usage: Usage | None, reasoning: int) -> None:
    rest = anyio.Event()
    slow = Reply(["one ", *["more text that nobody gets "] * 3], usage=usage, hold=Hold(rest, at="text", texts=1))
    async with bench(slow, every=THINKS) as b:
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            await anext(reply.body)
        assert not await b.records(), "it is settled once the report has come"
        rest.set()
        record = await settled(b)
        assert reasoning - 20 <= record.reasoning_tokens <= reasoning
        assert ("client_gone", True) == (record.ending, record.estimated)
        assert 12 == record.input_tokens or usage is None
        assert 1 <= record.output_tokens - record.reasoning_tokens <= 3, "text that nobody got is not billed"
        assert 0 == (await b.account()).held


async def test_an_answer_whose_head_has_not_come_is_read_on_too() -> None:
    head = anyio.Event()
    late = Reply(["one"], usage=Usage(12, 304, reasoning_tokens=300), hold=Hold(head, at="head"))
    async with bench(late, every=THINKS) as b:
        with anyio.move_on_after(0.2):
            async with b.open(stream=True):
                pytest.fail("nothing has come")
        head.set()
        record = await settled(b)
        assert (300, "client_gone", 12) == (record.reasoning_tokens, record.ending, record.input_tokens)
        assert 300 == record.output_tokens


async def test_an_attempt_that_fails_behind_a_client_that_left_is_free() -> None:
    head = anyio.Event()
    async with bench(Status(500, hold=Hold(head, at="head")), every=THINKS) as b:
        with anyio.move_on_after(0.2):
            async with b.open(stream=True):
                pytest.fail("nothing has come")
        head.set()
        record = await settled(b)
        assert (0, 0, "client_gone") == (record.microcredits, record.output_tokens, record.ending)
        assert 0 == (await b.account()).held


async def test_a_call_that_turns_thinking_off_or_down_is_not_charged_for_more() -> None:
    slow = Reply(["one ", "two"], hold=Hold(anyio.Event(), at="text", texts=1))
    async with bench(slow, slow, every={"thinking": "high", "thinking_allowance_tokens": 10_000}) as b:
        for effort, most in (("none", 0), ("minimal", 1_024)):
            before = len(await b.records())
            stream = b.gateway.stream(b.key, [{"role": "user", "content": "hi"}], model="fast", reasoning_effort=effort)
            async with stream as answer:
                await anext(aiter(answer))
            record = await settled(b, before + 1)
            assert most == record.reasoning_tokens


async def test_closing_the_gateway_ends_what_is_read_on() -> None:
    slow = Reply(["one ", "two"], hold=Hold(anyio.Event(), at="text", texts=1))
    async with bench(slow, every=THINKS) as b:
        async with b.open(stream=True) as reply:
            assert not isinstance(reply.body, bytes)
            await anext(reply.body)
        began = anyio.current_time()
        await b.gateway.runtime.tasks.aclose(0.01)
        assert anyio.current_time() - began < 3
        assert (500, "client_gone") == ((await b.records())[-1].reasoning_tokens, (await b.records())[-1].ending)


async def test_thinking_that_was_shown_is_counted_as_it_came() -> None:
    slow = Reply(["one ", "two"], thinking=["hm"], hold=Hold(anyio.Event(), at="text", texts=1))
    async with bench(slow, every=THINKS) as b:
        assert 0 == (await left_early(b)).reasoning_tokens


async def test_a_deployment_that_does_not_think_charges_no_reasoning() -> None:
    slow = Reply(["one ", "two"], hold=Hold(anyio.Event(), at="text", texts=1))
    async with bench(slow) as b:
        record = await left_early(b)
        assert (0, True) == (record.reasoning_tokens, record.output_tokens < 5)
