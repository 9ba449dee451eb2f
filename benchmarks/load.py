"""A load of raw HTTP/1.1 requests over kept connections, as little as a client can cost."""

import asyncio
import re
import time
from dataclasses import dataclass

_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


@dataclass(frozen=True)
class Result:
    """`bytes` are those of all answers, heads included; `slowest_ms` is the 99th percentile of a request."""

    seconds: float
    requests: int
    bytes: int
    median_ms: float
    slowest_ms: float


async def run(port: int, request: bytes, *, concurrency: int, requests: int) -> Result:
    """Send `requests` in all over `concurrency` connections; every answer must be a 200."""
    left = requests
    sizes: list[int] = []
    times: list[float] = []

    async def one_connection() -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        while left > 0:
            left -= 1
            began = time.perf_counter()
            writer.write(request)
            sizes.append(await _answer(reader))
            times.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one_connection() for _ in range(concurrency)))
    seconds = time.perf_counter() - began
    times.sort()
    return Result(seconds, requests, sum(sizes), times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000)


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    length = _LENGTH.search(head)
    if length:
        await reader.readexactly(int(length[1]))
        return len(head) + int(length[1])
    size = len(head)
    while True:
        line = await reader.readline()
        chunk = int(line, 16)
        await reader.readexactly(chunk + 2)
        size += chunk
        if chunk == 0:
            return size


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
