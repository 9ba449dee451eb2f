"""Reading, opening, writing, disconnecting: all that aiohttp and the gateway have to say to each other.

aiohttp tells a handler that its client has left in two ways: the request has no transport any more, which one must look
at; and, where the host has turned `handler_cancellation` on, a `task.cancel()` at once. Both end in the exchange's end.
"""

from contextlib import suppress

import anyio
from aiohttp import ClientConnectionError, web
from multidict import CIMultiDict

from floop_gateway_core import ClientDisconnected, Gateway, GatewayRequest, Reply

__all__ = ["setup", "sub_app"]

PREFIX = "/api/v1/ai"
POLL_INTERVAL_S = 0.1
CLIENT_GONE = 499


def setup(app: web.Application, gateway: Gateway, prefix: str = PREFIX) -> None:
    """Mount the gateway below `prefix`."""
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise ValueError(f"prefix is {prefix!r}; it starts with a slash and does not end with one")
    app.add_subapp(prefix, sub_app(gateway))


def sub_app(gateway: Gateway) -> web.Application:
    """Give the gateway as an application of its own, for `add_subapp`, or to be run alone."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _serve(gateway, request)

    async def start(_: web.Application) -> None:
        await gateway.start()

    async def close(_: web.Application) -> None:
        await gateway.aclose()

    app = web.Application()
    app.router.add_route("*", r"/{path:[\s\S]*}", handle)
    app.router.add_route("*", "", handle)
    app.on_startup.append(start)
    app.on_cleanup.append(close)
    return app


async def _serve(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    path = request.match_info.get("path")
    body = _Body(request) if request.body_exists else b""
    ours = GatewayRequest(request.method, "" if path is None else f"/{path}", headers, body)
    response = web.StreamResponse(status=CLIENT_GONE)
    whole = False

    async def exchange() -> None:
        nonlocal response, whole
        async with gateway.open(ours) as reply:
            response = web.StreamResponse(status=reply.status, headers=CIMultiDict(reply.headers))
            with suppress(OSError, ClientConnectionError):  # the client has gone: leaving the exchange settles it
                await _write(response, reply, request)
                whole = True
        tasks.cancel_scope.cancel()

    # In a task of its own: aiohttp's `task.cancel()` would pass through shields, the group's cancellation does not.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange)
        await cancel_on_disconnect(request, tasks.cancel_scope)
    if not whole and request.transport is not None:
        request.transport.abort()  # it took the answer too slowly, and an end would look like a whole one
    return response


async def _write(response: web.StreamResponse, reply: Reply, request: web.Request) -> None:
    await response.prepare(request)
    head_only = request.method == "HEAD"  # aiohttp would send a body all the same
    if isinstance(reply.body, bytes):
        await response.write(b"" if head_only else reply.body)
    else:
        async for chunk in reply.body:
            await response.write(b"" if head_only else chunk)
    await response.write_eof()


async def cancel_on_disconnect(request: web.Request, scope: anyio.CancelScope) -> None:
    while (transport := request.transport) is not None and not transport.is_closing():  # noqa: ASYNC110 - no event is there
        await anyio.sleep(POLL_INTERVAL_S)
    scope.cancel()


class _Body:
    def __init__(self, request: web.Request) -> None:
        self._content = request.content

    async def read(self) -> bytes:
        try:
            return await self._content.readany()
        except (OSError, EOFError, web.RequestPayloadError):
            raise ClientDisconnected from None
