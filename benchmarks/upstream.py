"""A mock upstream for the benchmarks: OpenAI's stream from prepared bytes, as fast as the reader takes them.

`python -m benchmarks.upstream FRAMES` prints the port that it listens on. A request may say how many frames it wants in the
model's name (`frames-200`).
"""

import asyncio
import re
import sys

_FRAME = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock",'
    b'"choices":[{"index":0,"delta":{"content":"token "},"finish_reason":null}]}\n\n'
)
_STOP = _FRAME.replace(b'{"content":"token "}', b"{}").replace(b'"finish_reason":null', b'"finish_reason":"stop"')
_USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)
_MODEL = re.compile(rb'"model": ?"frames-(\d+)"')
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def answer(frames: int) -> bytes:
    """Give a whole answer in chunked coding, in chunks of at most 16 frames, as a busy provider sends them."""
    chunks = [_FRAME * min(16, frames - start) for start in range(0, frames, 16)]
    chunks.append(_STOP + _USAGE % (frames, frames + 10))
    return _HEAD + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def serve() -> None:
    prepared: dict[int, bytes] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                model = _MODEL.search(body)
                frames = int(model[1]) if model else 1
                if frames not in prepared:
                    prepared[frames] = answer(frames)
                writer.write(prepared[frames])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("usage: python -m benchmarks.upstream")
    asyncio.run(serve())
