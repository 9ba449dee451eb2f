"""The transports of our own, chosen by measurement: aiohttp's connections under the httpx API on asyncio, httpx's on trio.

There is no limit on connections: the number of streams is the host's concurrency, and a queue inside the client would be
invisible. Environment variables for proxies are not read; a host behind one hands in its own client.
"""

import asyncio
import ssl

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from httpx_aiohttp import AiohttpTransport

__all__ = ["make_transport"]

KEEP_ALIVE_S = 30.0


def make_transport() -> httpx.AsyncBaseTransport:
    """Make the transport for the event loop that is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_S)
        return httpx.AsyncHTTPTransport(limits=limits)
    return AiohttpTransport(client=_session)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=ssl.create_default_context()),
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=_Response,
    )


class _Response(aiohttp.ClientResponse):
    """Tells whoever reads the body when its framing breaks.

    aiohttp's compiled parser gives a malformed chunk size to the connection only, so a read that is under way would wait
    for ever.
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
