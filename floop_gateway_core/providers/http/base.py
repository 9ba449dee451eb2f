"""What the driver and the HTTP clients under it agree on."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Protocol, cast

import httpx

from floop_gateway_core.providers.base import UpstreamRequest

__all__ = ["HttpxResponse", "Response", "Sender", "httpx_body"]


class Response(Protocol):
    """An HTTP answer whose body is still to be read."""

    @property
    def status_code(self) -> int:
        """Return the status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers by their names in lower case."""

    @property
    def ended(self) -> bool:
        """Return whether the body was read to its end, so that its connection can be used again."""

    async def read(self) -> bytes:
        """Return the next bytes as they came, their content encoding included; `b""` at the end."""

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""


class Sender(Protocol):
    """Sends requests on one event loop."""

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> Response:
        """Send a request; call `on_sent` when it goes out on a connection."""

    async def aclose(self) -> None:
        """Close all connections."""

    def abandon(self) -> None:
        """Drop the connections of an event loop that is closed, where nothing can be awaited any more."""


class HttpxResponse:
    """A `Response` over one of httpx's."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = cast(AsyncGenerator[bytes, None], response.aiter_raw())
        self.status_code = response.status_code
        self.headers = response.headers
        self.ended = False

    async def read(self) -> bytes:
        """Return the next bytes; `b""` at the end."""
        while (chunk := await anext(self._chunks, None)) is not None:
            if chunk:
                return chunk
        self.ended = True
        return b""

    async def aclose(self) -> None:
        """Close the response, and unwind the generators under it: a suspended reader would be a leak."""
        await self._response.aclose()
        with suppress(Exception):
            # On a closed response the innermost generator raises, which ends all of those around it.
            while await anext(self._chunks, None) is not None:
                pass
        await self._chunks.aclose()


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
