"""Calls within the process: the host's own code asks the gateway, under a project's key, without HTTP.

    key and rate → arguments → Call → run.admit → run.events → events, or one Answer

The same `run` and the same checks in the same order as an HTTP request: there is no unpoliced path. A refusal is raised as
a `GatewayError`, of a class of its own where a host would treat it in its own way.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

from floop_gateway_core.clock import new_request_id
from floop_gateway_core.dialects.native.parse import parse_object
from floop_gateway_core.engine.gate import STORE_UNAVAILABLE, Gate
from floop_gateway_core.engine.run import Run
from floop_gateway_core.errors import ErrorCode, GatewayError, Refusal
from floop_gateway_core.policy.admission import rate_refusal
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.types import (
    Bill,
    Completed,
    Endpoint,
    Failed,
    FinishReason,
    Message,
    RequestId,
    Texts,
)
from floop_gateway_core.wire import keys

__all__ = ["Answer", "CallEvent", "CallOptions", "Calls", "MessageLike"]

MessageLike: TypeAlias = Message | Mapping[str, object]
CallEvent: TypeAlias = Texts | Completed


class CallOptions(TypedDict, total=False):
    """What a call may say beside its messages; each counts as absent where it is None."""

    model: str
    system: str | None
    temperature: float | None
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `model` echoes the alias that was asked for; `deployment` is what served."""

    content: str
    model: str
    bill: Bill
    finish_reason: FinishReason
    request_id: RequestId
    deployment: str


class Calls:
    """What `Gateway.chat`, `generate` and `stream` do."""

    def __init__(self, front: Gate) -> None:
        self._front = front

    async def answer(self, key: str, endpoint: Endpoint, fields: Mapping[str, object]) -> Answer:
        run = await self._begin(key, endpoint)
        texts: list[str] = []
        async with aclosing(self._events(run, endpoint, {**fields, "stream": False})) as events:
            async for event in events:
                if isinstance(event, Texts):
                    texts += event.texts
                else:
                    done = event
        record = run.record
        return Answer(
            "".join(texts),
            record.alias or "auto",
            done.bill,
            done.finish_reason,
            record.request_id,
            record.deployment or "",
        )

    async def stream(
        self, key: str, endpoint: Endpoint, fields: Mapping[str, object]
    ) -> AsyncGenerator[CallEvent, None]:
        run = await self._begin(key, endpoint)
        async with aclosing(self._events(run, endpoint, {**fields, "stream": True})) as events:
            async for event in events:
                yield event

    async def _begin(self, key: str, endpoint: Endpoint) -> Run:
        now = self._front.engine.clock()
        try:
            begun = await self._front.begin(keys.from_header([f"Bearer {key}"]), endpoint, new_request_id(now), now)
            if isinstance(begun, Refusal):
                raise GatewayError.of(begun)
            run, decision = begun
            if refusal := rate_refusal(decision):
                await run.refuse(refusal)
                raise GatewayError.of(refusal)
        except StoreUnavailable:
            raise GatewayError.of(STORE_UNAVAILABLE) from None
        return run

    async def _events(
        self, run: Run, endpoint: Endpoint, fields: Mapping[str, object]
    ) -> AsyncGenerator[CallEvent, None]:
        try:
            call = parse_object(endpoint, _plain(fields))
            refusal = call if isinstance(call, Refusal) else await run.admit(call)
            if refusal is not None:
                await run.refuse(refusal)
                raise GatewayError.of(refusal)
            async with aclosing(run.events()) as events:
                async for event in events:
                    if isinstance(event, Failed):
                        raise GatewayError.of(event.refusal, event.bill.credits_used)
                    if isinstance(event, Texts | Completed):
                        yield event
        except StoreUnavailable:
            raise GatewayError.of(STORE_UNAVAILABLE) from None
        except GatewayError:
            raise
        except Exception:
            if run.record.ending is None:
                await run.refuse(Refusal(ErrorCode.INTERNAL_ERROR, "The gateway failed."), "internal_error")
            raise
        finally:
            await run.abandon()


def _plain(fields: Mapping[str, object]) -> Mapping[str, object]:
    """Write `Message` values as the objects that they stand for; absent arguments are None, which counts as absent."""
    messages = fields.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        return fields
    return {**fields, "messages": [_object(message) for message in messages]}


def _object(message: object) -> object:
    if isinstance(message, Message):
        return {"role": message.role, "content": message.text}
    return dict(message) if isinstance(message, Mapping) else message
