"""The HTTP driver: sends a codec's bytes over the httpx API and translates every library's exceptions.

An injected `httpx.AsyncClient` is always used as it is. Otherwise each event loop gets a sender of its own, opened at the
first request: see `senders`.

An `UpstreamFault` raised here has a status and our own words: never a URL's query, a header or a body.
"""

import asyncio
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import time
from types import TracebackType
from weakref import WeakKeyDictionary

import anyio
import httpx

from floop_gateway_core.concurrency.loops import current_event_loop
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.providers.base import Codec, Decoder, Delta, UpstreamCall, UpstreamFault, UpstreamRequest
from floop_gateway_core.providers.http.base import HttpxResponse, Response, Sender, httpx_body

__all__ = ["HttpProvider", "HttpSenders"]

MAX_ERROR_BYTES = 64 * 1024
"""The maximum number of bytes to read from an error body."""
MAX_INFLATED_BYTES = 16 * 1024 * 1024
"""The most that one compressed chunk may inflate to."""
ERROR_BODY_S = 5.0
"""How long to wait for an error body; it is classified by whatever has arrived by then."""
REUSE_READ_TIMEOUT_S = 0.05
"""How long to wait for the end of a body after its terminal event: a new connection costs about as much."""
CLOSE_S = 1.0
"""How long closing may take before the connection is dropped."""
MAX_CHANGES = 2
"""How many times a request is resent without an optional part that the server has refused."""


class _ChangedRequest(Exception):
    """The request was refused for an optional part and is to be sent again without it."""


class HttpSenders:
    """How requests are sent: by the client that the host passed (and closes), or by our own sender."""

    def __init__(self, injected: httpx.AsyncClient | None = None, *, connect_s: float = 5.0) -> None:
        # The engine limits the wait for events, so only connecting has a limit here. No pool time-out: the number
        # of streams is the host's concurrency, and a queue inside the client would be invisible.
        self._injected = injected
        self._connect_s = connect_s
        self._lock = threading.Lock()  # several threads may run an event loop each
        self._own: WeakKeyDictionary[object, Sender] = WeakKeyDictionary()

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> Response:
        """Send a request and return the answer, whose body is still to be read and which must be closed."""
        if self._injected is not None:
            headers, body = httpx_body(request, on_sent)
            built = self._injected.build_request("POST", request.url, headers=headers, content=body)
            return HttpxResponse(await self._injected.send(built, stream=True, follow_redirects=False))
        sender = self._own.get(running := current_event_loop())
        if sender is None:
            from floop_gateway_core.providers.http.senders import make_sender  # not needed with an injected client

            sender = make_sender(self._connect_s)
            with self._lock:
                self._abandon_closed()
                self._own[running] = sender
        return await sender.send(request, on_sent)

    async def aclose(self) -> None:
        """Close this event loop's own connections."""
        sender = self._own.pop(current_event_loop(), None)
        if sender is not None:
            await sender.aclose()

    def _abandon_closed(self) -> None:
        """Close connections left by closed event loops: async Flask views, for example, run one loop for each call."""
        for loop, sender in list(self._own.items()):
            if isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed():
                del self._own[loop]
                sender.abandon()


class HttpProvider:
    """One vendor's wire format at one base URL."""

    def __init__(
        self, codec: Codec, clients: HttpSenders, *, base_url: str | None = None, api_key: str | None = None
    ) -> None:
        self.codec = codec
        self.clients = clients
        self._base_url = base_url
        self._api_key = api_key

    def open(self, call: UpstreamCall, on_sent: Callable[[], None]) -> "_Answer":
        """Return the answer to enter; optional parts that this server has refused before are left out."""
        return _Answer(self, call, on_sent)

    def request(self, call: UpstreamCall) -> UpstreamRequest:
        """Return the HTTP request of a call."""
        try:
            request = self.codec.encode(call, base_url=self._base_url, api_key=self._api_key)
        except UpstreamFault:
            raise
        except Exception as error:  # only the call can be the cause: the deployment has nothing to do with it
            reason = f"the call cannot be written for this provider: {type(error).__name__}"
            raise UpstreamFault(FaultKind.REJECTED, reason) from None
        return replace(request, headers=(*request.headers, *call.headers)) if call.headers else request

    def learn(self, body: bytes) -> bool:
        """Return whether a refusal names an optional part, which later requests leave out."""
        codec = self.codec.without_refused(body)
        if codec is not None:
            self.codec = codec
        return codec is not None


class _Answer:
    """One open answer. Its connection returns to the pool if the body was read to its end; otherwise it is closed."""

    def __init__(self, provider: HttpProvider, call: UpstreamCall, on_sent: Callable[[], None]) -> None:
        self._provider = provider
        self._codec = provider.codec
        self._call = call
        self._on_sent = on_sent
        self._decoder: Decoder = self._codec.decoder()
        self._finished = False
        self._response: Response | None = None
        self._inflate: zlib._Decompress | None = None

    async def __aenter__(self) -> "_Answer":
        for _ in range(MAX_CHANGES):
            try:
                return await self._open()
            except _ChangedRequest:
                pass  # the server has refused an optional part of the request
        return await self._open()

    async def _open(self) -> "_Answer":
        request = self._provider.request(self._call)
        try:
            response = await self._provider.clients.send(request, self._on_sent)
        except Exception as error:
            raise _translate("connecting", error) from None
        self._response = response
        try:
            await self._check(response)
        except BaseException:
            await self._close()
            raise
        return self

    async def _check(self, response: Response) -> None:
        """Raise a fault for an error status or a page of HTML. Anything else is recognised by its bytes."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if 200 <= response.status_code < 300 and kind != "text/html":
            self._inflate = _inflater(encoding)
            return
        with suppress(UpstreamFault):  # the status counts, even if the body cannot be decoded
            self._inflate = _inflater(encoding)
        body = bytearray()
        try:
            with anyio.move_on_after(ERROR_BODY_S):
                while len(body) <= MAX_ERROR_BYTES and (chunk := await self._chunk(response)):
                    body += chunk
        except Exception:
            body.clear()  # of an error body that breaks, only the status counts
        if response.status_code in (400, 422) and self._provider.learn(bytes(body)):
            raise _ChangedRequest
        raise self._codec.fault(response.status_code, dict(response.headers), bytes(body[:MAX_ERROR_BYTES]), time())

    async def _chunk(self, response: Response) -> bytes:
        """Return the next bytes of the body, or `b""` at its end. Some servers compress although we ask them not to."""
        while True:
            chunk = await response.read()
            if self._inflate is None or not chunk:
                return chunk
            if plain := self._inflated(self._inflate, chunk):
                return plain

    def _inflated(self, inflate: "zlib._Decompress", chunk: bytes) -> bytes:
        plain = inflate.decompress(chunk, MAX_INFLATED_BYTES)
        while inflate.eof and inflate.unused_data:  # several members follow each other
            rest = inflate.unused_data
            inflate = self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
            plain += inflate.decompress(rest, MAX_INFLATED_BYTES)
        if inflate.unconsumed_tail or len(plain) > MAX_INFLATED_BYTES:
            raise UpstreamFault(FaultKind.TRANSIENT, "the compressed body inflates to too many bytes")
        return plain

    async def next(self) -> Delta:
        if self._response is None:
            raise RuntimeError("the answer is not open")
        try:
            response = self._response
            chunk = await (response.read() if self._inflate is None else self._chunk(response))
            delta = self._decoder.feed(chunk) if chunk else self._decoder.end()
        except UpstreamFault:
            raise
        except Exception as error:
            raise _translate("reading", error) from None
        self._finished = delta.finish is not None
        return delta

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        response = self._response
        if response is None:
            return
        try:
            if self._finished and not response.ended:
                # What follows the terminal event is read, so that the connection can be used again.
                with suppress(Exception), anyio.move_on_after(REUSE_READ_TIMEOUT_S):
                    while await response.read():
                        pass
        finally:
            await self._close()

    async def _close(self) -> None:
        response, self._response = self._response, None
        if response is None or response.ended:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_S), suppress(Exception):
            await response.aclose()  # a connection that cannot even be closed is gone


def _inflater(encoding: str) -> "zlib._Decompress | None":
    match encoding:
        case "identity" | "none" | "":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(zlib.MAX_WBITS | 32)
        case _:
            raise UpstreamFault(FaultKind.TRANSIENT, "the content encoding was not requested")


def _translate(doing: str, error: Exception) -> UpstreamFault:
    """Name the kind of failure; the message of a foreign exception may hold anything."""
    return UpstreamFault(FaultKind.TRANSIENT, f"{doing} failed: {type(error).__name__}")
