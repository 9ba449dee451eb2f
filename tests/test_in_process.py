"""Calls within the process: the same policy, the same record, refusals as exceptions; and the synchronous twin."""

from typing import Any

import anyio
import pytest

from floop_gateway_core import (
    Answer,
    Bridge,
    BudgetExceededError,
    Completed,
    ErrorCode,
    Gateway,
    GatewayError,
    InsufficientCreditsError,
    InvalidRequestError,
    MemoryStore,
    Message,
    Operator,
    ProviderError,
    RateLimitedError,
    Settings,
    Started,
    Texts,
    UnauthorizedError,
    UnavailableError,
    estimate_tokens,
)
from floop_gateway_core.policy.tokens import tables as _tokens
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.testing import Break, Reply, Status
from tests.engine.kit import Bench, SlowLedger, bench, eventually
from tests.engine.test_billing import gives_up_soon
from tests.serving import gateway_of, held, records

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_back_off")]

HI = [Message.of("user", "Hi")]


async def test_a_chat_is_answered_billed_and_logged_as_one_over_http() -> None:
    async with bench() as b:
        http = await b.ask(model="fast")
        answer = await b.gateway.chat(b.key, [{"role": "user", "content": "Hi"}], model="fast", max_tokens=50)
        assert ("Hello, world!", "fast", "a", "end_turn") == (
            answer.content,
            answer.model,
            answer.deployment,
            answer.finish_reason,
        )
        assert http.charged == answer.bill.credits_used
        assert 50 == b.upstream.requests[-1].json["max_tokens"]  # type: ignore[index]
        record = await b.settled(2)
        assert (answer.request_id, "chat", 200, "complete", False) == (
            record.request_id,
            record.endpoint,
            record.status,
            record.ending,
            record.streamed,
        )


async def test_a_prompt_is_generated_and_a_system_text_is_sent() -> None:
    async with bench() as b:
        answer = await b.gateway.generate(b.key, "Hi", system="Be brief.", model="fast", temperature=0)
        assert "Hello, world!" == answer.content
        sent = b.upstream.requests[-1].json
        assert isinstance(sent, dict)
        assert [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}] == sent["messages"]
        assert "generate" == (await b.settled()).endpoint


async def test_a_stream_gives_texts_and_last_the_bill() -> None:
    async with bench() as b:
        async with b.gateway.stream(b.key, HI, model="fast") as answer:
            events = [event async for event in answer.events()]
        assert isinstance(events[0], Started)
        assert ("a", answer.bill) == (answer.deployment, events[-1].bill)  # type: ignore[union-attr]
        texts = [text for event in events if isinstance(event, Texts) for text in event.texts]
        assert ["Hello", ", ", "world", "!"] == texts
        assert isinstance(events[-1], Completed)
        record = await b.settled()
        assert (events[-1].bill.credits_used, True) == (record.microcredits, record.streamed)


async def raised(b: Bench, key: str | None = None, **fields: object) -> GatewayError:
    """Ask in both ways; both are refused alike."""
    found = []
    call = {"messages": HI, "model": "fast", **fields}
    with pytest.raises(GatewayError) as caught:
        await b.gateway.chat(b.key if key is None else key, **call)  # type: ignore[arg-type]
    found.append(caught.value)
    with pytest.raises(GatewayError) as caught:
        async with b.gateway.stream(b.key if key is None else key, **call) as answer:  # type: ignore[arg-type]
            async for _ in answer:
                raise AssertionError("nothing may come")
    found.append(caught.value)
    assert len({(type(one), one.code) for one in found}) == 1
    return found[0]


@pytest.mark.parametrize(
    ("fields", "code", "path"),
    [
        ({"messages": []}, ErrorCode.VALIDATION_ERROR, "messages"),
        ({"messages": [Message.of("assistant", "Hm")]}, ErrorCode.VALIDATION_ERROR, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, ErrorCode.VALIDATION_ERROR, "messages[0].role"),
        ({"messages": "Hi"}, ErrorCode.VALIDATION_ERROR, "messages"),
        ({"temperature": True}, ErrorCode.VALIDATION_ERROR, "temperature"),
        ({"max_tokens": 0}, ErrorCode.VALIDATION_ERROR, "max_tokens"),
        ({"messages": [Message.of("user", "\ud800")]}, ErrorCode.INVALID_BODY, None),
        ({"model": "nope"}, ErrorCode.INVALID_MODEL, None),
        ({"messages": [Message.of("user", "word " * 200_000)]}, ErrorCode.INPUT_TOO_LARGE, None),
    ],
)
async def test_bad_arguments_are_refused_with_their_code_and_recorded(
    fields: dict[str, Any], code: ErrorCode, path: str | None
) -> None:
    async with bench() as b:
        error = await raised(b, **fields)
        assert (InvalidRequestError, code) == (type(error), error.code)
        assert path == (error.fields[0].path if error.fields else None)
        assert "refused" == (await b.settled(2)).ending


async def test_each_limit_is_an_exception_of_its_own() -> None:
    async with bench(plan={"requests_per_minute": 2}) as b:
        await b.gateway.chat(b.key, HI, model="fast")
        assert UnauthorizedError is type(await raised(b, key="flp_sk_" + "x" * 33))
        await b.gateway.chat(b.key, HI, model="fast")
        error = await raised(b)
        assert RateLimitedError is type(error)
        assert 1 <= (error.retry_after_s or 0) <= 60
        assert "flp_sk_" not in str(error)
    async with bench(plan={"daily_tokens": 5}) as b:
        assert BudgetExceededError is type(await raised(b))
    async with bench(credits=10) as b:
        assert InsufficientCreditsError is type(await raised(b))
    async with bench(default=Status(500)) as b:
        assert ProviderError is type(await raised(b))
        assert "upstream_error" == (await b.settled(2)).ending
    async with bench(ledger=SlowLedger(MemoryStore(), fail_hold=StoreUnavailable("away")).over) as b:
        assert (UnavailableError, 5) == (type(error := await raised(b)), error.retry_after_s)


async def test_a_stream_that_breaks_raises_and_tells_what_it_cost() -> None:
    async with bench(Break("reset", at="text")) as b:
        texts: list[str] = []
        with pytest.raises(ProviderError) as caught:
            async with b.gateway.stream(b.key, HI, model="fast") as answer:
                async for text in answer:
                    texts.append(text)
        assert ["Hello"] == texts
        record = await b.settled()
        assert ("upstream_error", record.microcredits) == (record.ending, caught.value.credits_used)
        assert caught.value.credits_used > 0


async def test_a_stream_that_cannot_be_settled_tells_what_it_will_cost() -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("away")] * 1000)
    async with bench(ledger=ledger.over) as b:
        gives_up_soon(b)
        with pytest.raises(UnavailableError) as caught:
            async with b.gateway.stream(b.key, HI, model="fast") as answer:
                async for _ in answer:
                    pass
        ledger.fail_settle.clear()
        await b.gateway.aclose()
        assert 0 < caught.value.credits_used == (await b.settled()).microcredits


async def test_a_store_that_breaks_leaves_one_record() -> None:
    async with bench(ledger=SlowLedger(MemoryStore(), fail_hold=ValueError("broken")).over) as b:
        with pytest.raises(ValueError, match="broken"):
            await b.gateway.chat(b.key, HI, model="fast")
        assert ("internal_error", 500) == ((record := await b.settled()).ending, record.status)


async def test_who_leaves_a_stream_early_settles_it_and_stops_the_upstream() -> None:
    async with bench(Reply(endless=True)) as b:
        async with b.gateway.stream(b.key, HI, model="fast") as answer:
            async for _ in answer:
                break
        assert answer.bill is not None
        assert answer.bill.credits_used > 0
        record = await b.settled()
        assert ("client_gone", 200) == (record.ending, record.status)
        await eventually(lambda: b.upstream.open_connections == 0)


async def test_a_chat_that_is_cancelled_is_settled() -> None:
    async with bench(Break("stall", at="body")) as b:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(b.gateway.chat, b.key, HI)
                await b.upstream.until(lambda u: u.streams_open == 1)
                scope.cancel()
        assert "client_gone" == (await b.settled()).ending


def test_synchronous_code_has_the_same_three_calls() -> None:
    gateway, key = gateway_of()
    bridge = Bridge(gateway)
    answer = bridge.chat(key, [Message.of("user", "one two")], model="fast")
    assert isinstance(answer, Answer)
    assert ("one two", 2) == (answer.content, answer.bill.usage.output_tokens)
    assert "three" == bridge.generate(key, "three").content
    with bridge.stream(key, [{"role": "user", "content": "one two"}], max_tokens=1) as stream:
        assert ["one "] == list(stream)
    assert "max_tokens" == stream.finish_reason
    assert stream.bill is not None
    with pytest.raises(InvalidRequestError):
        bridge.generate(key, "")
    assert ["complete", "complete", "complete", "refused"] == [record.ending for record in records(gateway)]


def test_synchronous_code_administers_as_an_operator() -> None:
    gateway, _ = gateway_of()
    admin = Bridge(gateway).admin.acting(Operator("olga"))
    assert admin.create_project("q", credits="1").project.name == "q"
    assert admin.grant("project:q", "2").entry.by == "olga"
    for name in ("_post", "operator"):
        with pytest.raises(AttributeError, match="no coroutine method"):
            getattr(admin, name)


def test_a_repeated_call_of_synchronous_code_is_charged_once() -> None:
    gateway, key = gateway_of()
    bridge = Bridge(gateway)
    first, again = (bridge.generate(key, "one two", idempotency_key="order-1") for _ in range(2))
    assert first.content == again.content
    assert first.bill == again.bill
    with bridge.stream(key, HI, idempotency_key="order-2") as stream:
        assert stream.request_id is not None
        assert "".join(stream) == "Hi"
    assert ["complete", "replayed", "complete"] == [record.ending for record in records(gateway)]


def test_a_synchronous_stream_that_is_left_early_is_settled() -> None:
    gateway, key = gateway_of()
    with Bridge(gateway).stream(key, [Message.of("user", "word " * 10_000)]) as stream:
        for _ in stream:
            break
    assert ["client_gone"] == [record.ending for record in records(gateway)]
    assert 0 == held(gateway)


def test_a_gateway_of_ones_own_settings_needs_no_server() -> None:
    async def ask() -> str:
        async with Gateway(Settings(store="memory://")) as gateway:
            new = await gateway.admin.create_project("shop", credits="1000")
            return (await gateway.chat(new.key, [Message.of("user", "Good morning")])).content

    assert "Good morning" == anyio.run(ask)


async def test_a_started_gateway_has_read_the_tables_that_its_first_request_needs() -> None:
    _tokens.load_costs.cache_clear()
    async with Gateway(Settings(store="memory://")) as gateway:
        read = _tokens.load_costs.cache_info().currsize
        vocabularies = {deployment.vocabulary for deployment in gateway.runtime.routing.deployments.values()}
        for name in vocabularies:
            estimate_tokens("Hello", name)
        assert read == _tokens.load_costs.cache_info().currsize == len(vocabularies)


async def test_a_stream_is_read_inside_its_context() -> None:
    async with Gateway(Settings(store="memory://")) as gateway:
        key = (await gateway.admin.create_project("p", credits="1")).key
        stream = gateway.stream(key, [Message.of("user", "Hi")])
        with pytest.raises(RuntimeError, match="use the stream in a context"):
            await stream.next_event()
        assert ("auto", None, None) == (stream.model, stream.finish_reason, stream.deployment)
