"""A load with every kind of ending, on a gateway whose listeners are under test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from floop_gateway_core import Gateway, MemoryStore, Settings
from floop_gateway_core.observability import Listener
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.providers.base import UpstreamCall, UpstreamFault
from floop_gateway_core.providers.echo import EchoProvider
from floop_gateway_core.types import UsageRecord
from tests.serving import MOUNT, RICH, post, records, until

SECRET = "a prompt that nobody may see"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUESTS_PER_MINUTE = 40
BUDGET = 1_000


@dataclass
class Flaky:
    """Fails every call whose text has `fail`; else it echoes. It keeps the headers that listeners add."""

    headers: list[dict[str, str]] = field(default_factory=list)
    echo: EchoProvider = field(default_factory=EchoProvider)

    def open(self, call: UpstreamCall, on_sent: Callable[[], None]) -> Any:
        self.headers.append(dict(call.headers))
        if "fail" in call.messages[-1].text:
            raise UpstreamFault(FaultKind.TRANSIENT, "it fails")
        return self.echo.open(call, on_sent)


@dataclass
class World:
    """A gateway over memory with a project `p`; `flaky` comes before `echo`, and `slow` is alone."""

    gateway: Gateway
    key: str
    flaky: Flaky

    @property
    def log(self) -> list[UsageRecord]:
        """Return the usage log, counts of refusals written."""
        anyio.run(lambda: self.gateway.runtime.flush_refusals(every=True))
        return records(self.gateway)


def world(listeners: Sequence[Listener], **settings: Any) -> World:
    def deployment(**more: Any) -> dict[str, Any]:
        return {"provider": "echo", "microcredits_per_token": 1250, **more}

    flaky = Flaky()
    given = {
        "store": "memory://",
        "plans": {"default": {"requests_per_minute": REQUESTS_PER_MINUTE, "daily_tokens": BUDGET, "output_tokens": 50}},
        "deployments": {
            "flaky": deployment(model="flaky-1"),
            "echo": deployment(model="echo-1"),
            "slow": deployment(words_per_second=20.0),
        },
        "routes": {"fast": ["flaky", "echo"], "smart": ["flaky", "echo"], "reason": ["flaky"]},
        "upstream": {"attempts": 2, "breaker_failures": 3},
        **settings,
    }
    gateway = Gateway(
        Settings.read(given, source="test"), store=MemoryStore(), providers={"flaky": flaky}, listeners=listeners
    )
    key = anyio.run(lambda: gateway.admin.create_project("p", credits=RICH)).key
    return World(gateway, key, flaky)


def run_load(world: World, address: str) -> None:
    """Send it all, and wait until everything is settled."""
    url, key = address + MOUNT, world.key
    for _ in range(5):
        assert 200 == post(f"{url}/generate", key, {"prompt": SECRET}, traceparent=PARENT).status_code
        assert 200 == post(f"{url}/chat", key, _chat(SECRET, stream=True)).status_code
    openai = post(f"{url}/v1/chat/completions", key, _chat("one two", model="fast"))
    assert 200 == openai.status_code
    assert 200 == post(f"{url}/generate", key, {"prompt": "fail over", "model": "fast"}).status_code
    assert 502 == post(f"{url}/generate", key, {"prompt": "fail", "model": "reason"}).status_code
    assert 503 == post(f"{url}/generate", key, {"prompt": "fail", "model": "reason"}).status_code
    assert 400 == post(f"{url}/generate", key, {}).status_code
    assert 400 == post(f"{url}/generate", key, {"prompt": "Hi", "model": "a name of the client's own"}).status_code
    assert 401 == post(f"{url}/generate", "flp_sk_unknown", {"prompt": "Hi"}).status_code
    assert 501 == post(f"{url}/embed", key, {}).status_code
    _leave(f"{url}/generate", key)
    for _ in range(REQUESTS_PER_MINUTE):
        post(f"{url}/embed", key, {})
    until(lambda: not any(one.ending is None for one in world.log) and _held(world) == 0)


def _chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def _leave(url: str, key: str) -> None:
    body = {"prompt": "word " * 40, "model": "slow", "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client() as client, client.stream("POST", url, json=body, headers=headers) as answer:
        next(answer.iter_raw())


def _held(world: World) -> int:
    account = anyio.run(lambda: world.gateway.store.account("project:p"))
    assert account is not None
    return account.held


def tokens(log: Sequence[UsageRecord]) -> dict[str, int]:
    return {"input": sum(one.input_tokens for one in log), "output": sum(one.output_tokens for one in log)}
