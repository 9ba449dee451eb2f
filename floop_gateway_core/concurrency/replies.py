"""Results produced by another thread and awaited in any event loop."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio

from floop_gateway_core.concurrency.loops import current_event_loop

__all__ = ["Reply", "wake"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Reply(Generic[T]):
    """The thread sets `answer` or `error`, and then calls `wake` to wake the waiting task."""

    answer: T | None = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    answered: bool = field(default=False, init=False)
    _done: anyio.Event | None = field(default=None, init=False)
    _loop: Any = field(default=None, init=False)

    def expect(self) -> None:
        """Bind the reply to the running event loop, before a thread gets hold of it."""
        self._done, self._loop = anyio.Event(), current_event_loop()

    async def result(self) -> T | None:
        """Return the answer, or raise the error. Cancellation waits for either, so that no result is lost."""
        if self._done is not None:
            with anyio.CancelScope(shield=True):
                await self._done.wait()
        if self.error is not None:
            raise self.error
        return self.answer

    def _set(self) -> None:
        if self._done is not None:
            self._done.set()


def wake(replies: Iterable[Reply[Any]]) -> None:
    """Wake those who wait for replies, from any thread; repeated, do nothing."""
    by_loop: dict[Any, list[Reply[Any]]] = {}
    for reply in replies:
        if not reply.answered:
            reply.answered = True
            by_loop.setdefault(reply._loop, []).append(reply)
    for loop, found in by_loop.items():
        soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon  # asyncio's name, and trio's
        with suppress(RuntimeError):  # that event loop is closed, and nothing waits any more
            soon(_set_all, found)


def _set_all(replies: list[Reply[Any]]) -> None:
    for reply in replies:
        reply._set()
