"""What the driver and the HTTP clients under it agree on."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

import httpx

from floop_gateway_core.providers.base import UpstreamRequest

__all__ = ["Response", "Sender", "httpx_body"]


class Response(Protocol):
    """An HTTP answer whose body is still to be read; `httpx.Response` is one."""

    @property
    def status_code(self) -> int:
        """Return the status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers, which are looked up in any case of a name."""

    def aiter_raw(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it came, its content encoding included."""

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""


class Sender(Protocol):
    """Sends requests on one event loop."""

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> Response:
        """Send a request; call `on_sent` when it goes out on a connection."""

    async def aclose(self) -> None:
        """Close all connections."""


def httpx_body(
    request: UpstreamRequest, on_sent: Callable[[], None]
) -> tuple[list[tuple[str, str]], httpx.AsyncByteStream]:
    """Return the headers and the body as httpx takes them."""
    return [*request.headers, ("Content-Length", str(len(request.body)))], _Body(request.body, on_sent)


class _Body(httpx.AsyncByteStream):
    """A request's body, which httpx asks for once the connection stands: that is when the request is sent."""

    def __init__(self, body: bytes, on_sent: Callable[[], None]) -> None:
        self._body = body
        self._on_sent = on_sent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._on_sent()
        yield self._body
