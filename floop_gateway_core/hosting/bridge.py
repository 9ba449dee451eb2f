"""`Gateway.open` for synchronous hosts: WSGI servers, threads, scripts.

    host's thread                          the process's one portal: an event loop in its own thread
    bridge.open(request)      ── starts ──▶ an owner task, the only one to enter, drive and leave gateway.open()
    next(reply.body)          ◀── drains ── a bounded buffer, which the owner fills; full, it waits for the host
    reply.body.close()        ── cancels ─▶ the owner leaves the exchange, which settles what is unsettled

There is a buffer because a call into the loop for each chunk costs ten times as much; the host takes all that is ready in
one piece. The portal is started at the first exchange, so an application may be loaded before its server forks, and after a
fork the child starts its own. If a host neither reads on nor closes, the exchange ends by itself after `total_s`.

At the interpreter's exit open exchanges are cancelled and settled, and the gateways' connections are closed.
"""

import atexit
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeVar, Unpack
from weakref import WeakSet

import anyio
from anyio.from_thread import BlockingPortal

from floop_gateway_core.admin import Admin, Operator
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.hosting.threaded_body import ThreadedBody
from floop_gateway_core.in_process import Answer, AnswerStream, CallEvent, CallOptions, MessageLike
from floop_gateway_core.types import Bill, FinishReason, RequestId, Texts
from floop_gateway_core.wire.messages import ClientDisconnected, GatewayRequest, Headers, Mountable, Reply

__all__ = ["BlockingBody", "Bridge", "SyncReply", "run"]

T = TypeVar("T")

BUFFER_BYTES = 64 * 1024
"""The maximum that is queued before the answer waits for the host to read, in bytes."""
SHUTDOWN_TIMEOUT_S = 10.0
"""How long each step of the shutdown may take."""


@dataclass(frozen=True, slots=True)
class SyncReply:
    """`body` is bytes, or an iterator of chunks that the host reads in any one thread at a time, and must close."""

    status: int
    headers: Headers
    body: "bytes | BlockingBody" = field(repr=False)


class Bridge:
    """One gateway, for any number of threads and, after a fork, of processes."""

    def __init__(self, gateway: Gateway, mounted: Mountable | None = None) -> None:
        self.gateway = gateway
        self._mounted = mounted or gateway  # what `open` opens: another application over the same gateway, perhaps

    def open(self, request: GatewayRequest) -> SyncReply:
        """Begin an exchange and wait for its status. A body that is read from the host is a `ThreadedBody`.

        Raises `RuntimeError` if the process is stopping, or in the portal's own thread.
        """
        return BlockingBody(_process(self.gateway), self._mounted, request).reply()

    def chat(self, key: str, messages: Sequence[MessageLike], **options: Unpack[CallOptions]) -> Answer:
        """The synchronous twin of `Gateway.chat`."""
        return self.call(partial(self.gateway.chat, key, messages, **options))

    def generate(self, key: str, prompt: str, **options: Unpack[CallOptions]) -> Answer:
        """The synchronous twin of `Gateway.generate`."""
        return self.call(partial(self.gateway.generate, key, prompt, **options))

    @contextmanager
    def stream(
        self, key: str, messages: Sequence[MessageLike], **options: Unpack[CallOptions]
    ) -> Generator["SyncAnswerStream", None, None]:
        """The synchronous twin of `Gateway.stream`: `with bridge.stream(…) as answer: for text in answer: …`."""
        portal = _process(self.gateway).portal
        with portal.wrap_async_context_manager(self.gateway.stream(key, messages, **options)) as answer:
            yield SyncAnswerStream(portal, answer)

    @property
    def admin(self) -> "SyncAdmin":
        """The administration: `bridge.admin.create_project("shop")`."""
        return SyncAdmin(self, self.gateway.admin)

    def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run a coroutine function in the gateway's event loop and wait: `bridge.call(gateway.rotate_key, "shop")`."""
        return _wait(_process(self.gateway).portal, function, *args)


class SyncAdmin:
    """The methods of `Admin` for a thread: each waits, and returns what the coroutine returns."""

    def __init__(self, bridge: Bridge, admin: Admin) -> None:
        self._bridge = bridge
        self._admin = admin

    def acting(self, operator: Operator) -> "SyncAdmin":
        """Return this administration acting for an operator."""
        return SyncAdmin(self._bridge, self._admin.acting(operator))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._admin, name)
        if name.startswith("_") or not inspect.iscoroutinefunction(method):
            raise AttributeError(f"the administration has no coroutine method {name!r}")
        return lambda *args, **kwargs: self._bridge.call(partial(method, *args, **kwargs))


class SyncAnswerStream:
    """An `AnswerStream` for a thread: iterate over its texts, or over `events`."""

    def __init__(self, portal: BlockingPortal, answer: AnswerStream) -> None:
        self._portal = portal
        self._answer = answer

    @property
    def request_id(self) -> RequestId:
        """The id of the call's record in the usage log."""
        return self._answer.request_id

    @property
    def bill(self) -> Bill | None:
        """What the call has cost; final once the answer has ended or was left."""
        return self._answer.bill

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer was complete; None before its end."""
        return self._answer.finish_reason

    def __iter__(self) -> Iterator[str]:
        for event in self.events():
            if isinstance(event, Texts):
                yield from event.texts

    def events(self) -> Iterator[CallEvent]:
        """Yield the answer's events; raise `GatewayError`."""
        while (event := _wait(self._portal, self._answer.next_event)) is not None:
            yield event


# -- the process's portal ----------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _Process:
    """The portal and what depends on it. `open` are the exchanges whose owner has not left yet."""

    pid: int
    portal: BlockingPortal
    thread: threading.Thread
    gateways: WeakSet[Gateway] = field(default_factory=WeakSet)
    open: "set[BlockingBody]" = field(default_factory=set)


_lock = threading.Lock()
_current: _Process | None = None
_stopped = False


def run(function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run a coroutine function in the process's event loop and wait, for pieces that need no gateway."""
    return _wait(_process().portal, function, *args)


def _wait(portal: BlockingPortal, function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run a coroutine function in the portal and wait. An interrupt of the waiting thread cancels it."""
    future = portal.start_task_soon(function, *args)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _process(gateway: Gateway | None = None) -> _Process:
    """Return this process's portal, started if needed. A portal from before a fork has lost its thread."""
    global _current
    process = _current
    if process is None or process.pid != os.getpid():
        with _lock:
            process = _current
            if _stopped:
                raise RuntimeError("the process is shutting down; no new requests are accepted")
            if process is None or process.pid != os.getpid():
                process = _current = _start()
    if gateway is not None and gateway not in process.gateways:
        process.gateways.add(gateway)
    return process


def _start() -> _Process:
    """Start a portal without anyio's context manager, which would wait for a dead thread when dropped after a fork."""
    started: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    def run() -> None:
        try:
            anyio.run(serve, backend="asyncio")
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="floop-gateway", daemon=True)
    thread.start()
    process = _Process(os.getpid(), started.result(), thread)
    atexit.unregister(_stop)
    atexit.register(_stop)
    return process


def _after_fork() -> None:
    """Replace the lock in a child process: it may be held by a thread that is gone."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _stop() -> None:
    """End open exchanges, close the gateways and stop the portal, within `SHUTDOWN_TIMEOUT_S` each."""
    global _current, _stopped
    with _lock:
        process, _current, _stopped = _current, None, True
    if process is None or process.pid != os.getpid():
        return
    deadline = monotonic() + SHUTDOWN_TIMEOUT_S
    still_open = list(process.open)
    for chunks in still_open:
        chunks.close()
    for chunks in still_open:
        chunks.wait_left(deadline - monotonic())
    with suppress(Exception):
        process.portal.call(_close, list(process.gateways))
        process.portal.call(process.portal.stop, True)
    process.thread.join(SHUTDOWN_TIMEOUT_S)


async def _close(gateways: list[Gateway]) -> None:
    with anyio.move_on_after(SHUTDOWN_TIMEOUT_S):
        for gateway in gateways:
            with suppress(Exception):
                await gateway.aclose()


# -- one exchange ------------------------------------------------------------------------------------------------------


class BlockingBody(Iterator[bytes]):
    """An answer's body on its way from the owner task to the host's thread. Closing it is idempotent and waits for nothing.

    Everything that both sides use is guarded by `_changed`, which is only ever held briefly.
    """

    def __init__(self, process: _Process, gateway: Mountable, request: GatewayRequest) -> None:
        self._process = process
        self._gateway = gateway
        self._request = request
        self._changed = threading.Condition(threading.Lock())
        self._reply: SyncReply | None = None
        self._ready: list[bytes] = []
        self._ready_bytes = 0
        self._room: anyio.Event | None = None
        self._error: Exception | None = None
        self._left = False
        self._on_close: Callable[[], None] | None = None
        process.open.add(self)
        try:
            self._owner = process.portal.start_task_soon(self._own)
        except RuntimeError as error:
            process.open.discard(self)
            if _patched_by_gevent():
                raise RuntimeError(
                    "gevent has replaced the threads that the gateway's event loop needs: load the application after the "
                    "fork (without --preload), or use gunicorn's gthread workers instead of gevent"
                ) from error
            raise
        except BaseException:
            process.open.discard(self)
            raise

    # -- the owner task, in the loop -------------------------------------------------------------------------------

    async def _own(self) -> None:
        whole = False
        error: Exception | None = None
        try:
            async with self._gateway.open(self._request) as reply:
                self._begin(reply)
                if not isinstance(reply.body, bytes):
                    async for chunk in reply.body:
                        await self._hand_over(chunk)
                whole = True
        except Exception as raised:
            error = raised
        finally:
            if not whole and error is None:
                error = TimeoutError("the answer was cut off: the client read too slowly, or the process is stopping")
            with self._changed:
                self._error, self._left = error, True
                self._changed.notify_all()
            self._process.open.discard(self)

    def _begin(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else self
        with self._changed:
            self._reply = SyncReply(reply.status, reply.headers, body)
            self._changed.notify_all()

    async def _hand_over(self, chunk: bytes) -> None:
        """Hand a chunk to the host's thread; wait while enough is queued."""
        with self._changed:
            self._ready.append(chunk)
            self._ready_bytes += len(chunk)
            self._changed.notify_all()
            if self._ready_bytes < BUFFER_BYTES:
                return
            room = self._room = anyio.Event()
        await room.wait()

    # -- the host's thread -----------------------------------------------------------------------------------------

    def reply(self) -> SyncReply:
        """Wait for the status or the failure of the exchange."""
        try:
            with self._changed:
                while self._reply is None and not self._left:
                    self._changed.wait()
                if self._reply is None:
                    raise self._error or RuntimeError("the exchange ended without an answer")
                return self._reply
        except BaseException:
            self.close()
            raise

    def __next__(self) -> bytes:
        """Return everything that is queued, joined."""
        try:
            with self._changed:
                while not self._ready and not self._left:
                    self._changed.wait()
                ready, self._ready, self._ready_bytes = self._ready, [], 0
                room, self._room = self._room, None
        except BaseException:  # a server's signal handler may raise in the middle of the wait
            self.close()
            raise
        if room is not None:
            with suppress(RuntimeError):  # the portal has stopped, and the owner with it
                self._process.portal.start_task_soon(room.set)
        if ready:
            return ready[0] if len(ready) == 1 else b"".join(ready)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if isinstance(self._request.body, ThreadedBody) and self._request.body.blocked:
            # The answer is out. Reading on from this connection would compete with the read that never returned.
            raise ClientDisconnected("the rest of the request's body never came; the connection cannot be used again")
        raise StopIteration

    def close(self) -> None:
        """Leave the exchange, which settles the call. Idempotent; waits for nothing."""
        self._owner.cancel()
        self._over()

    def on_close(self, closed: Callable[[], None]) -> None:
        """Call this once: when the host closes the body, or drops it without closing it, as it should not."""
        self._on_close = closed

    def _over(self) -> None:
        closed, self._on_close = self._on_close, None
        if closed is not None:
            closed()

    def __del__(self) -> None:
        self._over()

    def wait_left(self, limit_s: float) -> bool:
        """Wait until the owner has left the exchange, which is then settled; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._left, max(0.0, limit_s))
