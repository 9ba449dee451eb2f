"""An HTTP/1.1 client on asyncio that does one thing: post a body and read the answer's bytes as they come.

`httptools` (llhttp) parses. The extra features of a general client (redirects, cookies, decompression, its own flow
control) cost more than all policy work for a request, and a response of many small chunks pays for them on each one.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from floop_gateway_core.providers.base import UpstreamRequest

__all__ = ["Http11Sender", "UpstreamConnectionError"]

KEEP_ALIVE_S = 30.0
"""Shorter than the idle time-outs of common servers and load balancers, which start at 60 s."""
MAX_HEADER_BYTES = 128 * 1024
"""The maximum size of all response headers: some servers send whole policies in one."""
HIGH_WATER_BYTES = 256 * 1024
"""Reading from the socket pauses while this much of a body waits for its reader."""
SAFE = "/?%:@!$&'()*+,;=~"
"""The characters that need no escaping in a path or a query (RFC 3986)."""
NEXT_ADDRESS_AFTER_S = 0.25
"""How long a connection attempt runs before the host's next address is tried in parallel (RFC 8305)."""


class UpstreamConnectionError(ConnectionError):
    """The connection or its framing broke. The message is ours: it quotes nothing that a server has sent."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL's parts: `origin` is the key of its connections, `head` the request's first lines."""

    origin: tuple[str, str, int]
    head: str


@lru_cache(maxsize=256)
def _target(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the URL must be http://… or https://…")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    host = name if parts.port is None else f"{name}:{port}"
    path = quote(parts.path or "/", safe=SAFE) + (f"?{quote(parts.query, safe=SAFE)}" if parts.query else "")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nUser-Agent: floop-gateway\r\n"
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        head += f"Authorization: Basic {b64encode(login).decode()}\r\n"
    return _Target((parts.scheme, parts.hostname, port), head)


def _head(target: _Target, request: UpstreamRequest) -> bytes:
    lines = [target.head]
    for name, value in request.headers:
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"the value of the header {name} must be one line")
        lines.append(f"{name}: {value}\r\n")
    lines.append(f"Content-Length: {len(request.body)}\r\n\r\n")
    return "".join(lines).encode()


class Http11Sender:
    """Sends requests on the running event loop, and keeps connections between them.

    There is no limit on connections: the number of streams is the host's concurrency, and a queue here would be invisible.
    """

    def __init__(self, connect_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect_s = connect_s
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> "Http11Response":
        """Send a request and return the answer once its head has come."""
        target = _target(request.url)
        data = _head(target, request) + request.body
        if (kept := self._kept(target.origin)) is not None:
            answer = kept.post(data, on_sent)
            try:
                await answer.head()
            except UpstreamConnectionError:
                if answer.began:
                    raise
                # The server had closed the idle connection, which says nothing about this request.
            else:
                return answer
        answer = (await self._connect(target.origin)).post(data, on_sent)
        await answer.head()
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in tuple(self._open):
            connection.abort()
        await asyncio.sleep(0)  # transports close in the next turn

    def abandon(self) -> None:
        """Close the sockets of an event loop that is closed, which transports would need."""
        for connection in tuple(self._open):
            connection.abandon()
        self._open.clear()
        self._idle.clear()

    def _kept(self, origin: tuple[str, str, int]) -> "_Connection | None":
        """Return the connection that was used last, if there is one."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable(self._loop.time()):
                return connection
            connection.abort()
        return None

    def keep(self, connection: "_Connection") -> None:
        """Keep a connection for the next request to its origin."""
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEP_ALIVE_S, self._close_idle)

    def forget(self, connection: "_Connection") -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        if (idle := self._idle.get(connection.origin)) and connection in idle:
            idle.remove(connection)

    def _close_idle(self) -> None:
        """Close connections that have been idle for too long, and check again later while any remain."""
        now = self._loop.time()
        for origin, connections in list(self._idle.items()):
            for connection in connections:
                if not connection.usable(now):
                    connection.abort()
            self._idle[origin] = [one for one in connections if one.usable(now)]
            if not self._idle[origin]:
                del self._idle[origin]
        self._sweep = self._loop.call_later(KEEP_ALIVE_S, self._close_idle) if self._idle else None

    async def _connect(self, origin: tuple[str, str, int]) -> "_Connection":
        scheme, host, port = origin
        if scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        tls = self._tls if scheme == "https" else None
        async with asyncio.timeout(self._connect_s):
            addresses = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            sock = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_AFTER_S, interleave=1)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a model may think for minutes
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self, origin), sock=sock, ssl=tls, server_hostname=host if tls else None
                )
            except BaseException:
                sock.close()
                raise
        self._open.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One connection, which serves one request at a time."""

    def __init__(self, sender: Http11Sender, origin: tuple[str, str, int]) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._sender = sender
        self._answer: Http11Response | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's class derives from nothing

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nothing was asked for
            self.abort()
        else:
            self._answer.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        self._sender.forget(self)
        if self._answer is not None:
            self._answer.lost(error)

    def post(self, data: bytes, on_sent: Callable[[], None]) -> "Http11Response":
        """Send a request."""
        answer = self._answer = Http11Response(self)
        on_sent()
        self._transport.write(data)
        return answer

    def usable(self, now: float) -> bool:
        """Return whether another request may be sent."""
        return not self._closed and not self._transport.is_closing() and now - self.idle_since < KEEP_ALIVE_S

    def release(self, *, reusable: bool) -> None:
        """Keep the connection for another request, or close it."""
        self._answer = None
        if reusable and not self._closed and not self._transport.get_write_buffer_size():
            self.idle_since = self._sender._loop.time()
            self._sender.keep(self)
        else:
            self.abort()

    def pause(self) -> None:
        """Stop reading from the socket."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read from the socket again."""
        self._transport.resume_reading()

    def abort(self) -> None:
        """Close without waiting for the peer."""
        self._closed = True
        self._transport.abort()

    def abandon(self) -> None:
        """Close the socket without the event loop; uvloop closes its own."""
        if (sock := getattr(self._transport, "_sock", None)) is not None:
            sock.close()
            self._transport._sock = None  # type: ignore[attr-defined]  # or it would warn that nobody closed it


class Http11Response:
    """The answer to one request. Its connection is kept if the body is read to its end; `aclose` closes it otherwise."""

    def __init__(self, connection: _Connection) -> None:
        self.status_code = 0
        self.headers: dict[str, str] = {}
        self.began = False
        self._has_head = False
        self.ended = False
        self._connection = connection
        self._parser = HttpResponseParser(self)
        # What other clients accept too: some servers write "5 \r\n" before a chunk, or end lines with LF alone.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._parts: list[bytes] = []
        self._size = 0
        self._header_bytes = 0
        self._is_paused = False
        self._has_length = False
        self._is_complete = False
        self._is_reusable = False
        self._error: UpstreamConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait for the status and the headers."""
        try:
            while not self._has_head:
                await self._more()
        except BaseException:
            await self.aclose()
            raise

    async def read(self) -> bytes:
        """Return what has come since the last call, at least a byte; `b""` at the end."""
        while not self._parts:
            if self.ended:
                return b""
            await self._more()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._is_paused:
            self._is_paused = False
            self._connection.resume()
        if self._is_complete:
            self._end()
        return body

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        if not self.ended:
            self.ended = True
            self._connection.release(reusable=False)

    async def _more(self) -> None:
        """Wait until something has come."""
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self) -> None:
        self.ended = True
        self._connection.release(reusable=self._is_reusable)

    # -- called by the connection -----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self.began = True
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if not self._is_complete:
                self._fail("the answer is not HTTP/1.1, or its framing is broken")
                return
            self._is_reusable = False
        if not self._has_head:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._fail("the answer's headers are too long")
                return
        if self._size > HIGH_WATER_BYTES and not self._is_paused and not self._is_complete:
            self._is_paused = True
            self._connection.pause()
        if self._is_complete and not self._parts and not self.ended:
            self._end()
        self._wake()

    def lost(self, error: Exception | None) -> None:
        """Note that the connection is closed."""
        if not self._is_complete:
            if self._has_head and not self._has_length and error is None:
                self._is_complete = True  # a body without a length ends with its connection
                if not self._parts:
                    self._end()
            elif self._error is None:
                self._error = UpstreamConnectionError("the connection was closed before the response was complete")
        self._wake()

    def _fail(self, reason: str) -> None:
        self._error = UpstreamConnectionError(reason)
        self._wake()
        self._connection.abort()

    # -- called by the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Record that the server sent a second, unsolicited response."""
        self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, with those of the same name; trailers are dropped."""
        if not self._has_head:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Note the status, unless it is only an interim one."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.headers.clear()
        elif not self._has_head:
            self._has_head = True
            self.status_code = status
            self._has_length = "content-length" in self.headers or "transfer-encoding" in self.headers

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body for the reader."""
        if not self._is_complete:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        """Note the end of the body."""
        if self._has_head and not self._is_complete:
            self._is_complete = True
            self._is_reusable = self._parser.should_keep_alive()
