"""A client, over HTTP's messages or in process, and what it has seen of its answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import anyio

from floop_gateway_core import Gateway, GatewayError, GatewayRequest
from floop_gateway_core.types import Completed, Pieces, Started, Texts
from tests.simulation.lane import Lane
from tests.simulation.schedule import Send

__all__ = ["Seen", "ask"]

PROMPT = "What is the hidden word, quokka?"
MICRO = 1_000_000

How = Literal["running", "complete", "failed", "refused", "left", "died", "error"]


@dataclass(slots=True)
class Seen:
    """One request as its client knows it. `process` is the number of the process that took it.

    `failed` is an answer that broke off, `refused` one that never began; `died` is a connection that broke.
    """

    step: Send
    lane: Lane
    process: int
    project_id: str
    sent_at: float
    sent_wall: float
    rpm: int
    daily_tokens: int
    request_id: str | None = None
    replayed: bool = False
    texts: list[str] = field(default_factory=list)
    how: How = "running"
    code: str | None = None
    tokens: tuple[int, int] | None = None
    charged: int | None = None
    told_posted: bool = False
    error: str | None = None
    scope: anyio.CancelScope | None = None
    key_is_dead: bool = False
    is_leaving: bool = False
    over: bool = False
    took_s: float = 0.0

    @property
    def ended_at(self) -> float:
        """When it was over, by time that has gone by."""
        return self.sent_at + self.took_s

    def __str__(self) -> str:
        end = f"{self.how} {self.code or ''} {self.tokens or ''} {'' if self.charged is None else self.charged}"
        return f"{self.lane.name}@{self.process}: {'|'.join(self.texts)} {end}".strip()

    def took(self, usage: dict[str, Any]) -> None:
        """Note the usage that an answer ends with."""
        self.tokens = usage["input_tokens"], usage["output_tokens"]
        self.charged = int(usage["credits_used"] * MICRO)
        self.told_posted = usage.get("credits_remaining") is not None


async def ask(gateway: Gateway, key: str, seen: Seen, reads: Callable[[], float]) -> None:
    """Send the request and read what `seen.step` says, pausing as long as `reads` says before each read."""
    await (_over_http if seen.step.over_http else _in_process)(gateway, key, seen, reads)


async def _over_http(gateway: Gateway, key: str, seen: Seen, reads: Callable[[], float]) -> None:
    step = seen.step
    body = json.dumps({**_fields(step), "stream": step.stream}).encode()
    headers = [("Authorization", f"Bearer {key}"), ("Content-Length", str(len(body)))]
    if step.key is not None:
        headers.append(("Idempotency-Key", f"key-{step.key}"))
    async with gateway.open(GatewayRequest("POST", "/chat", headers, body)) as reply:
        told = dict(reply.headers)
        seen.request_id = told["X-Request-Id"]
        seen.replayed = "Idempotency-Replayed" in told
        if isinstance(reply.body, bytes):
            if step.leave_after is not None and reply.status == 200:
                seen.how = "left"
                return None
            return _read_whole(seen, reply.status, reply.body)
        if reply.status != 200 or not told["Content-Type"].startswith("text/event-stream"):
            return _read_whole(seen, reply.status, b"".join([chunk async for chunk in reply.body]))
        writes = 0
        async for chunk in reply.body:
            if writes == step.leave_after:
                seen.how = "left"
                return None
            _read_frames(seen, chunk)
            writes += 1
            await anyio.sleep(reads())
    return None


def _fields(step: Send) -> dict[str, object]:
    messages = [{"role": "user", "content": f"{PROMPT} {step.body}"}]
    return {"messages": messages, "model": "fast", "max_tokens": step.max_tokens}


def _read_whole(seen: Seen, status: int, body: bytes) -> None:
    read = json.loads(body, parse_float=Decimal)
    if status != 200:
        seen.how, seen.code = "refused", read["error"]["code"]
        return
    seen.texts.append(read["content"])
    seen.took(read["usage"])
    seen.how = "complete"


def _read_frames(seen: Seen, chunk: bytes) -> None:
    for frame in chunk.decode().split("\n\n"):
        data = frame.removeprefix("data: ")
        if not data or data == "[DONE]":
            continue
        read = json.loads(data, parse_float=Decimal)
        if "text" in read:
            seen.texts.append(read["text"])
        elif "error" in read:
            seen.how, seen.code = "failed", read["code"]
            seen.took(read["usage"])
        else:
            seen.took(read["usage"])
            seen.how = "complete"


async def _in_process(gateway: Gateway, key: str, seen: Seen, reads: Callable[[], float]) -> None:
    step = seen.step
    options: dict[str, Any] = {**_fields(step), "idempotency_key": None if step.key is None else f"key-{step.key}"}
    messages = options.pop("messages")
    try:
        if not step.stream:
            answer = await gateway.chat(key, messages, **options)
            seen.request_id = answer.request_id
            seen.texts.append(answer.content)
            _bill(seen, Completed(answer.bill, answer.finish_reason))
            return
        async with gateway.stream(key, messages, **options) as stream:
            seen.request_id = stream.request_id
            writes = 0
            async for event in stream.events():
                if writes == step.leave_after:
                    seen.how = "left"
                    return
                match event:
                    case Texts(texts):
                        seen.texts += texts
                    case Completed():
                        _bill(seen, event)
                    case Started() | Pieces():
                        continue
                writes += 1
                await anyio.sleep(reads())
    except GatewayError as error:
        seen.request_id = error.request_id or seen.request_id
        seen.how, seen.code = ("failed" if seen.texts else "refused"), error.code.value
        seen.charged = error.credits_used


def _bill(seen: Seen, event: Completed) -> None:
    bill = event.bill
    seen.tokens = bill.usage.input_tokens, bill.usage.output_tokens
    seen.charged = bill.credits_used
    seen.told_posted = bill.credits_remaining is not None
    seen.how = "complete"
