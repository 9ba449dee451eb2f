"""A request's body that is read from a blocking file: `wsgi.input`, for one.

    body.read()  ── hands ──▶ a thread: input.read(n)

A read that blocks blocks neither the event loop nor the host. It may be cancelled; the next call continues the same read.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from floop_gateway_core.wire.messages import ClientDisconnected, MalformedBody

__all__ = ["Input", "ThreadedBody"]

READ_BYTES = 256 * 1024
MAX_READS = 1000
POLL_INTERVAL_S = 5.0


class Input(Protocol):
    """The part of a binary file's interface that a body needs; `wsgi.input` has it. `read` may block."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and `b""` only at the end."""


class ThreadedBody:
    """A `BodyReader` over a blocking file. `length` is what was announced; None reads to the end of the file.

    A caller may cancel a read; the next call continues it. Reads have their own threads, so up to `MAX_READS` clients that
    stall do not delay other requests.
    """

    def __init__(self, source: Input, length: int | None) -> None:
        self._source = source
        self._missing = length
        self._reading: _Read | None = None
        self._ended = False

    @property
    def blocked(self) -> bool:
        """Return whether a read is in progress."""
        return self._reading is not None and not self._reading.came.is_set()

    async def read(self) -> bytes:
        """Return the next bytes, or `b""` at the end; raise `ClientDisconnected`, also if the body ends too soon."""
        if self._ended or self._missing == 0:
            return b""
        reading = self._reading
        if reading is None:
            size = READ_BYTES if self._missing is None else min(self._missing, READ_BYTES)
            reading = self._reading = _Read(self._source, size)
            try:
                await _in_thread(reading.run)
            except BaseException:
                if reading.claim():  # it had not begun and will not
                    self._reading = None
                raise
        while not reading.came.is_set():
            await _in_thread(reading.came.wait, POLL_INTERVAL_S)
        self._reading = None
        return self._take(reading.result)

    def _take(self, result: bytes | Exception) -> bytes:
        self._ended = not isinstance(result, bytes) or not result
        if isinstance(result, Exception) and self._missing is None and not _lost_connection(result):
            raise MalformedBody from result  # servers raise various exceptions for a malformed chunk
        if isinstance(result, OSError) or (result == b"" and self._missing is not None):
            raise ClientDisconnected
        if isinstance(result, Exception):
            raise result
        if self._missing is not None:
            self._missing -= len(result)
        return result


def _lost_connection(error: Exception) -> bool:
    return isinstance(error, ConnectionError | TimeoutError | EOFError) or (
        isinstance(error, OSError) and error.errno is not None
    )


class _Read:
    """One read, owned by the first to claim it: its thread, or a caller that gives up before the thread has begun."""

    _under_way = threading.BoundedSemaphore(MAX_READS)

    def __init__(self, source: Input, size: int) -> None:
        self.came = threading.Event()
        self.result: bytes | Exception = b""
        self._source = source
        self._size = size
        self._claimed = threading.Lock()

    def claim(self) -> bool:
        return self._claimed.acquire(blocking=False)

    def run(self) -> None:
        if not self.claim():
            return
        if not self._under_way.acquire(blocking=False):
            self.result = RuntimeError(f"{MAX_READS} clients have stalled in the middle of their bodies")
            self.came.set()
            return
        try:
            self.result = self._source.read(self._size)
        except Exception as error:
            self.result = error
        finally:
            self._under_way.release()
            self.came.set()


_limiter: RunVar[anyio.CapacityLimiter] = RunVar("floop_gateway_body_threads")


async def _in_thread(function: Callable[..., object], *args: object) -> None:
    """Run in one of our own threads; if cancelled, let the thread finish by itself."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(2 * MAX_READS)
        _limiter.set(limiter)
    await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=limiter)
