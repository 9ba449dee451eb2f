"""One HTTP exchange in the gateway's own dialect: a request in, a reply out, and everything settled at the end.

    path and method → key and rate → body → Call → run.admit → run.events → SSE frames or one JSON object

The order is the contract's precedence, and the code below reads in that order. The request's id is minted first, before
anything can fail. The status line waits for the first event; an event that says the call failed is then an error with its
own status, unless a heartbeat has already sent the 200.

`Exchange` is an async context manager, driven by one task: what it opened is closed, and what is unsettled is settled, in
that task, when the host leaves it, however it leaves.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias, assert_never

import anyio
from anyio.lowlevel import checkpoint

from floop_gateway_core.clock import new_request_id
from floop_gateway_core.concurrency.heartbeat import WithHeartbeats
from floop_gateway_core.dialects.native.frames import StreamFrames, render_json
from floop_gateway_core.dialects.native.parse import parse
from floop_gateway_core.engine.assess import run_cpu_bound
from floop_gateway_core.engine.gate import STORE_UNAVAILABLE, Gate
from floop_gateway_core.engine.run import Run
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.http.body import DRAIN_TIMEOUT_S, drain, may_have_body, read_body
from floop_gateway_core.policy.admission import rate_refusal
from floop_gateway_core.policy.rate_headers import Header, rate_headers
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.types import (
    AnswerEvent,
    Call,
    Completed,
    Ending,
    Endpoint,
    Failed,
    RequestId,
    Texts,
)
from floop_gateway_core.wire import keys
from floop_gateway_core.wire.messages import ClientDisconnected, GatewayRequest, Reply
from floop_gateway_core.wire.sse import STREAM_HEADERS

__all__ = ["Exchange"]

log = logging.getLogger("floop_gateway")

ENDPOINTS: dict[str, Endpoint] = {"/chat": "chat", "/generate": "generate", "/embed": "embed"}
SLOW_CLIENT_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing has come for a while; the client should see that the connection is alive."""


Event: TypeAlias = AnswerEvent | Heartbeat


@dataclass(slots=True)
class _Head:
    """The headers that this request's answer carries, whatever it will be."""

    request_id: RequestId
    rate: tuple[Header, ...] = ()

    def headers(self, *more: Header) -> list[Header]:
        return [("X-Request-Id", self.request_id), *self.rate, *more]


class Exchange:
    """`async with` it: the value is the reply. Its body must be read in the same task, inside the block."""

    def __init__(self, front: Gate, request: GatewayRequest) -> None:
        self._front = front
        self._request = request
        self._now = front.engine.clock()
        self._head = _Head(new_request_id(self._now))
        self._run: Run | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Reply:
        limits = self._front.engine.limits
        # The engine ends the call at `total_s`; this is for a client that is too slow to take what there is.
        scope = self._scope = self._stack.enter_context(
            anyio.CancelScope(deadline=anyio.current_time() + limits.total_s + SLOW_CLIENT_GRACE_S)
        )
        try:
            return await self._reply()
        except BaseException as error:
            if await self.__aexit__(type(error), error, error.__traceback__) and scope.cancelled_caught:
                return self._error(Refusal(ErrorCode.INTERNAL_ERROR, "The request took too long. Retry later."))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def _reply(self) -> Reply:
        """Answer, and turn whatever goes wrong unexpectedly into an answer too."""
        try:
            return await self._answer()
        except StoreUnavailable as error:
            log.warning("request %s: the store does not answer: %s", self._head.request_id, error)
            return await self._refuse_quietly(STORE_UNAVAILABLE, "refused")
        except ClientDisconnected:
            if self._run is not None:
                await self._run.abandon()
            return Reply(499, self._head.headers(), b"")  # nobody will read it
        except Exception:
            log.exception("request %s failed", self._head.request_id)
            refusal = Refusal(ErrorCode.INTERNAL_ERROR, "The gateway failed. Retry later; tell us the request's id.")
            return await self._refuse_quietly(refusal, "internal_error")

    # -- before the call -------------------------------------------------------------------------------------------

    async def _answer(self) -> Reply:
        request = self._request
        endpoint = ENDPOINTS.get(request.path)
        if endpoint is None:
            return self._error(Refusal(ErrorCode.NOT_FOUND, f"There is no such path. Use {', '.join(ENDPOINTS)}."))
        if request.method != "POST":
            refusal = Refusal(
                ErrorCode.METHOD_NOT_ALLOWED, "This path takes POST only.", extra_headers=(("Allow", "POST"),)
            )
            return self._error(refusal)
        key = keys.from_header(request.header("authorization"))
        begun = await self._front.begin(key, endpoint, self._head.request_id, self._now)
        if isinstance(begun, Refusal):
            return self._error(begun)
        run, decision = begun
        self._run, self._head.rate = run, rate_headers([("rpm", decision)])
        # From here on there is one record, and leaving the exchange settles whatever is unsettled.
        self._stack.push_async_callback(run.abandon)
        if too_many := rate_refusal(decision):
            return await self._refuse(run, too_many)
        if endpoint == "embed":
            return await self._refuse(run, Refusal(ErrorCode.NOT_IMPLEMENTED, "Embeddings are reserved for later."))
        call = await self._call(endpoint)
        if isinstance(call, Refusal):
            return await self._refuse(run, call)
        refused = await run.admit(call)
        if refused is not None:
            return await self._refuse(run, refused)
        return await self._first_event(run, call)

    async def _call(self, endpoint: Endpoint) -> Call | Refusal:
        front = self._front
        limit_s = min(front.body_s, front.engine.limits.total_s)
        body = await read_body(self._request, cap_bytes=front.body_bytes, limit_s=limit_s)
        if isinstance(body, Refusal):
            return body
        return await run_cpu_bound(len(body), lambda: parse(endpoint, body))

    async def _refuse(self, run: Run, refusal: Refusal, ending: Ending = "refused") -> Reply:
        await run.refuse(refusal, ending)
        return self._error(refusal)

    async def _refuse_quietly(self, refusal: Refusal, ending: Ending) -> Reply:
        """Refuse where the store itself may be what failed: the answer goes out whether or not it can be recorded."""
        if self._run is not None and self._run.record.ending is None:
            try:
                await self._run.refuse(refusal, ending)
            except Exception:
                log.exception("request %s could not be recorded", self._head.request_id)
        return self._error(refusal)

    def _error(self, refusal: Refusal) -> Reply:
        """Give the envelope, and drop what the client still sends behind it."""
        body = refusal.body
        headers = self._head.headers(
            ("Content-Type", "application/json"), ("Content-Length", str(len(body))), *refusal.headers
        )
        if not may_have_body(self._request):
            return Reply(refusal.status, headers, body)
        # What is still coming has a time of its own, whatever the request has left.
        self._scope.deadline = max(self._scope.deadline, anyio.current_time() + DRAIN_TIMEOUT_S + SLOW_CLIENT_GRACE_S)
        return Reply(refusal.status, headers, _reply_then_drain(body, self._request))

    # -- the answer ------------------------------------------------------------------------------------------------

    async def _first_event(self, run: Run, call: Call) -> Reply:
        """Read up to the first event: it decides the status line."""
        generator = run.events()
        events: AsyncIterator[Event] = generator
        if call.stream and (every_s := self._front.engine.limits.heartbeat_s):
            events = await self._stack.enter_async_context(WithHeartbeats[Event](generator, every_s, Heartbeat()))
        else:
            await self._stack.enter_async_context(aclosing(generator))
        first = await anext(events)
        if isinstance(first, Failed):
            return self._error(first.refusal)
        served = () if isinstance(first, Heartbeat) else (("X-Gateway-Model", run.record.deployment or ""),)
        if call.stream:
            run.headers_sent = True
            body = self._frames(run, first, events)
            await self._stack.enter_async_context(aclosing(body))
            return Reply(200, self._head.headers(*STREAM_HEADERS, *served), body)
        content = await self._json(first, events, call.alias)
        if isinstance(content, Failed):
            return self._error(content.refusal)
        headers = (("Content-Type", "application/json"), ("Content-Length", str(len(content))), *served)
        return Reply(200, self._head.headers(*headers), content)

    async def _json(self, first: Event, events: AsyncIterator[Event], alias: str) -> bytes | Failed:
        texts: list[str] = []
        event = first
        while True:
            match event:
                case Texts(more):
                    texts += more
                case Completed(bill, finish_reason):
                    return render_json("".join(texts), alias, bill, finish_reason)
                case Failed():
                    return event
                case Heartbeat():
                    pass
                case _:
                    assert_never(event)
            event = await anext(events)

    async def _frames(self, run: Run, first: Event, events: AsyncIterator[Event]) -> AsyncGenerator[bytes, None]:
        frames = StreamFrames()
        event = first
        while True:
            match event:
                case Texts(texts):
                    yield frames.texts(texts)
                case Heartbeat():
                    yield frames.heartbeat()
                case Completed(bill, finish_reason):
                    yield frames.completed(bill, finish_reason)
                    return
                case Failed(refusal, bill):
                    yield frames.failed(refusal.code, refusal.message, bill)
                    return
                case _:
                    assert_never(event)
            # An upstream that is buffered never waits; without this a client's disconnect would not be seen.
            await checkpoint()
            event = await self._next(run, events)

    async def _next(self, run: Run, events: AsyncIterator[Event]) -> Event:
        """Give the next event; what breaks after the head was sent can only be told in a frame."""
        try:
            return await anext(events)
        except Exception:
            log.exception("request %s failed in its stream", self._head.request_id)
            refusal = Refusal(ErrorCode.INTERNAL_ERROR, "The gateway failed in the middle of the answer.")
            return Failed(refusal, run.bill)


async def _reply_then_drain(body: bytes, request: GatewayRequest) -> AsyncGenerator[bytes, None]:
    yield body
    await drain(request.body)
