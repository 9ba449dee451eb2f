"""Time limits that are cheaper than cancel scopes: for one block, and for many waits in a row.

On asyncio a `WaitLimit` keeps one timer, which it reschedules lazily: waits that end in time do not touch it. On trio,
where cancel scopes are cheap, it opens one for each wait.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

import anyio

__all__ = ["BlockLimit", "WaitLimit", "block_limit", "clock_of_event_loop", "wait_limit"]


class BlockLimit(Protocol):
    """A context that cancels its block at `deadline`, on the event loop's clock; the block then ends silently."""

    deadline: float

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool: ...

    def cancel(self) -> None:
        """End the block now."""


class WaitLimit(Protocol):
    """Bounds one wait after another, all in one task at a time. Close it at the end."""

    def until(self, deadline: float) -> AbstractContextManager[object]:
        """Cancel what the block waits for at `deadline`, on the event loop's clock; the block then ends silently."""

    def cancel(self) -> None:
        """End the wait in progress, if there is one."""

    def close(self) -> None:
        """Drop the timer."""


def clock_of_event_loop() -> Callable[[], float]:
    """Return the running event loop's clock, which is that of `anyio.current_time`."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return anyio.current_time


def block_limit(limit_s: float = math.inf) -> BlockLimit:
    """Return a limit of so many seconds from now for one block, which must be left in the task that enters it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return anyio.CancelScope(deadline=anyio.current_time() + limit_s)
    return _TimerBlock(loop, loop.time() + limit_s)


def wait_limit() -> WaitLimit:
    """Return a limit for waits on the running event loop."""
    try:
        return _TimerLimit(asyncio.get_running_loop())
    except RuntimeError:
        return _ScopeLimit()


class _TimerLimit:
    """Cancels the waiting task natively and then undoes the cancellation, as `asyncio.timeout` does."""

    __slots__ = ("_cancelling", "_deadline", "_expired", "_loop", "_task", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._deadline = math.inf
        self._cancelling = 0
        self._expired = False

    def until(self, deadline: float) -> "_TimerLimit":
        self._deadline = deadline
        timer = self._timer
        if timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_time)
        return self

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a wait needs a task")
        self._cancelling = task.cancelling()
        self._expired = False
        self._task = task

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if not self._expired or task is None:
            return False
        return task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError)

    def _on_time(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._on_time)
        else:
            self.cancel()

    def cancel(self) -> None:
        if self._task is not None and not self._expired:
            self._expired = True
            self._task.cancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _TimerBlock(_TimerLimit):
    """The limit of one block. It costs a tenth of a scope, and like `asyncio.timeout` it cancels once."""

    __slots__ = ()

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        super().__init__(loop)
        self._deadline = deadline

    def __enter__(self) -> None:
        super().__enter__()
        self.deadline = self._deadline

    @property
    def deadline(self) -> float:
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if self._task is not None and deadline < math.inf:
            self.until(deadline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.close()
        return super().__exit__(kind, error, traceback)


class _ScopeLimit:
    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None

    def until(self, deadline: float) -> anyio.CancelScope:
        self._scope = anyio.CancelScope(deadline=deadline)
        return self._scope

    def cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        self._scope = None
