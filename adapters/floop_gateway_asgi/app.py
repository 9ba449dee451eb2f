"""Reading, opening, writing, disconnecting: all that an ASGI host and the gateway have to say to each other."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import anyio

from floop_gateway_core import ClientDisconnected, Gateway, GatewayRequest, Reply
from floop_gateway_core.concurrency.background import BackgroundTask

__all__ = ["ASGIApp", "FloopGateway", "FloopGatewayMiddleware"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class FloopGateway:
    """The gateway as an ASGI application. What a host has mounted away is in `root_path`, and is not part of our path."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await _own_lifespan(self.gateway, receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1000})
            case other:
                raise ValueError(f"the gateway serves no {other!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive)
        request = GatewayRequest(
            scope["method"],
            relative_path(scope),
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
            body,
        )
        whole = False
        async with BackgroundTask(body.cancel_on_disconnect), self.gateway.open(request) as reply:
            await _write(reply, send)
            whole = True
        if not whole and not body.disconnected:
            raise TimeoutError("the client took the answer too slowly; it was cut off")


async def _write(reply: Reply, send: Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if isinstance(reply.body, bytes):
        await send({"type": "http.response.body", "body": reply.body})
        return
    async for chunk in reply.body:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class _Body:
    """Hands the body's chunks over as they are asked for; from the last one on, waits for the client to leave."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = anyio.Event()
        self.disconnected = False

    async def read(self) -> bytes:
        while not self._ended.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.disconnected = True
                self._ended.set()
                raise ClientDisconnected
            if not message.get("more_body", False):
                self._ended.set()
            if chunk := message.get("body", b""):
                return bytes(chunk)
        return b""

    async def cancel_on_disconnect(self, scope: anyio.CancelScope) -> None:
        await self._ended.wait()
        while not self.disconnected:
            self.disconnected = (await self._receive())["type"] == "http.disconnect"
        scope.cancel()


def relative_path(scope: Scope) -> str:
    """Give the path below the host's root path; hosts differ in whether `path` still holds it (ASGI: it does)."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path


class FloopGatewayMiddleware:
    """Serves the paths below `prefix` and passes everything else through, the lifespan included."""

    def __init__(self, app: ASGIApp, gateway: Gateway, prefix: str = "/api/v1/ai") -> None:
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise ValueError(f"prefix is {prefix!r}; it starts with a slash and does not end with one")
        self._app = app
        self._gateway = gateway
        self._ours = FloopGateway(gateway)
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and (relative_path(scope) + "/").startswith(self._prefix + "/"):
            root = str(scope.get("root_path", "")).rstrip("/")
            path = root + relative_path(scope)
            await self._ours({**scope, "root_path": root + self._prefix, "path": path}, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The host's lifespan runs as ever; the gateway is closed behind its shutdown."""

        async def closing(message: MutableMapping[str, Any]) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await self._gateway.aclose()
            await send(message)

        await self._app(scope, receive, closing)


async def _own_lifespan(gateway: Gateway, receive: Receive, send: Send) -> None:
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
