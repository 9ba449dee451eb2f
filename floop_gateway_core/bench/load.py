"""A load of raw HTTP/1.1 requests over kept connections, as little as a client can cost.

The content of every answer is checked.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import cast

from floop_gateway_core.bench.upstream import TEXT

__all__ = ["Result", "post", "run"]

_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
MOST_S = 120.0
"""A load that takes longer than this is considered stuck."""
END_OF_STREAM = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Result:
    """What one load did. Times are of the good answers; `first_ms` is the time to the first text of each."""

    seconds: float
    good: int
    errors: int
    times_ms: list[float]
    first_ms: list[float]


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return the bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + b"\r\n\r\n" + body


async def run(port: int, request: bytes, *, connections: int, requests: int, frames: int) -> Result:
    """Send `requests` in all over `connections`; a good answer is a 200 with `frames` texts and its proper end."""
    load = _Load(request, requests, frames)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [await loop.create_connection(lambda: _Client(load), "127.0.0.1", port) for _ in range(connections)]
    async with asyncio.timeout(MOST_S):
        await asyncio.gather(*(client.done for _, client in clients))
    seconds = time.perf_counter() - began
    for transport, _ in clients:
        transport.close()
    return Result(seconds, len(load.times_ms), load.errors, sorted(load.times_ms), sorted(load.first_ms))


class _Load:
    def __init__(self, request: bytes, requests: int, frames: int) -> None:
        self.request = request
        self.left = requests
        self.frames = frames
        self.errors = 0
        self.times_ms: list[float] = []
        self.first_ms: list[float] = []


class _Client(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load = load
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._length: int | None = None
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own class derives from nothing
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._load.errors += 1
            self.done.set_result(None)

    def _next(self) -> None:
        if self._load.left <= 0:
            self.done.set_result(None)
            return
        self._load.left -= 1
        self._parts, self._length, self._size = [], None, 0
        self._first: float | None = None
        self._began = time.perf_counter()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        if self._length is None:
            whole = b"".join([*self._parts, data])
            head = whole.find(b"\r\n\r\n")
            if head < 0:
                self._parts.append(data)
                return
            length = _LENGTH.search(whole, 0, head + 2)
            self._length = head + 4 + int(length[1]) if length else 0
            self._parts = []
            data = whole
        if self._first is None and TEXT.encode() in data:
            self._first = time.perf_counter()
        self._parts.append(data)
        self._size += len(data)
        if self._size >= self._length if self._length else self._tail().endswith(END_OF_STREAM):
            self._ended()

    def _tail(self) -> bytes:
        return b"".join(self._parts[-2:])[-len(END_OF_STREAM) :]

    def _ended(self) -> None:
        answer = b"".join(self._parts)
        now = time.perf_counter()
        whole = answer.count(TEXT.encode()) == self._load.frames and b"finishReason" in answer
        if answer.startswith(b"HTTP/1.1 200") and whole:
            self._load.times_ms.append((now - self._began) * 1000)
            self._load.first_ms.append(((self._first or now) - self._began) * 1000)
        else:
            self._load.errors += 1
        self._next()
