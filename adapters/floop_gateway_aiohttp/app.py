"""The aiohttp adapter: reads the body, opens an exchange, writes the reply, cancels on disconnect.

aiohttp reports that a client has left in two ways: the request has no transport any more, which must be
polled; and, if the host has enabled `handler_cancellation`, an immediate `task.cancel()`. Both end the exchange.
"""

from contextlib import suppress

import anyio
from aiohttp import ClientConnectionError, hdrs, web
from multidict import CIMultiDict

from floop_gateway_core import ClientDisconnected, Gateway, GatewayRequest, Mountable, Reply
from floop_gateway_core.concurrency.background import Block
from floop_gateway_core.hosting.prefix import PREFIX, checked_prefix
from floop_gateway_core.management import AdminApplication, Authorize
from floop_gateway_core.observability import request_id
from floop_gateway_core.types import RequestId
from floop_gateway_core.wire.messages import CLIENT_GONE_STATUS

__all__ = ["FloopAdmin", "FloopDashboard", "setup", "sub_app"]

POLL_INTERVAL_S = 0.1
METHODS = (hdrs.METH_POST, hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_PUT, hdrs.METH_PATCH, hdrs.METH_DELETE)
METHODS = (hdrs.METH_POST, hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_PUT, hdrs.METH_PATCH, hdrs.METH_DELETE)


def setup(app: web.Application, gateway: Mountable, prefix: str = PREFIX) -> None:
    """Mount the gateway below `prefix`."""
    app.add_subapp(checked_prefix(prefix), sub_app(gateway))


def sub_app(gateway: Mountable) -> web.Application:
    """Return the gateway as a separate application, for `add_subapp` or to run alone."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _serve(gateway, request)

    async def start(_: web.Application) -> None:
        await gateway.start()

    async def close(_: web.Application) -> None:
        await gateway.aclose()

    app = web.Application()
    # The methods without OPTIONS first, so that a host's CORS can add its own OPTIONS to them (as aiohttp-cors does).
    for methods in (METHODS, (hdrs.METH_ANY,)):
        for path in (r"/{path:[\s\S]*}", ""):
            resource = app.router.add_resource(path)
            for method in methods:
                resource.add_route(method, handle)
    app.on_startup.append(start)
    app.on_cleanup.append(close)
    return app


def FloopAdmin(gateway: Gateway, authorize: Authorize) -> web.Application:  # noqa: N802 - the same name on every host
    """Return the administration over HTTP, for `add_subapp`. `authorize` gets the `web.Request`."""
    return sub_app(AdminApplication(gateway, authorize))


def FloopDashboard(  # noqa: N802 - the same name on every host
    gateway: Gateway, authorize: Authorize, login_url: str | None = None, *, gateway_path: str = PREFIX
) -> web.Application:
    """Return the dashboard, for `add_subapp`. `authorize` gets the `web.Request`."""
    from floop_gateway_core.management.dashboard import DashboardApplication  # it needs Jinja2, which is an extra

    return sub_app(DashboardApplication(gateway, authorize, login_url, gateway_path=gateway_path))


async def _serve(gateway: Mountable, request: web.Request) -> web.StreamResponse:
    response: web.StreamResponse = web.Response(status=CLIENT_GONE_STATUS)
    whole = False

    async def exchange() -> None:
        nonlocal response, whole
        async with gateway.open(_request(request)) as reply:
            response = await _response(reply)
            if isinstance(response, web.Response):
                whole = True  # aiohttp writes it, after the host's middlewares have added their headers
            else:
                with suppress(OSError, ClientConnectionError):  # the client has gone: leaving the exchange settles it
                    await _stream(response, reply, request)
                    whole = True
        tasks.cancel_scope.cancel()

    # In a separate task: aiohttp's `task.cancel()` would pass through shields, the group's cancellation does not.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange)
        await cancel_on_disconnect(request, tasks.cancel_scope)
    if not whole and request.transport is not None:
        request.transport.abort()  # the client read too slowly, and a proper end would look like a complete answer
    if (id := response.headers.get("X-Request-Id")) is not None:
        request_id.set(RequestId(id))  # the exchange has set it in its own task; a host's middlewares run in this one
    return response


def _request(request: web.Request) -> GatewayRequest:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    path = request.match_info.get("path")
    return GatewayRequest(
        request.method,
        "" if path is None else f"/{path}",
        headers,
        _body(request),
        request.rel_url.raw_query_string,
        request,
    )


def _body(request: web.Request) -> "bytes | _Body":
    """Return the body, from aiohttp's cache if a middleware has read it already."""
    read = getattr(request, "_read_bytes", None)
    if read is not None:
        return bytes(read)
    return _Body(request) if request.body_exists else b""


async def _response(reply: Reply) -> web.StreamResponse:
    """Return an answer that is already complete as a `web.Response`; a stream is written later.

    A refusal's body is an iterator that keeps reading the request after its one chunk; aiohttp does that itself.
    """
    headers = CIMultiDict(reply.headers)
    if "Content-Length" not in headers and not isinstance(reply.body, bytes):
        return web.StreamResponse(status=reply.status, headers=headers)
    body = reply.body if isinstance(reply.body, bytes) else await anext(reply.body, b"")
    headers.popall("Content-Length", None)  # aiohttp writes its own
    return web.Response(status=reply.status, headers=headers, body=body)


async def _stream(response: web.StreamResponse, reply: Reply, request: web.Request) -> None:
    await response.prepare(request)
    head_only = request.method == "HEAD"  # aiohttp would send a body anyway
    if not isinstance(reply.body, bytes):
        async for chunk in reply.body:
            await response.write(b"" if head_only else chunk)
    await response.write_eof()


async def cancel_on_disconnect(request: web.Request, block: Block) -> None:
    while (transport := request.transport) is not None and not transport.is_closing():  # noqa: ASYNC110 - no event is there
        await anyio.sleep(POLL_INTERVAL_S)
    block.cancel()


class _Body:
    def __init__(self, request: web.Request) -> None:
        self._content = request.content

    async def read(self) -> bytes:
        try:
            return await self._content.readany()
        except (OSError, EOFError, web.RequestPayloadError):
            raise ClientDisconnected from None
