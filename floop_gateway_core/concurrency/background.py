"""Runs a task alongside a block; the task may end the block. Used to watch for a disconnect and to read ahead.

A `Watch` starts late, so that short blocks do not pay for a task.

A task group wraps exceptions from its block in an exception group. Here the block's own exception is raised unchanged,
so that a host sees the same exception as without the gateway.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import anyio

from floop_gateway_core.concurrency.wait import BlockLimit, block_limit

__all__ = ["BackgroundTask", "Block", "Watch", "spawn"]


class Block(Protocol):
    """A block that its background task may end."""

    def cancel(self) -> None:
        """End the block."""


Run: TypeAlias = Callable[[Block], Coroutine[Any, Any, None]]
WATCH_AFTER_S = 0.05
"""How long a block runs without its watch. Most answers take longer, most refusals do not."""


_spawned: set[asyncio.Task[None]] = set()


def spawn(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something in this event loop that outlives its caller. It must end by itself and raise nothing."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        trio.lowlevel.spawn_system_task(run)
        return
    task = loop.create_task(run())
    _spawned.add(task)  # the loop itself keeps no strong reference
    task.add_done_callback(_spawned.discard)


class BackgroundTask:
    """Use as `async with`, in one task. Leaving the block ends the task, which may cancel `scope` to end the block."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks = anyio.create_task_group()

    @property
    def scope(self) -> anyio.CancelScope:
        """Return the scope whose cancellation ends the block."""
        return self._tasks.cancel_scope

    async def __aenter__(self) -> "BackgroundTask":
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run, self.scope)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.scope.cancel()
        if isinstance(error, Exception):
            await self._tasks.__aexit__(None, None, None)
            return None
        return await self._tasks.__aexit__(kind, error, traceback)


class Watch:
    """A `BackgroundTask` that starts after `WATCH_AFTER_S` on asyncio; on trio, where tasks are cheap, immediately."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._block: BlockLimit | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._on_trio: BackgroundTask | None = None

    async def __aenter__(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._on_trio = BackgroundTask(self._run)
            await self._on_trio.__aenter__()
            return
        block = self._block = block_limit()
        self._timer = loop.call_later(WATCH_AFTER_S, self._start, loop, block)
        block.__enter__()

    def _start(self, loop: asyncio.AbstractEventLoop, block: BlockLimit) -> None:
        self._task = loop.create_task(self._run(block))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._on_trio is not None:
            return await self._on_trio.__aexit__(kind, error, traceback)
        if self._timer is not None:
            self._timer.cancel()
        ended = self._block is not None and self._block.__exit__(kind, error, traceback)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        return ended
