"""Listeners only listen: what they raise is logged, and headers that they add reach the upstream. What they are told of."""

from collections.abc import Mapping

import pytest

from floop_gateway_core import Gateway, GatewayError, MemoryStore, Settings, StoreUnavailable
from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.observability import (
    BudgetNearlyUsed,
    GatewayEvent,
    Listener,
    PendingSettlements,
    Refused,
    RequestStarted,
    Settled,
)
from floop_gateway_core.testing import Reply, scripted_gateway
from floop_gateway_core.types import Call, RequestId, Usage
from tests.engine.kit import SlowLedger, bench
from tests.engine.test_billing import gives_up_soon

pytestmark = pytest.mark.anyio


class Traces:
    def __init__(self, headers: Mapping[str, str] | None) -> None:
        self.seen: list[GatewayEvent] = []
        self.headers = headers

    def __call__(self, event: GatewayEvent) -> None:
        self.seen.append(event)

    def upstream_headers(self, request_id: RequestId, attempt: int) -> Mapping[str, str]:
        if self.headers is None:
            raise ValueError("no trace")
        return {**self.headers, "x-attempt": f"{attempt}"}


async def fails_later(event: GatewayEvent) -> None:
    raise RuntimeError("later")


def fails(event: GatewayEvent) -> None:
    raise RuntimeError("now")


async def test_what_a_listener_raises_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces(None)
    listeners: list[Listener] = [fails, fails_later, traces]
    async with scripted_gateway(listeners=listeners) as scripted:
        assert "Hello, world!" == (await scripted.gateway.generate(scripted.key, "Hi")).content
    assert isinstance(traces.seen[0], RequestStarted)
    assert isinstance(traces.seen[-1], Settled)
    said = {record.getMessage() for record in caplog.records if record.levelname == "ERROR"}
    assert {"a listener failed on Settled", "an async listener failed", "a listener's upstream_headers failed"} <= said


async def test_a_listeners_headers_go_to_the_upstream() -> None:
    listeners = [Traces({"traceparent": "00-1-2-01"})]
    async with scripted_gateway(listeners=listeners) as scripted:
        await scripted.gateway.generate(scripted.key, "Hi")
        headers = scripted.upstream.requests[0].headers
        assert ("00-1-2-01", "1") == (headers["traceparent"], headers["x-attempt"])


async def test_a_hook_of_the_configuration_is_a_listener_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[GatewayEvent] = []
    monkeypatch.setattr("floop_gateway_core.testing.seen", seen.append, raising=False)
    settings = Settings.read(
        {"store": "memory://", "hooks": {"lifecycle": "floop_gateway_core.testing:seen"}}, source="test"
    )
    async with Gateway(settings) as gateway:
        key = (await gateway.admin.create_project("p", credits="1")).key
        await gateway.generate(key, "Hi")
    assert isinstance(seen[-1], Settled)


async def test_settlements_that_wait_are_told_until_the_store_takes_them() -> None:
    ledger = SlowLedger(MemoryStore(), fail_settle=[StoreUnavailable("locked")] * 1000)
    async with bench(ledger=ledger.over) as b:
        gives_up_soon(b)
        assert 503 == (await b.ask()).status
        assert 503 == (await b.ask()).status
        assert [Refused, Refused] == [type(one) for one in b.told if isinstance(one, Refused)]
        ledger.fail_settle.clear()
        await b.gateway.aclose()
        assert [1, 2, 1, 0] == [one.count for one in b.told if isinstance(one, PendingSettlements)]
        assert 2 == sum(isinstance(one, Settled) for one in b.told)


async def test_requests_without_a_record_of_their_own_are_told_as_refusals_alone() -> None:
    told: list[GatewayEvent] = []
    plan = {"plans": {"default": {"requests_per_minute": 1, "daily_tokens": 1000}}}
    async with scripted_gateway(settings=plan, listeners=[told.append]) as scripted:
        for _ in range(13):
            with pytest.raises(GatewayError):
                await scripted.gateway.generate("flp_sk_unknown", "Hi")
            with pytest.raises(GatewayError):
                await scripted.gateway.generate(scripted.key, "")
        refused = [one for one in told if isinstance(one, Refused)]
        started = {one.request_id for one in told if isinstance(one, RequestStarted)}
        log = [record async for record in scripted.gateway.usage()]
    codes = [one.code for one in refused]
    assert (13, 12) == (codes.count(ErrorCode.UNAUTHORIZED), codes.count(ErrorCode.RATE_LIMITED))
    assert 12 == sum(one.repeats for one in log if one.code is ErrorCode.RATE_LIMITED)
    assert 11 == len(started)


async def test_the_settlement_that_crosses_80_percent_is_told() -> None:
    told: list[GatewayEvent] = []
    plan = {"plans": {"default": {"requests_per_minute": 100, "daily_tokens": 1000, "output_tokens": 10}}}
    replies = [Reply(usage=Usage(390, 10))] * 2
    async with scripted_gateway(*replies, settings=plan, listeners=[told.append]) as scripted:
        for _ in replies:
            await scripted.gateway.generate(scripted.key, "Hi")
    (crossed,) = [one for one in told if isinstance(one, BudgetNearlyUsed)]
    assert ("shop", 800, 1000) == (crossed.project, crossed.used_tokens, crossed.daily_tokens)
    assert crossed is told[-2]


class Curious(Traces):
    wants_content = True

    def __init__(self) -> None:
        super().__init__({})
        self.heard: list[tuple[str, str]] = []

    def content(self, request_id: RequestId, call: Call, answer: str) -> None:
        if call.messages[0].text == "fail":
            raise RuntimeError("no content")
        self.heard.append((call.messages[0].text, answer))


async def test_content_is_told_to_those_who_want_it_without_thinking(caplog: pytest.LogCaptureFixture) -> None:
    curious, other = Curious(), Traces({})
    reply = Reply(texts=["Hello"], thinking=["Hmm"])
    async with scripted_gateway(reply, reply, vendor="anthropic", listeners=[curious, other]) as scripted:
        await scripted.gateway.generate(scripted.key, "Hi")
        await scripted.gateway.generate(scripted.key, "fail")
    assert [("Hi", "Hello")] == curious.heard
    assert other.seen == curious.seen
    assert "a listener's content failed" in caplog.text
