"""Tasks that outlive the request that began them, and end with the gateway."""

from collections.abc import Awaitable, Callable

import anyio

from floop_gateway_core.concurrency.background import spawn
from floop_gateway_core.concurrency.loops import current_event_loop

__all__ = ["DetachedTasks"]


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
