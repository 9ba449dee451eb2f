"""The thin HTTP driver: carries a codec's bytes over the httpx API and translates every foreign failure, once, here.

An injected `httpx.AsyncClient` is always used as it is. Otherwise each event loop gets a client of its own, opened at the
first request: on asyncio over aiohttp's connection pool, which the benchmarks show to be much faster under concurrency
than httpx's own; on trio over httpx's.

What leaves here in an `UpstreamFault` is a status number and our own words: never a URL's query, a header or a body.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from time import time
from types import TracebackType
from typing import cast

import anyio
import httpx
from anyio.lowlevel import RunVar

from floop_gateway_core.policy.retry import Fault
from floop_gateway_core.providers.base import Codec, Decoder, Delta, UpstreamCall, UpstreamFault

__all__ = ["Clients", "HttpProvider"]

MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_S = 5.0
REST_S = 0.05
MAX_CONNECTIONS = 1000
KEEP_ALIVE_S = 30.0


class Clients:
    """The HTTP client of each event loop, or the one that the host handed in (which the host closes)."""

    def __init__(self, injected: httpx.AsyncClient | None = None, *, connect_s: float = 5.0) -> None:
        self._injected = injected
        self._connect_s = connect_s
        self._own: RunVar[httpx.AsyncClient | None] = RunVar(f"floop_gateway_client_{id(self)}", None)

    def get(self) -> httpx.AsyncClient:
        if self._injected is not None:
            return self._injected
        client = self._own.get()
        if client is None:
            # Waiting for events is the engine's to limit, so only connecting has a limit here. No pool time-out: the
            # number of streams is the host's concurrency, and a queue inside the client would be invisible.
            timeout = httpx.Timeout(None, connect=self._connect_s)
            client = httpx.AsyncClient(transport=_transport(), timeout=timeout, follow_redirects=False)
            self._own.set(client)
        return client

    async def aclose(self) -> None:
        """Close this event loop's own client."""
        client = self._own.get()
        if client is not None:
            self._own.set(None)
            await client.aclose()


def _transport() -> httpx.AsyncBaseTransport:
    limits = httpx.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S
    )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return httpx.AsyncHTTPTransport(limits=limits)
    from httpx_aiohttp import AiohttpTransport  # not at import: whoever injects a client never pays for it

    return AiohttpTransport(limits=limits)


class HttpProvider:
    """One vendor's wire format at one place, for any number of deployments."""

    def __init__(
        self, codec: Codec, clients: Clients, *, base_url: str | None = None, api_key: str | None = None
    ) -> None:
        self._codec = codec
        self._clients = clients
        self._base_url = base_url
        self._api_key = api_key

    def open(self, call: UpstreamCall, on_sent: Callable[[], None]) -> "_Answer":
        request = self._codec.encode(call, base_url=self._base_url, api_key=self._api_key)
        client = self._clients.get()
        headers = [*request.headers, ("Content-Length", str(len(request.body)))]
        return _Answer(
            self._codec,
            client,
            client.build_request("POST", request.url, headers=headers, content=_Body(request.body, on_sent)),
        )


class _Body(httpx.AsyncByteStream):
    """A request's body, which is asked for once the connection stands: that is when the request is sent."""

    def __init__(self, body: bytes, on_sent: Callable[[], None]) -> None:
        self._body = body
        self._on_sent = on_sent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._on_sent()
        yield self._body


class _Answer:
    """One open answer. A connection goes back to the pool where the body was read to its end, else it is closed."""

    def __init__(self, codec: Codec, client: httpx.AsyncClient, request: httpx.Request) -> None:
        self._codec = codec
        self._client = client
        self._request = request
        self._decoder: Decoder = codec.decoder()
        self._finished = False

    async def __aenter__(self) -> "_Answer":
        try:
            self._response = await self._client.send(self._request, stream=True)
        except Exception as error:
            raise _translate("connecting", error) from None
        try:
            await self._check()
        except BaseException:
            await self._close()
            raise
        plain = self._response.headers.get("content-encoding", "identity") == "identity"
        self._chunks: AsyncIterator[bytes] = self._response.aiter_raw() if plain else self._response.aiter_bytes()
        return self

    async def _check(self) -> None:
        """Raise what an answer that is no stream means: an error's status, or a 200 of another type."""
        response = self._response
        found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code == 200 and found == self._codec.content_type:
            return
        body = bytearray()
        try:
            with anyio.move_on_after(ERROR_BODY_S):
                async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_bytes())) as chunks:
                    async for chunk in chunks:
                        body += chunk
                        if len(body) > MAX_ERROR_BYTES:
                            break
        except Exception:
            body.clear()  # an error body that breaks tells nothing more than its status
        raise self._codec.fault(response.status_code, dict(response.headers), bytes(body[:MAX_ERROR_BYTES]), time())

    async def next(self) -> Delta:
        try:
            chunk = await anext(self._chunks, None)
            delta = self._decoder.end() if chunk is None else self._decoder.feed(chunk)
        except UpstreamFault:
            raise
        except Exception as error:
            raise _translate("reading", error) from None
        self._finished = delta.finish is not None
        return delta

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._finished:
            # What follows the terminal event is read, so that the connection can be used again.
            try:
                with anyio.move_on_after(REST_S):
                    async for _ in self._chunks:
                        pass
            except Exception:
                pass  # it breaks after the end: nobody's loss
        await self._close()

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REST_S * 20):
            try:
                if isinstance(chunks := getattr(self, "_chunks", None), AsyncGenerator):
                    await chunks.aclose()
                await self._response.aclose()
            except Exception:
                pass  # a connection that cannot even be closed is gone


def _translate(doing: str, error: Exception) -> UpstreamFault:
    """Name the kind of failure; the message of a foreign exception may hold anything."""
    return UpstreamFault(Fault.TRANSIENT, f"{doing} failed: {type(error).__name__}")
