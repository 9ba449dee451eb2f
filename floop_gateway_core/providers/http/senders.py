"""How requests are sent unless the host passed a client: directly over aiohttp on asyncio, over httpx on trio.

Chosen by measurement: httpx's connection pool is slow under concurrency, and its request and response objects around
aiohttp's cost as much as the gateway's own policy. There is no limit on connections: the number of streams is the host's
concurrency, and a queue inside the client would be invisible. Environment variables for proxies are not read; a host behind
one passes its own client.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from yarl import URL

from floop_gateway_core.providers.base import UpstreamRequest
from floop_gateway_core.providers.http.base import HttpxResponse, Response, Sender, httpx_body

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

__all__ = ["make_sender"]

KEEP_ALIVE_S = 30.0
"""Shorter than the idle time-outs of common servers and load balancers, which start at 60 s."""
MAX_HEADER_BYTES = 64 * 1024
"""The maximum size of a response header: some servers send whole policies in one."""

_url = lru_cache(maxsize=256)(URL)


def make_sender(connect_s: float) -> Sender:
    """Return the sender for the running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _Httpx(connect_s)
    return _Aiohttp(connect_s)


class _Aiohttp:
    def __init__(self, connect_s: float) -> None:
        self._connect_s = connect_s
        self._tls = ssl.create_default_context()
        self._session = self._new_session(force_close=False)
        self._fresh = self._new_session(force_close=True)

    def _new_session(self, *, force_close: bool) -> aiohttp.ClientSession:
        keep = {} if force_close else {"keepalive_timeout": KEEP_ALIVE_S}
        return aiohttp.ClientSession(
            connector=_Connector(limit=0, force_close=force_close, ssl=self._tls, **keep),  # type: ignore[arg-type]
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(sock_connect=self._connect_s),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> Response:
        _opened.set(False)
        try:
            return await self._post(self._session, request, on_sent)
        except aiohttp.ClientConnectionError:
            if _opened.get():
                raise
        # The server had closed the idle connection, which says nothing about this request.
        return await self._post(self._fresh, request, on_sent)

    async def _post(
        self, session: aiohttp.ClientSession, request: UpstreamRequest, on_sent: Callable[[], None]
    ) -> Response:
        body = _Body(request.body, on_sent)
        return _Answer(await session.post(_url(request.url), data=body, headers=request.headers, allow_redirects=False))

    async def aclose(self) -> None:
        await self._session.close()
        await self._fresh.close()

    def abandon(self) -> None:
        for session in (self._session, self._fresh):
            connector = session.connector
            session.detach()  # or it would warn that nobody closed it
            if connector is not None:
                for connections in connector._conns.values():
                    for protocol, _ in connections:
                        _close_socket(protocol.transport)
                connector._conns.clear()


def _close_socket(transport: object) -> None:
    """Close a transport's socket without its event loop, which `close` would need; uvloop closes them by itself."""
    if (socket := getattr(transport, "_sock", None)) is not None:
        socket.close()
        transport._sock = None  # type: ignore[attr-defined]


_opened: ContextVar[bool] = ContextVar("floop_gateway_connection_opened", default=False)
"""Whether the request that this task sends has opened a connection of its own."""


class _Connector(aiohttp.TCPConnector):
    """Notes when a connection is opened. aiohttp's tracing tells it too, for a tenth of a request's cost."""

    async def _create_connection(self, req: ClientRequest, *rest: Any) -> ResponseHandler:
        _opened.set(True)
        return await super()._create_connection(req, *rest)


class _Body(aiohttp.BytesPayload):
    """A request's body, which is written once the connection stands: that is when the request is sent."""

    def __init__(self, body: bytes, on_sent: Callable[[], None]) -> None:
        super().__init__(body)
        self._on_sent = on_sent

    async def write_with_length(self, writer: "AbstractStreamWriter", content_length: int | None) -> None:
        self._on_sent()
        await super().write_with_length(writer, content_length)


class _Answer:
    """An aiohttp response with httpx's names."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status_code = response.status
        self.headers = response.headers

    @property
    def ended(self) -> bool:
        return self._response.content.at_eof()

    async def read(self) -> bytes:
        return await self._response.content.readany()

    async def aclose(self) -> None:
        self._response.close()


class _Response(aiohttp.ClientResponse):
    """A response whose body raises when its framing breaks.

    aiohttp's compiled parser gives a malformed chunk size to the connection only, so a read in progress would wait forever.
    """

    async def start(self, connection: Connection) -> "_Response":
        await super().start(connection)
        if isinstance(protocol := connection.protocol, ResponseHandler):
            tell_connection, content = protocol.set_exception, self.content

            def tell_both(error: BaseException, *cause: BaseException) -> None:
                tell_connection(error, *cause)
                if not content.is_eof() and content.exception() is None:
                    content.set_exception(aiohttp.ClientPayloadError("the body's framing is broken"))

            protocol.set_exception = tell_both  # type: ignore[method-assign, assignment]
        return self


class _Httpx:
    """httpx's transport without a client, which would look for cookies, redirects and authentication."""

    def __init__(self, connect_s: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_S)
        self._transport = httpx.AsyncHTTPTransport(limits=limits)
        self._timeout = httpx.Timeout(None, connect=connect_s).as_dict()

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> Response:
        headers, body = httpx_body(request, on_sent)
        sent = httpx.Request("POST", request.url, headers=headers, content=body, extensions={"timeout": self._timeout})
        return HttpxResponse(await self._transport.handle_async_request(sent))

    async def aclose(self) -> None:
        await self._transport.aclose()

    def abandon(self) -> None:
        """Do nothing: trio closes the sockets of a run that has ended."""
