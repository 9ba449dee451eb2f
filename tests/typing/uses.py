"""Typed uses of the public API, checked by mypy and pyright and never run: a host's code must type-check as it stands."""

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, assert_type

import httpx
from flask import Flask
from starlette.applications import Starlette

from floop_gateway_asgi import FloopGateway, FloopGatewayMiddleware
from floop_gateway_core import (
    AdminError,
    Answer,
    Bill,
    Bridge,
    Classification,
    Completed,
    Failed,
    Gateway,
    GatewayError,
    GatewayRequest,
    MemoryStore,
    Message,
    Microcredits,
    NewKey,
    Project,
    ProviderSpec,
    RateDecision,
    RateLimiter,
    RequestLimiter,
    ServerSentEvent,
    Settings,
    SQLiteStore,
    SSEDecoder,
    Started,
    Store,
    TextPart,
    Texts,
    TokenEstimate,
    UsageRecord,
    classify,
    estimate_tokens,
    register_provider,
)
from floop_gateway_core.observability import GatewayEvent, Listener, Settled
from floop_gateway_core.providers.base import Codec, Provider
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.registry import Place
from floop_gateway_core.types import Piece, Pieces
from floop_gateway_flask import FloopGateway as FlaskGateway


async def calls(gateway: Gateway, key: str) -> None:
    answer = await gateway.chat(key, [{"role": "user", "content": "Hi"}], model="fast", max_tokens=5)
    assert_type(answer, Answer)
    assert_type(answer.content, str)
    assert_type(answer.bill, Bill)
    await gateway.generate(key, "Hi", temperature=0.5)
    async with gateway.stream(key, [Message.of("user", "Hi"), Message("assistant", (TextPart("a"),))]) as texts:
        async for text in texts:
            assert_type(text, str)
    async with gateway.stream(key, [Message.of("user", "Hi")]) as events:
        async for event in events.events():
            match event:
                case Started():
                    assert_type(event.deployment, str)
                case Texts():
                    assert_type(event.texts, Sequence[str])
                case Pieces():
                    assert_type(event.pieces, Sequence[Piece])
                case Completed() | Failed():
                    assert_type(event.bill, Bill)
    try:
        await gateway.generate(key, "Hi")
    except GatewayError as error:
        assert_type(error.request_id, str | None)


async def administration(gateway: Gateway) -> None:
    try:
        new = await gateway.admin.create_project("shop", credits="3.50")
    except AdminError:
        return
    assert_type(new, NewKey)
    assert_type(new.project, Project)
    await gateway.admin.create_project("blog", owner="olga", credits=Decimal("0.5"))
    await gateway.admin.grant("olga", Microcredits(5))
    assert_type(await gateway.rotate_key("shop"), str)
    async for record in gateway.usage("shop"):
        assert_type(record, UsageRecord)


def mounts(gateway: Gateway) -> None:
    app = Starlette()
    app.mount("/api/v1/ai", FloopGateway(gateway))
    app.add_middleware(FloopGatewayMiddleware, gateway=gateway, prefix="/ai")
    FlaskGateway(Flask(__name__), gateway)


def bridged(gateway: Gateway, key: str) -> None:
    bridge = Bridge(gateway)
    assert_type(bridge.generate(key, "Hi"), Answer)
    with bridge.stream(key, [{"role": "user", "content": "Hi"}]) as answer:
        for text in answer:
            assert_type(text, str)


def parts(settings: Settings, client: httpx.AsyncClient, provider: Provider) -> Gateway:
    def notice(event: GatewayEvent) -> None:
        if isinstance(event, Settled):
            assert_type(event.record, UsageRecord)

    async def judge(messages: Sequence[Message], system: str | None) -> Classification:
        return classify(messages, system)

    listener: Listener = notice
    store: Store = MemoryStore()
    return Gateway(
        settings, store=store, ledger=SQLiteStore("a.db"), http=client, classifier=judge, listeners=[listener],
        providers={"main": provider}, environ={"KEY": "x"},
    )  # fmt: skip


def a_provider(codec: type[Codec], provider: Provider) -> None:
    def make(options: Options, place: Place) -> Provider:
        assert_type(options.model_extra, dict[str, Any] | None)
        return provider

    register_provider(ProviderSpec("cohere", make, vocabulary="cl100k"))
    register_provider(ProviderSpec.over_http("mistral", lambda options: codec()))


async def pieces(chunks: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
    assert_type(RateLimiter(10).acquire("key", 0.0), RateDecision)
    verdict = await RequestLimiter("10/minute").hit(headers.get("x-key", ""))
    assert_type(verdict.allowed, bool)
    decoder = SSEDecoder()
    async for chunk in chunks:
        assert_type(decoder.feed(chunk), list[ServerSentEvent])
    assert_type(estimate_tokens("Hi"), TokenEstimate)


async def requests(gateway: Gateway) -> bytes:
    async with gateway.open(GatewayRequest("POST", "/chat", [("Authorization", "Bearer …")], b"{}")) as reply:
        assert_type(reply.status, int)
        return reply.body if isinstance(reply.body, bytes) else b"".join([chunk async for chunk in reply.body])
