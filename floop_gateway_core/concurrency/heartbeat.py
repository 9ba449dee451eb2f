"""Heartbeats: an item for each silent interval of a stream, without cancelling the read in progress.

The source is read in a child task that passes its items on. Waiting for an item can be cancelled without loss, whereas
cancelling a read of the source would lose the stream. This costs a task, and a hand-over per item, so it is used only
if a host has turned heartbeats on.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Generic, TypeVar

import anyio

from floop_gateway_core.concurrency.background import BackgroundTask, Block

__all__ = ["WithHeartbeats"]

T = TypeVar("T")
READ_AHEAD = 16


class WithHeartbeats(Generic[T]):
    """Enter and iterate in one task; leaving closes the source. `beat` comes after every `every_s` of silence.

    Both may be changed between two items.
    """

    def __init__(self, source: AsyncGenerator[T, None], every_s: float, beat: T) -> None:
        self._source = source
        self.every_s = every_s
        self.beat = beat
        self._reader = BackgroundTask(self._read)
        self._send, self._receive = anyio.create_memory_object_stream[T | Exception](READ_AHEAD)

    async def __aenter__(self) -> "WithHeartbeats[T]":
        await self._reader.__aenter__()
        return self

    async def _read(self, _: Block) -> None:
        async with aclosing(self._source), self._send:
            try:
                async for item in self._source:
                    await self._send.send(item)
            except Exception as error:
                with suppress(anyio.BrokenResourceError):  # the reader has gone
                    await self._send.send(error)

    def __aiter__(self) -> "WithHeartbeats[T]":
        return self

    async def __anext__(self) -> T:
        item: T | Exception = self.beat
        with anyio.move_on_after(self.every_s):
            try:
                item = await self._receive.receive()
            except anyio.EndOfStream:
                raise StopAsyncIteration from None
        if isinstance(item, Exception):
            raise item
        return item

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._receive.close()
        return await self._reader.__aexit__(kind, error, traceback)

    async def aclose(self) -> None:
        """Leave without an exception."""
        await self.__aexit__(None, None, None)
