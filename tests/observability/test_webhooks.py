"""Signed webhooks: what is sent, that a verifier of the standard takes it, and what happens if nobody does."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import anyio
import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from floop_gateway_core import GatewayError
from floop_gateway_core.observability import BreakerStateChanged, BudgetNearlyUsed, GatewayEvent, webhooks
from floop_gateway_core.observability.webhooks import Webhooks
from floop_gateway_core.testing import Answer, Reply, ScriptedUpstream, Status, scripted_gateway
from floop_gateway_core.types import RequestId, Usage

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
OPENED = BreakerStateChanged("main", "open", RequestId("req_1"))


class Receiver:
    """Takes webhooks, or answers with the statuses of its script first."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[httpx.Request] = []
        self._statuses = list(statuses)
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self._statuses.pop(0) if self._statuses else 204
        if status == 0:
            raise httpx.ConnectError("nobody there")
        return httpx.Response(status, headers={"Location": "https://elsewhere.example/"})

    async def received(self, count: int) -> list[dict[str, Any]]:
        with anyio.fail_after(10):
            while len(self.requests) < count:
                await anyio.sleep(0.005)
        return [json.loads(one.content) for one in self.requests]

    def hooks(self, secret: str | Sequence[str] = SECRET, **options: Any) -> Webhooks:
        return Webhooks("https://example.com/hook", secret, client=self.client, **options)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "RETRY_AFTER_S", (0.01, 0.01))


async def test_a_project_that_passes_80_percent_of_its_day_is_told_once() -> None:
    receiver = Receiver()
    plan = {"plans": {"default": {"requests_per_minute": 100, "daily_tokens": 1000, "output_tokens": 10}}}
    reply = Reply(usage=Usage(190, 10))
    listeners = [receiver.hooks()]
    async with scripted_gateway(*[reply] * 5, settings=plan, listeners=listeners) as scripted:
        for _ in range(5):
            await scripted.gateway.generate(scripted.key, "Hi")
        (told,) = await receiver.received(1)
        with pytest.raises(GatewayError):
            await scripted.gateway.generate(scripted.key, "Hi")
    assert 1 == len(receiver.requests)
    assert "budget_80_percent" == told["type"]
    assert ("shop", 800, 1000) == tuple(told["data"][name] for name in ("project", "used_tokens", "daily_tokens"))
    assert told["timestamp"].startswith(told["data"]["day"])
    assert "Hi" not in receiver.requests[0].content.decode()


@pytest.mark.usefixtures("short_back_off")
async def test_a_breaker_that_opens_is_told() -> None:
    receiver = Receiver()
    answers: list[Answer] = [Status(500)] * 3
    settings = {"upstream": {"attempts": 3, "breaker_failures": 3}}
    async with scripted_gateway(*answers, settings=settings, listeners=[receiver.hooks()]) as scripted:
        with pytest.raises(GatewayError) as refused:
            await scripted.gateway.generate(scripted.key, "Hi")
        (told,) = await receiver.received(1)
    assert "breaker_opened" == told["type"]
    assert {"deployment": "scripted", "request_id": refused.value.request_id} == told["data"]


async def test_a_verifier_of_the_standard_takes_what_is_sent() -> None:
    receiver = Receiver()
    receiver.hooks([SECRET, OTHER])(OPENED)
    await receiver.received(1)
    (request,) = receiver.requests
    for secret in (SECRET, OTHER):
        verified: Any = Webhook(secret).verify(request.content, dict(request.headers))
        assert "breaker_opened" == verified["type"]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.content.replace(b"main", b"mine"), dict(request.headers))


async def test_it_goes_over_a_real_connection() -> None:
    async with ScriptedUpstream(Status(200)) as upstream:
        Webhooks(upstream.url, SECRET)(OPENED)
        with anyio.fail_after(10):
            while not upstream.requests:
                await anyio.sleep(0.005)
        received = upstream.requests[0]
    Webhook(SECRET).verify(received.body, dict(received.headers))


async def test_what_is_not_taken_is_sent_again_under_the_same_id(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(0, 302)
    receiver.hooks()(OPENED)
    await receiver.received(3)
    assert 1 == len({one.headers["webhook-id"] for one in receiver.requests})
    assert {"example.com"} == {one.url.host for one in receiver.requests}
    for request in receiver.requests:
        Webhook(SECRET).verify(request.content, dict(request.headers))
    said = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert [True, True] == ["failed: ConnectError" in said[0], "failed: 302" in said[1]]


@pytest.mark.parametrize(("statuses", "tries"), [([500] * 9, 3), ([410], 1)])
async def test_it_gives_up_and_says_so(statuses: list[int], tries: int, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(*statuses)
    receiver.hooks()(OPENED)
    with anyio.fail_after(10):
        while not any(one.levelname == "ERROR" for one in caplog.records):
            await anyio.sleep(0.005)
    assert tries == len(receiver.requests)


async def test_only_what_is_wanted_is_sent_and_only_so_much_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "MAX_UNDER_WAY", 1)
    receiver = Receiver()
    hooks = receiver.hooks(events=["breaker_opened"])
    ignored: list[GatewayEvent] = [
        BudgetNearlyUsed(RequestId("req_1"), "shop", 1, 80, 100),
        BreakerStateChanged("main", "closed", RequestId("req_1")),
    ]
    for event in (*ignored, OPENED, OPENED):
        hooks(event)
    await receiver.received(1)
    await anyio.sleep(0.05)
    assert 1 == len(receiver.requests)
    assert "dropped" in caplog.text


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), "whsec_!", []])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str | list[str]) -> None:
    with pytest.raises(ValueError, match="secret must be") as refused:
        Webhooks("https://example.com/", secret)
    assert "c2hvcnQ" not in str(refused.value)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="url"):
        Webhooks("example.com", SECRET)
    with pytest.raises(ValueError, match="events must be of budget_80_percent, breaker_opened, got x"):
        Webhooks("https://example.com", SECRET, events=["x"])  # type: ignore[list-item]
