"""Runs something beside a block that may end it: a watch on the client, a reader that works ahead.

A task group wraps what is raised in its block into an exception group. Here the block's own
exception is raised unchanged, so that a host sees what it would see without the gateway.
"""

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import anyio

__all__ = ["BackgroundTask"]


class BackgroundTask:
    """Use as `async with`, in one task; leaving the block ends what runs beside it, which may cancel `scope`."""

    def __init__(self, run: Callable[[anyio.CancelScope], Coroutine[Any, Any, None]]) -> None:
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
