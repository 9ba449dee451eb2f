"""A dialect, a provider or a store of somebody else's each take one new file, and no edit of the engine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest

from floop_gateway_core import (
    ConfigError,
    Gateway,
    GatewayRequest,
    ProviderSpec,
    Refusal,
    Settings,
    Store,
    UnauthorizedError,
    register_provider,
)
from floop_gateway_core.dialects.base import About, Operation
from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.ledger import Account, Hold
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.providers.base import Provider
from floop_gateway_core.providers.echo import EchoProvider
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.registry import Place
from floop_gateway_core.stores.base import HoldRequest, KeyAdmitted, Settled, Settlement
from floop_gateway_core.types import (
    Bill,
    Call,
    Completed,
    FinishReason,
    Message,
    Microcredits,
    Piece,
    Project,
    ProjectId,
    ProjectSettings,
    RequestId,
    Started,
    UsageRecord,
)
from floop_gateway_core.types.amounts import ZERO_CREDITS
from floop_gateway_core.wire import keys
from floop_gateway_core.wire.messages import Headers

pytestmark = pytest.mark.anyio


class Lines:
    """A dialect of plain text: the prompt is the body, the key is a header of its own, a stream is one line a text."""

    name = "lines"
    routes: Mapping[str, Mapping[str, Operation]] = {
        "/lines": {"POST": Operation("generate"), "GET": Operation("generate", "reply")}
    }

    def key(self, request: GatewayRequest) -> str | None:
        return next(iter(request.header("x-key")), None)

    def parse(self, operation: Operation, body: bytes) -> Call | Refusal:
        return Call(
            operation.endpoint, (Message.of("user", body.decode()),), alias="fast", stream=body.startswith(b"s")
        )

    def renderer(self, call: Call, request_id: RequestId, answer_id: RequestId) -> "_Renderer":
        return _Renderer()

    def reply(self, operation: Operation, request: GatewayRequest, about: About) -> tuple[Headers, bytes] | Refusal:
        return (("Content-Type", "application/json"),), json.dumps(request.query).encode()

    def error(self, refusal: Refusal, request_id: RequestId) -> tuple[Headers, bytes]:
        return (("Content-Type", "text/plain"),), f"{refusal.code}\n".encode()


class _Renderer:
    def headers(self, started: Started | None) -> Headers:
        return (("Content-Type", "text/plain"),)

    def start(self, started: Started) -> bytes:
        return f"# {started.deployment}\n".encode()

    def texts(self, texts: Sequence[str]) -> bytes:
        return "".join(f"{text}\n" for text in texts).encode()

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b"\n"

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        return f"= {bill.usage.output_tokens}\n".encode()

    def failed(self, refusal: Refusal, bill: Bill) -> bytes:
        return f"! {refusal.code}\n".encode()

    def whole(self, items: Sequence[str | Piece], completed: Completed) -> bytes:
        return "".join(one for one in items if isinstance(one, str)).encode()


async def ask(gateway: Gateway, key: str, body: bytes, method: str = "POST", query: str = "") -> tuple[int, bytes]:
    request = GatewayRequest(method, "/lines", [("X-Key", key)], body, query)
    async with gateway.open(request) as reply:
        if isinstance(reply.body, bytes):
            return reply.status, reply.body
        return reply.status, b"".join([chunk async for chunk in reply.body])


async def test_a_second_dialect_is_one_value() -> None:
    async with Gateway(Settings(store="memory://"), dialects=[Lines()]) as gateway:
        new = await gateway.admin.create_project("shop", credits="100")
        assert (200, b"one two") == await ask(gateway, new.key, b"one two")
        assert (200, b"# echo\nso \nit\n= 2\n") == await ask(gateway, new.key, b"so it")
        assert (200, b'"a=1"') == await ask(gateway, new.key, b"", "GET", "a=1")
        assert (405, b"METHOD_NOT_ALLOWED\n") == await ask(gateway, new.key, b"", "PUT")
        assert (401, b"UNAUTHORIZED\n") == await ask(gateway, "flp_sk_" + "x" * 33, b"one")
        # What needs no call leaves no hold behind.
        assert 0 == (await gateway.admin.status("shop")).account.held


async def test_two_dialects_cannot_claim_one_path() -> None:
    with pytest.raises(ValueError, match="two dialects claim /lines"):
        Gateway(Settings(store="memory://"), dialects=[Lines(), Lines()])


def parrot(options: Options, _: Place) -> Provider:
    """Make a provider from a table of options that only it knows."""
    if options.options.keys() != {"language"}:
        raise ValueError("options must name a language")
    return EchoProvider()


PARROT = ProviderSpec("test-parrot", parrot, vocabulary="claude", needs_model=False)
register_provider(PARROT)


def parrots(**options: object) -> Settings:
    deployment = {"provider": "test-parrot", "microcredits_per_token": 1, "options": options}
    routes = {alias: ["polly"] for alias in ("fast", "smart", "reason")}
    value = {"store": "memory://", "deployments": {"polly": deployment}, "routes": routes}
    return Settings.read(value, source="gateway.toml")


async def test_a_deployment_can_name_a_provider_that_was_registered() -> None:
    async with Gateway(parrots(language="en")) as gateway:
        new = await gateway.admin.create_project("shop", credits="100")
        answer = await gateway.generate(new.key, "one two")
        assert ("one two", "polly") == (answer.content, answer.deployment)
    with pytest.raises(ConfigError, match=r"deployments\.polly: options must name a language"):
        Gateway(parrots())


def test_a_providers_name_is_taken_once() -> None:
    register_provider(PARROT)
    with pytest.raises(ValueError, match="'echo' is already registered"):
        register_provider(ProviderSpec("echo", parrot))


def test_a_provider_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"provider is 'cohere'; allowed are openai, anthropic, gemini, echo"):
        Settings.read({**parrots().model_dump(), "deployments": {"c": {"provider": "cohere"}}}, source="gateway.toml")


class Scripts:
    """A store that answers each of a request's three round trips from one function, as a script of a server would."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.records: list[UsageRecord] = []
        self.digest = keys.digest(KEY)
        self.project = Project(ProjectId("prj_1"), "shop", "olga", ProjectSettings(), keys.short(KEY), 0.0, 0.0)

    async def authenticate_and_acquire(self, digest: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        self.asked.append("key and rate")
        decision = RateDecision(True, limits["default"], 9, 0, 60)
        return KeyAdmitted(self.project, decision) if digest == self.digest else None

    async def hold(self, request: HoldRequest) -> Held | HoldRefused:
        self.asked.append("holds")
        return Held(request.estimate.output_tokens, 0, ZERO_CREDITS)

    async def settle(self, settlement: Settlement) -> Settled:
        self.asked.append("settlement")
        charged = settlement.charge or ZERO_CREDITS
        self.records.append(replace(settlement.record, microcredits=charged))
        return Settled(Hold(charged, "captured", charged), Account(Microcredits(1_000)))


KEY = "flp_sk_" + "k" * 33


async def test_a_store_can_answer_each_round_trip_from_one_function() -> None:
    store = Scripts()
    async with Gateway(Settings(store="memory://"), store=cast(Store, store)) as gateway:
        answer = await gateway.generate(KEY, "one two")
        assert ("one two", 5_000, 1_000) == (answer.content, answer.bill.credits_used, answer.bill.credits_remaining)
        assert ["key and rate", "holds", "settlement"] == store.asked
        with pytest.raises(UnauthorizedError):
            await gateway.generate("flp_sk_" + "x" * 33, "one two")
    assert ["complete"] == [record.ending for record in store.records]
