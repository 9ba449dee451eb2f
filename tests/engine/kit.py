"""A gateway on a store in memory in front of a scripted upstream, and what one asks of it afterwards.

    async with bench(Break("reset", at="text"), vendor="gemini") as b:
        answer = await b.ask(stream=True)
        assert (answer.status, answer.text) == (200, "Hello")
        record = await b.settled()

`bench` itself asserts at its end that no upstream connection stays open, and that nothing takes longer than the maximum.
"""

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeVar

import anyio

from floop_gateway_core import (
    Gateway,
    GatewayRequest,
    MemoryStore,
    Message,
    Reply,
    Settings,
    Usage,
    estimate_messages,
    estimate_tokens,
)
from floop_gateway_core.observability.events import GatewayEvent
from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.breaker import CircuitBreaker
from floop_gateway_core.policy.budget import utc_day
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.providers.registry import spec_of
from floop_gateway_core.stores.base import DayUsage, HoldRequest, LedgerStore, Settled, Settlement
from floop_gateway_core.testing import Answer, ScriptedUpstream
from floop_gateway_core.testing.answers import Vendor
from floop_gateway_core.types import Microcredits, UsageRecord
from floop_gateway_core.wire.messages import BodyReader

MAX_RETRY_AFTER_S = 10.0
PROMPT = "What is the hidden word, quokka?"
UPSTREAM_KEY = "sk-upstream-quoll-key"
CREDITS = 100_000_000
RATE_IN, RATE_OUT = 10, 30
PLAN = {
    "requests_per_minute": 1000,
    "daily_tokens": 10_000_000,
    "concurrency": 1000,
    "input_tokens": 100_000,
    "output_tokens": 100,
}

T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """What a client has in its hands."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @cached_property
    def json(self) -> Any:
        return json.loads(self.raw, parse_float=Decimal)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])

    @cached_property
    def frames(self) -> list[dict[str, Any]]:
        """The objects of a stream that is whole; `[DONE]` is checked and left out, comments are left out."""
        pieces = self.raw.decode().split("\n\n")
        assert pieces.pop() == ""
        data = [piece.removeprefix("data: ") for piece in pieces if not piece.startswith(":")]
        assert data.pop() == "[DONE]"
        return [json.loads(one, parse_float=Decimal) for one in data]

    @property
    def comments(self) -> int:
        return self.raw.decode().count(": keep-alive\n\n")

    @property
    def text(self) -> str:
        if self.headers["content-type"] == "text/event-stream":
            return "".join(frame["text"] for frame in self.frames[:-1])
        return str(self.json["content"])

    @property
    def last(self) -> dict[str, Any]:
        """The usage or error frame of a stream, or the object of a plain answer."""
        if self.headers["content-type"] == "text/event-stream":
            return self.frames[-1]
        return dict(self.json)

    @property
    def usage(self) -> tuple[int, int]:
        told = self.last["usage"]
        assert told["total_tokens"] == told["input_tokens"] + told["output_tokens"]
        return told["input_tokens"], told["output_tokens"]

    @property
    def charged(self) -> int:
        """`credits_used`, in micro-credits."""
        return int(self.last["usage"]["credits_used"] * 1_000_000)


@dataclass
class Bench:
    gateway: Gateway
    upstream: ScriptedUpstream
    key: str
    credits: int
    told: list[GatewayEvent] = field(default_factory=list)

    def request(self, **fields: object) -> GatewayRequest:
        body = {"messages": [{"role": "user", "content": PROMPT}], "model": "fast", **fields}
        return self.raw(json.dumps(body).encode())

    def raw(
        self,
        body: bytes | BodyReader = b"",
        *,
        path: str = "/chat",
        method: str = "POST",
        headers: Sequence[tuple[str, str]] = (),
        key: str | None = None,
    ) -> GatewayRequest:
        length = (("Content-Length", str(len(body))),) if isinstance(body, bytes) else ()
        authorization = ("Authorization", f"Bearer {key or self.key}")
        return GatewayRequest(method, path, (authorization, *length, *headers), body)

    def open(self, **fields: object) -> AbstractAsyncContextManager[Reply]:
        return self.gateway.open(self.request(**fields))

    async def ask(self, *, on_chunk: Callable[[bytes], object] | None = None, **fields: object) -> Answered:
        return await self.send(self.request(**fields), on_chunk=on_chunk)

    async def send(self, request: GatewayRequest, *, on_chunk: Callable[[bytes], object] | None = None) -> Answered:
        """Be a host that writes to a client which reads at once; `on_chunk` hears of each write."""
        async with self.gateway.open(request) as reply:
            return await read(reply, on_chunk)

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def records(self) -> list[UsageRecord]:
        return [record async for record in self.gateway.store.usage()]

    async def account(self) -> Account:
        return await self.gateway.store.account("olga") or Account()

    async def used(self, day: int) -> DayUsage:
        """Return the tokens of the project's day."""
        return await self.gateway.store.day((await self.gateway.admin.project("shop")).id, day)

    async def day(self) -> tuple[int, int]:
        """Give the day's tokens, used and held."""
        records = await self.records()
        return await self.gateway.store.day(records[-1].project_id, utc_day(records[-1].started_at))

    async def settled(self, records: int = 1) -> UsageRecord:
        """Assert that everything is over and that the books agree with the log; give the last record."""
        await eventually(lambda: self.upstream.streams_open == 0)
        found = await self.records()
        assert len(found) == records
        assert {record.project for record in found} == {"shop"}
        charged = sum(record.microcredits for record in found)
        assert await self.account() == Account(Microcredits(self.credits - charged), Microcredits(0))
        assert await self.day() == (sum(record.input_tokens + record.output_tokens for record in found), 0)
        return found[-1]

    def failures(self, deployment: str = "a") -> int:
        """Count what a closed breaker holds against its deployment: how much sooner it trips than a new one."""
        shared, now = self.gateway.runtime.breakers[deployment], self.gateway.runtime.monotonic()
        breaker = CircuitBreaker(failures=shared.failures, window_s=shared.window_s, cool_down_s=shared.cool_down_s)
        vars(breaker).update(deepcopy({name: value for name, value in vars(shared).items() if name != "_lock"}))
        assert breaker.state(now) == "closed"
        left = 0
        while breaker.state(now) == "closed":
            breaker.failure(breaker.admit(now), now)
            left += 1
        return breaker.failures - left


async def read(reply: Reply, on_chunk: Callable[[bytes], object] | None = None) -> Answered:
    raw = b""
    if isinstance(reply.body, bytes):
        raw = reply.body
    else:
        async for chunk in reply.body:
            raw += chunk
            if on_chunk is not None:
                on_chunk(chunk)
    names = [name.lower() for name, _ in reply.headers]
    assert len(names) == len(set(names))
    assert "connection" not in names
    return Answered(reply.status, {name.lower(): value for name, value in reply.headers}, raw)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait, within bounds, until something holds."""
    with anyio.fail_after(5):
        while not holds():
            await anyio.sleep(0.005)


def deployment(vendor: Vendor, model: str, base_url: str) -> dict[str, object]:
    return {
        "provider": vendor,
        "model": model,
        "base_url": base_url,
        "api_key_env": "UPSTREAM_KEY",
        "input_microcredits_per_token": RATE_IN,
        "output_microcredits_per_token": RATE_OUT,
    }


@asynccontextmanager
async def bench(
    *answers: Answer,
    vendor: Vendor = "openai",
    route: Sequence[str] = ("a",),
    default: Answer | None = None,
    credits: int = CREDITS,
    plan: Mapping[str, object] | None = None,
    limits: Mapping[str, object] | None = None,
    deployments: Mapping[str, Mapping[str, object]] | None = None,
    every: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    ledger: Callable[[MemoryStore], LedgerStore] | None = None,
    **gateway_options: Any,
) -> AsyncIterator[Bench]:
    """Script the answers; `deployments` changes fields of one deployment, `every` of each, `limits` of `[upstream]`."""
    with anyio.fail_after(MAX_RETRY_AFTER_S):
        async with ScriptedUpstream(*answers, default=default) as upstream:
            base_url = upstream.base_url(vendor)
            made = {
                name: {**deployment(vendor, name, base_url), **(every or {}), **(deployments or {}).get(name, {})}
                for name in route
            }
            read_settings = Settings.read(
                {
                    "store": "memory://",
                    "plans": {"default": {**PLAN, **(plan or {})}},
                    "deployments": made,
                    "routes": {alias: list(route) for alias in ("fast", "smart", "reason")},
                    "upstream": {"breaker_failures": 100, **(limits or {})},
                    **(settings or {}),
                },
                source="test",
            )
            store, told = MemoryStore(), list[GatewayEvent]()
            gateway = Gateway(
                read_settings,
                store=store,
                ledger=ledger(store) if ledger is not None else None,
                environ={"UPSTREAM_KEY": UPSTREAM_KEY},
                listeners=[told.append],
                **gateway_options,
            )
            async with gateway:
                new = await gateway.admin.create_project("shop", owner="olga", credits=Microcredits(credits))
                yield Bench(gateway, upstream, new.key, credits, told)
            await eventually(lambda: upstream.open_connections == 0)


def expected_input(vendor: Vendor, prompt: str = PROMPT) -> int:
    return estimate_messages([Message.of("user", prompt)], None, vocabulary_of(vendor)).expected


def expected_output(vendor: Vendor, text: str) -> int:
    return estimate_tokens(text, vocabulary_of(vendor)).expected


def price(usage: Usage) -> int:
    return usage.input_tokens * RATE_IN + usage.output_tokens * RATE_OUT


async def cancelled_natively(work: Callable[[], Awaitable[T]], when: Callable[[], bool]) -> None:
    """Run work in an asyncio task, and cancel that task, past any shield, when something holds."""
    import asyncio

    task = asyncio.ensure_future(work())
    await eventually(lambda: when() or task.done())
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    raise AssertionError("the work was over before it could be cancelled")


@contextmanager
def port_that_refuses() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def port_that_does_not_answer() -> Iterator[str]:
    """Listen, and let the queue of connections be full: the kernel drops whoever knocks."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def vocabulary_of(vendor: Vendor) -> str:
    spec = spec_of(vendor)
    assert spec is not None
    return spec.vocabulary


@dataclass
class SlowLedger:
    """A ledger in front of the store that is slow, or fails, where a test says so."""

    store: MemoryStore
    hold_s: float = 0.0
    settle_s: float = 0.0
    fail_hold: Exception | None = None
    fail_settle: list[Exception] = field(default_factory=list)
    placed: int = 0
    settling: int = 0

    def over(self, store: MemoryStore) -> Any:
        self.store = store
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def hold(self, request: HoldRequest) -> Held | HoldRefused:
        if self.fail_hold is not None:
            raise self.fail_hold
        granted = await self.store.hold(request)
        self.placed += 1
        await anyio.sleep(self.hold_s)
        return granted

    async def settle(self, settlement: Settlement) -> Settled:
        self.settling += 1
        if self.fail_settle:
            raise self.fail_settle.pop(0)
        await anyio.sleep(self.settle_s)
        return await self.store.settle(settlement)
