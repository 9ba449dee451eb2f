"""Tasks that outlive the request that began them, and end with the gateway."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from floop_gateway_core.concurrency.background import spawn
from floop_gateway_core.concurrency.loops import current_event_loop

__all__ = ["DetachedResult", "DetachedTasks"]

T = TypeVar("T")


class DetachedTasks:
    """Tasks by the event loop that they run in, which is where they can be cancelled and waited for."""

    def __init__(self) -> None:
        self._running: dict[anyio.CancelScope, tuple[object, anyio.Event]] = {}

    def start(self, run: Callable[[], Awaitable[None]]) -> anyio.CancelScope:
        """Run something in this event loop. It must raise nothing."""
        scope, ended = anyio.CancelScope(), anyio.Event()
        self._running[scope] = current_event_loop(), ended

        async def task() -> None:
            try:
                with scope:
                    await run()
            finally:
                del self._running[scope]
                ended.set()

        spawn(task)
        return scope

    async def aclose(self, grace_s: float) -> None:
        """End the tasks that run in this event loop: they have a moment, then they are cancelled and waited for."""
        here = current_event_loop()
        mine = [(scope, ended) for scope, (where, ended) in self._running.items() if where is here]
        with anyio.move_on_after(grace_s):
            for _, ended in mine:
                await ended.wait()
        for scope, _ in mine:
            scope.cancel()
        for _, ended in mine:
            await ended.wait()


class DetachedResult(Generic[T]):
    """Work in a task of its own: one that waits for its result may leave, and another one wait on."""

    def __init__(self, tasks: DetachedTasks, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._ended = anyio.Event()
        self._result: T | None = None
        self._error: Exception | None = None
        self._scope = tasks.start(self._run)

    async def _run(self) -> None:
        try:
            self._result = await self._work()
        except Exception as error:
            self._error = error
        finally:
            self._ended.set()

    async def result(self) -> T | None:
        """Wait for the result, and return it; None if the work was cancelled. Raises what the work raises."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result

    async def cancel(self) -> None:
        """Cancel the work, and wait for its end."""
        self._scope.cancel()
        await self._ended.wait()
