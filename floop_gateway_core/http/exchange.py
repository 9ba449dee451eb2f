"""One HTTP exchange: a request in, a reply out, and everything settled at the end.

    path and method → key and rate → body → Call → admit → events → the dialect's bytes

The order is the contract's precedence, and the code below reads in that order. The request's id is minted first, before
anything can fail. The status line waits for the first event; a call that fails before that gets an error with its own
status, unless a heartbeat has already sent the 200.

`Exchange` is an async context manager, driven by one task: what it opened is closed, and what is unsettled is settled, in
that task, when the host leaves it, however it leaves.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeAlias, assert_never

import anyio
from anyio.lowlevel import checkpoint

from floop_gateway_core.concurrency.heartbeat import WithHeartbeats
from floop_gateway_core.concurrency.wait import block_limit
from floop_gateway_core.dialects.base import About, Dialect, Operation, Renderer, Router
from floop_gateway_core.engine.assess import run_cpu_bound
from floop_gateway_core.engine.closing import NO_BILL
from floop_gateway_core.engine.gate import Gate
from floop_gateway_core.engine.session import CallSession
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.http.body import DRAIN_TIMEOUT_S, drain, may_have_body, read_body
from floop_gateway_core.http.login import NO_LOGIN, Login
from floop_gateway_core.policy.rate_headers import Header, rate_headers
from floop_gateway_core.types import AnswerEvent, Call, Completed, Failed, Piece, Pieces, Started, Texts
from floop_gateway_core.wire.messages import CLIENT_GONE_STATUS, ClientDisconnected, GatewayRequest, Headers, Reply

__all__ = ["Exchange"]

log = logging.getLogger("floop_gateway")

FRAMES_WITHOUT_PAUSE = 8
"""After this many frames without waiting, other tasks get their turn."""
TRACE_HEADERS = ("traceparent", "tracestate")
REPLAYED = ("Idempotency-Replayed", "true")
SLOW_CLIENT_GRACE_S = 1.0
"""Extra time for a client that reads too slowly, so that the engine's own end comes first."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A heartbeat, sent after a silent interval to show the client that the connection is alive."""


Event: TypeAlias = AnswerEvent | Heartbeat


class Exchange:
    """Use as `async with`, which yields the reply. Its body must be read in the same task, inside the block."""

    def __init__(self, gate: Gate, router: Router, request: GatewayRequest, login: Login = NO_LOGIN) -> None:
        self._login = login
        self._routing = gate.runtime.routing
        self._listens = bool(gate.runtime.listeners)
        self._request = request
        self._router = router
        self._dialect: Dialect = router.dialect_of(request.path)
        self._session = CallSession(gate, self._dialect.name)
        self._events: AsyncGenerator[Event, None] | WithHeartbeats[Event] | None = None
        self._frames: AsyncGenerator[bytes, None] | None = None
        # The engine ends the call at `total_s`; this is for a client that reads too slowly.
        self._limit = block_limit(self._routing.limits.total_s + SLOW_CLIENT_GRACE_S)
        self._is_left = False

    async def __aenter__(self) -> Reply:
        self._limit.__enter__()
        try:
            return await self._reply()
        except BaseException as error:
            if await self.__aexit__(type(error), error, error.__traceback__):
                return self._error(Refusal(ErrorCode.INTERNAL_ERROR, "The request took too long. Retry later."))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._is_left:
            return False
        self._is_left = True
        try:
            await self._close()
        except BaseException as raised:
            if not self._limit.__exit__(type(raised), raised, raised.__traceback__):
                raise
            return True
        return self._limit.__exit__(kind, error, traceback)

    async def _close(self) -> None:
        """Close what is open, from the outermost to the innermost, and settle what is unsettled."""
        try:
            if self._frames is not None:
                await self._frames.aclose()
        finally:
            try:
                if self._events is not None:
                    await self._events.aclose()
            finally:
                await self._session.close()

    async def _reply(self) -> Reply:
        """Answer, and turn unexpected failures into an answer too."""
        try:
            return await self._answer()
        except ClientDisconnected:
            await self._session.close()
            return Reply(CLIENT_GONE_STATUS, self._headers(), b"")  # the client has gone and will not read it
        except Exception as error:
            return self._error(await self._session.fail(error))

    def _headers(self, *more: Header) -> list[Header]:
        decision = self._session.decision
        rate = () if decision is None else rate_headers([("rpm", decision)])
        return [("X-Request-Id", self._session.request_id), *rate, *more]

    # -- before the call -------------------------------------------------------------------------------------------

    async def _answer(self) -> Reply:
        request, session = self._request, self._session
        methods = self._router.methods(request.path)
        if methods is None:
            paths = ", ".join(self._router.paths)
            return self._error(Refusal(ErrorCode.NOT_FOUND, f"Unknown path. Available paths: {paths}."))
        operation = methods.get(request.method)
        if operation is None:
            allow = ", ".join(methods)
            refusal = Refusal(
                ErrorCode.METHOD_NOT_ALLOWED, f"This path takes {allow} only.", extra_headers=(("Allow", allow),)
            )
            return self._error(refusal)
        caller = await self._login.caller(request) or self._dialect.key(request)
        key = self._idempotency_key(operation)
        trace = self._trace_headers()
        refused = await session.open(
            caller, operation.endpoint, has_key=key is not None, is_crowded=request.is_crowded, trace=trace
        )
        if refused is not None:
            return self._error(refused)
        match operation.kind:
            case "reserved":
                refused = Refusal(ErrorCode.NOT_IMPLEMENTED, "Embeddings are not implemented yet.")
                return self._error(await session.refuse(refused))
            case "reply":
                return await self._without_call(operation, About(session.models))
            case "count":
                return await self._count(operation)
            case "call":
                return await self._call(operation, key)
            case _:
                assert_never(operation.kind)

    async def _without_call(self, operation: Operation, about: About) -> Reply:
        await self._session.forget()
        reply = self._dialect.reply(operation, self._request, about)
        if isinstance(reply, Refusal):
            return self._error(reply)
        headers, body = reply
        return Reply(200, self._headers(*headers, _length(body)), body)

    def _idempotency_key(self, operation: Operation) -> str | None:
        """Return the request's key: several headers join to one that is not valid."""
        values = self._request.header("idempotency-key") if operation.kind == "call" else []
        return ",".join(values) if values else None

    def _trace_headers(self) -> Headers:
        """Return the headers of the client's trace, if anybody listens."""
        if not self._listens:
            return ()
        return [(name, value) for name in TRACE_HEADERS for value in self._request.header(name)]

    async def _count(self, operation: Operation) -> Reply:
        call = await self._parsed(operation)
        counted = call if isinstance(call, Refusal) else await self._session.count(call)
        if isinstance(counted, Refusal):
            return self._error(await self._session.refuse(counted))
        return await self._without_call(operation, About(input_tokens=counted))

    async def _parsed(self, operation: Operation) -> Call | Refusal:
        routing = self._routing
        limit_s = min(routing.body_s, routing.limits.total_s)
        body = await read_body(self._request, cap_bytes=routing.body_bytes, limit_s=limit_s)
        if isinstance(body, Refusal):
            return body
        call = await run_cpu_bound(len(body), lambda: self._dialect.parse(operation, body))
        if isinstance(call, Refusal):
            return call
        if (with_headers := getattr(self._dialect, "with_headers", None)) is not None:
            call = with_headers(call, self._request)
        return self._session.named(call)

    async def _call(self, operation: Operation, key: str | None) -> Reply:
        session = self._session
        call = await self._parsed(operation)
        if isinstance(call, Refusal):
            return self._error(await session.refuse(call))
        if refused := await session.admit(call, key, reads_on=True):
            return self._error(refused)
        if more := session.ignored(call):
            call = replace(call, ignored=(*call.ignored, *more))
        return await self._first_event(call)

    def _error(self, refusal: Refusal) -> Reply:
        """Return the dialect's envelope, and drain what the client still sends after it."""
        headers, body = self._router.envelope_of(self._request).error(refusal, self._session.request_id)
        if not may_have_body(self._request):
            return Reply(refusal.status, self._headers(*headers), body)
        # The rest of the body has its own time limit, independent of the request's.
        self._limit.deadline = max(self._limit.deadline, anyio.current_time() + DRAIN_TIMEOUT_S + SLOW_CLIENT_GRACE_S)
        return Reply(refusal.status, self._headers(*headers), _reply_then_drain(body, self._request))

    # -- the answer ------------------------------------------------------------------------------------------------

    async def _first_event(self, call: Call) -> Reply:
        """Read up to the first event: it decides the status line."""
        events: AsyncGenerator[Event, None] | WithHeartbeats[Event]
        generator: AsyncGenerator[Event, None] = self._session.events()
        if call.stream and (every_s := self._routing.limits.heartbeat_s):
            events = await WithHeartbeats(generator, every_s, Heartbeat()).__aenter__()
        else:
            events = generator
        self._events = events
        first = await anext(events)
        if isinstance(first, Failed):
            return self._error(first.refusal)
        renderer = self._dialect.renderer(call, self._session.request_id, self._session.answer_id)
        started = first if isinstance(first, Started) else None
        replayed = (REPLAYED,) if self._session.is_replay else ()
        if call.stream:
            if self._session.run is not None:
                self._session.run.closing.headers_sent = True
            body = self._frames = self._framed(renderer, first, events)
            return Reply(200, self._headers(*renderer.headers(started), *replayed), body)
        content = await self._whole(renderer, first, events)
        if isinstance(content, Failed):
            return self._error(content.refusal)
        return Reply(200, self._headers(*renderer.headers(started), *replayed, _length(content)), content)

    async def _whole(self, renderer: Renderer, first: Event, events: AsyncIterator[Event]) -> bytes | Failed:
        items: list[str | Piece] = []
        event = first
        while True:
            match event:
                case Texts(texts):
                    items += texts
                case Pieces(pieces):
                    items += pieces
                case Completed():
                    return renderer.whole(items, event)
                case Failed():
                    return event
                case Started() | Heartbeat():
                    pass
                case _:
                    assert_never(event)
            event = await anext(events)

    async def _framed(
        self, renderer: Renderer, first: Event, events: AsyncIterator[Event]
    ) -> AsyncGenerator[bytes, None]:
        event, frames = first, 0
        while True:
            match event:
                case Started():
                    if beginning := renderer.start(event):
                        yield beginning
                case Texts(texts):
                    yield renderer.texts(texts)
                case Pieces(pieces):
                    if rendered := renderer.pieces(pieces):
                        yield rendered
                case Heartbeat():
                    yield renderer.heartbeat()
                case Completed(bill, finish_reason):
                    yield renderer.completed(bill, finish_reason)
                    return
                case Failed(refusal, bill):
                    yield renderer.failed(refusal, bill)
                    return
                case _:
                    assert_never(event)
            frames += 1
            if frames % FRAMES_WITHOUT_PAUSE == 0:
                # An upstream whose data is buffered never suspends; without this a disconnect would not be seen.
                await checkpoint()
            try:
                event = await anext(events)
            except Exception as error:  # after the head was sent, a failure can only be reported in a frame
                refusal = await self._session.fail(error)
                event = Failed(refusal, self._session.bill or NO_BILL)


def _length(body: bytes) -> Header:
    return "Content-Length", str(len(body))


async def _reply_then_drain(body: bytes, request: GatewayRequest) -> AsyncGenerator[bytes, None]:
    yield body
    await drain(request.body)
