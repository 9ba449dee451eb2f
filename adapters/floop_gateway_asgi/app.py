"""The ASGI adapter: reads the body, opens an exchange, writes the reply, cancels on disconnect."""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

import anyio

from floop_gateway_core import ClientDisconnected, Gateway, GatewayRequest, Mountable, Reply
from floop_gateway_core.concurrency.background import Block, Watch
from floop_gateway_core.hosting.prefix import PREFIX, below, checked_prefix
from floop_gateway_core.management import AdminApplication, Authorize
from floop_gateway_core.wire.messages import CLIENT_GONE_STATUS, MalformedBody

__all__ = ["ASGIApp", "FloopAdmin", "FloopDashboard", "FloopGateway", "FloopGatewayMiddleware"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""How long to wait for a disconnect after a `receive` that repeats itself instead of waiting."""


class FloopGateway:
    """The gateway as an ASGI application. `root_path`, the prefix it is mounted at, is not part of its paths."""

    def __init__(self, gateway: Mountable) -> None:
        self.gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await _own_lifespan(self.gateway, receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1000})
            case other:
                raise ValueError(f"unsupported ASGI scope type {other!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, ambiguous=_ends_malformed_bodies_as_gone(scope, receive))
        request = GatewayRequest(
            scope["method"],
            relative_path(scope),
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
            body,
            bytes(scope.get("query_string", b"")).decode("latin-1"),
            scope,
        )
        writer = _Writer(send)
        whole = False
        async with Watch(body.cancel_on_disconnect), self.gateway.open(request) as reply:
            await writer.write(reply)
            whole = True
        if whole:
            return
        if not body.disconnected:
            raise TimeoutError("the client took the answer too slowly; it was cut off")
        if not writer.started:
            with suppress(
                Exception
            ):  # the client has gone; an answer only keeps the host from reporting that there is none
                await writer.write(Reply(CLIENT_GONE_STATUS, [], b""))


class FloopAdmin(FloopGateway):
    """The administration over HTTP as an ASGI application. `authorize` gets the ASGI scope."""

    def __init__(self, gateway: Gateway, authorize: Authorize) -> None:
        super().__init__(AdminApplication(gateway, authorize))


class FloopDashboard(FloopGateway):
    """The dashboard as an ASGI application. `authorize` gets the ASGI scope."""

    def __init__(
        self, gateway: Gateway, authorize: Authorize, login_url: str | None = None, *, gateway_path: str = PREFIX
    ) -> None:
        from floop_gateway_core.management.dashboard import DashboardApplication  # it needs Jinja2, which is an extra

        super().__init__(DashboardApplication(gateway, authorize, login_url, gateway_path=gateway_path))


class _Writer:
    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def write(self, reply: Reply) -> None:
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
        self.started = True
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if isinstance(reply.body, bytes):
            await self._send({"type": "http.response.body", "body": reply.body})
            return
        async for chunk in reply.body:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})


class _Body:
    """Passes the body's chunks on as they are asked for; after the last one, waits for the client to leave.

    A host's middleware may have replaced `receive`: by one that repeats the body forever instead of waiting, or by one
    that raises after the client has left. With `ambiguous`, a disconnect inside the body may be broken framing too.
    """

    def __init__(self, receive: Receive, *, ambiguous: bool = False) -> None:
        self._receive = receive
        self._ambiguous = ambiguous
        self._malformed = False
        self._ended = False
        self._at_end: anyio.Event | None = None  # created only if the watch starts before the body has ended
        self.disconnected = False

    async def read(self) -> bytes:
        while not self._ended:
            try:
                message = await self._receive()
            except Exception as error:
                if "Disconnect" not in type(error).__name__:  # servers raise various exceptions for a malformed body
                    raise MalformedBody from error
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect":
                if self._ambiguous:
                    self._malformed = True
                    raise MalformedBody
                self.disconnected = True
                self._end()
                raise ClientDisconnected
            if not message.get("more_body", False):
                self._end()
            if chunk := message.get("body", b""):
                return bytes(chunk)
        return b""

    def _end(self) -> None:
        self._ended = True
        if self._at_end is not None:
            self._at_end.set()

    async def cancel_on_disconnect(self, block: Block) -> None:
        if not self._ended:
            self._at_end = anyio.Event()
            await self._at_end.wait()
        if self._malformed:
            return
        if not self.disconnected:
            await disconnected(self._receive)
            self.disconnected = True
        block.cancel()


def _ends_malformed_bodies_as_gone(scope: Scope, receive: Receive) -> bool:
    """Return whether the server reports a malformed chunk as a disconnect, as granian does; a client may then wait.

    One that has left does not read the answer, so it gets the same.
    """
    is_granian = type(getattr(receive, "__self__", None)).__module__.startswith("granian")
    return is_granian and any(name == b"transfer-encoding" for name, _ in scope["headers"])


async def disconnected(receive: Receive) -> None:
    """Return when the client has left. A `receive` that raises is not called again."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            message = await receive()
        except Exception:
            await anyio.sleep_forever()
        if message["type"] == "http.disconnect":
            return
        await anyio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


def relative_path(scope: Scope) -> str:
    """Return the path below the host's root path; hosts differ in whether `path` still holds it (ASGI: it does)."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path


class FloopGatewayMiddleware:
    """Serves the paths below `prefix` and passes everything else through, the lifespan included.

    If the application refuses the lifespan, the gateway gets a separate one, so that it is always closed.
    """

    def __init__(self, app: ASGIApp, gateway: Mountable, prefix: str = PREFIX) -> None:
        self._app = app
        self._gateway = gateway
        self._ours = FloopGateway(gateway)
        self._prefix = checked_prefix(prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request below the prefix, or pass it on."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and below(relative_path(scope), self._prefix):
            root = str(scope.get("root_path", "")).rstrip("/")
            path = root + relative_path(scope)
            await self._ours({**scope, "root_path": root + self._prefix, "path": path}, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the host's lifespan, and close the gateway after its shutdown."""
        received: list[MutableMapping[str, Any]] = []
        answered = False

        async def receiving() -> MutableMapping[str, Any]:
            message = await receive()
            if not answered:
                received.append(message)
            return message

        async def closing(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            answered = True
            if message["type"].startswith("lifespan.shutdown"):
                await self._gateway.aclose()
            await send(message)

        async def again() -> MutableMapping[str, Any]:
            return received.pop(0) if received else await receive()

        try:
            await self._app(scope, receiving, closing)
        except Exception:
            if answered:
                raise
        if not answered:  # the application has no lifespan (Django), or left it immediately
            await _own_lifespan(self._gateway, again, send)


async def _own_lifespan(gateway: Mountable, receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await gateway.start()
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        else:
            await gateway.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return
