"""Heartbeats: an event for each silent interval, without touching the read that is under way.

The run is read in a child task that hands its events over; giving up on a hand-over loses nothing, where giving up on a
read of the upstream would lose the stream. It costs a task and a hand-over for each event, so it exists only where a host
has turned heartbeats on.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from floop_gateway_core.types import Event, Heartbeat

__all__ = ["WithHeartbeats"]

AHEAD = 16


class WithHeartbeats:
    """`async with` it and iterate, in one task; leaving it closes the events."""

    def __init__(self, events: AsyncGenerator[Event, None], every_s: float) -> None:
        self._events = events
        self._every_s = every_s
        self._tasks = anyio.create_task_group()
        self._send: MemoryObjectSendStream[Event | Exception]
        self._receive: MemoryObjectReceiveStream[Event | Exception]
        self._send, self._receive = anyio.create_memory_object_stream[Event | Exception](AHEAD)

    async def __aenter__(self) -> "WithHeartbeats":
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._read)
        return self

    async def _read(self) -> None:
        async with aclosing(self._events), self._send:
            try:
                async for event in self._events:
                    await self._send.send(event)
            except Exception as error:
                await self._send.send(error)

    def __aiter__(self) -> "WithHeartbeats":
        return self

    async def __anext__(self) -> Event:
        event: Event | Exception = Heartbeat()
        with anyio.move_on_after(self._every_s):
            try:
                event = await self._receive.receive()
            except anyio.EndOfStream:
                raise StopAsyncIteration from None
        if isinstance(event, Exception):
            raise event
        return event

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        self._receive.close()
        return await self._tasks.__aexit__(kind, error, traceback)
