"""A mock upstream: OpenAI's stream from prepared bytes, flat out or paced.

`python -m floop_gateway_core.bench.upstream` prints the port that it listens on. The prompt of a request says what to send:
`frames-200` as fast as the reader takes them, `paced-200-20` a frame each 20 ms.
"""

import asyncio
import re
from typing import cast

__all__ = ["TEXT", "answer"]

TEXT = "token "
_FRAME = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock",'
    b'"choices":[{"index":0,"delta":{"content":"token "},"finish_reason":null}]}\n\n'
)
_STOP = _FRAME.replace(b'{"content":"token "}', b"{}").replace(b'"finish_reason":null', b'"finish_reason":"stop"')
_USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
_WANTED = re.compile(rb"(frames|paced)-(\d+)(?:-(\d+))?")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMES_A_CHUNK = 16
"""As a busy provider sends them."""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _end(frames: int) -> bytes:
    return _chunk(_STOP + _USAGE % (frames, frames + 10)) + b"0\r\n\r\n"


def answer(frames: int) -> bytes:
    """Return a whole answer in chunked coding."""
    starts = range(0, frames, FRAMES_A_CHUNK)
    return _HEAD + b"".join(_chunk(_FRAME * min(FRAMES_A_CHUNK, frames - at)) for at in starts) + _end(frames)


class _Connection(asyncio.Protocol):
    def __init__(self, prepared: dict[int, bytes]) -> None:
        self._prepared = prepared
        self._data = b""
        self._pacing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own class derives from nothing

    def connection_lost(self, error: Exception | None) -> None:
        if self._pacing is not None:
            self._pacing.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._data, 0, head + 2)
        end = head + 4 + (int(length[1]) if length else 0)
        if len(self._data) < end:
            return
        body, self._data = self._data[head + 4 : end], self._data[end:]
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        wanted = _WANTED.search(body)
        kind, frames, every_ms = wanted.groups() if wanted else (b"frames", b"1", None)
        if kind == b"paced":
            self._pacing = asyncio.ensure_future(self._paced(self._transport, int(frames), int(every_ms or 20) / 1000))
            return
        if (number := int(frames)) not in self._prepared:
            self._prepared[number] = answer(number)
        self._transport.write(self._prepared[number])

    async def _paced(self, transport: asyncio.WriteTransport, frames: int, every_s: float) -> None:
        transport.write(_HEAD)
        due = asyncio.get_running_loop().time()
        for _ in range(frames):
            transport.write(_chunk(_FRAME))
            due += every_s
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        transport.write(_end(frames))


async def _serve() -> None:
    prepared: dict[int, bytes] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(prepared), "127.0.0.1", 0, backlog=4096)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run  # type: ignore[assignment]
    run(_serve())
