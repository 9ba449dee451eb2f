"""An event loop without sockets whose time jumps to the next timer as soon as nothing else is to be done.

`quiet` waits until every task waits for time or for something that does not come; `pass_time` lets a span go by, with the
timers in it in their order. The same calls lead to the same order of tasks, always.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

__all__ = ["SimulatedLoop", "new_loop"]

STEPS_WITHOUT_REST = 100_000
"""More turns than any schedule needs: whoever takes them waits for nothing and never ends."""

Factory = Callable[[asyncio.AbstractEventLoop, Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class _Selector:
    """Stands where a loop waits for sockets."""

    def __init__(self, loop: "SimulatedLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        self._loop.rest(timeout)
        return []

    def close(self) -> None: ...


class SimulatedLoop(asyncio.BaseEventLoop):
    """Make it with `new_loop`."""

    def __init__(self) -> None:
        super().__init__()
        self._elapsed = 1000.0
        self._turns = 0
        self._resting: asyncio.Future[None] | None = None
        self._selector = _Selector(self)

    def time(self) -> float:
        return self._elapsed

    def _process_events(self, events: list[object]) -> None: ...

    def _write_to_self(self) -> None: ...

    def rest(self, timeout: float | None) -> None:
        """Do in no time what a real loop would wait for."""
        self._turns += 1
        if self._turns > STEPS_WITHOUT_REST:
            raise RuntimeError("the simulation does not come to rest")
        if timeout == 0:
            return
        if self._resting is not None:
            self._turns = 0
            self._resting.set_result(None)
            self._resting = None
        elif timeout is None:
            raise RuntimeError("everything waits for something that does not come")
        else:
            self._elapsed += timeout

    async def quiet(self) -> None:
        """Wait until nothing is to be done at this moment."""
        self._resting = self.create_future()
        await self._resting

    async def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        over = self.create_future()
        self.call_later(seconds, over.set_result, None)
        await over
        await self.quiet()


def new_loop() -> SimulatedLoop:
    """Return a loop; close it."""
    return cast(Callable[[], SimulatedLoop], SimulatedLoop)()  # typeshed has methods for sockets as abstract
