"""How requests are sent unless the host passed a client: by our own client on asyncio, over httpx on trio.

Chosen by measurement: even the fastest Python client costs as much per request as all of the gateway's policy work.
There is no limit on connections, and proxy environment variables are not read; a host behind a proxy passes its own
client.
"""

import asyncio
from collections.abc import Callable

import httpx

from floop_gateway_core.providers.base import UpstreamRequest
from floop_gateway_core.providers.http.base import HttpxResponse, Response, Sender, httpx_body
from floop_gateway_core.providers.http.http11 import KEEP_ALIVE_S, Http11Sender

__all__ = ["make_sender"]


def make_sender(connect_s: float) -> Sender:
    """Return the sender for the running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _Httpx(connect_s)
    return Http11Sender(connect_s)


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
