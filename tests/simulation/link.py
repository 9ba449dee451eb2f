"""A process's way to the store.

A call takes its time on the way there and back. An outage makes it fail before the store has heard of it, or after the
store has done it. A call whose caller gives up may still arrive. A process that is dead reaches nothing any more: whatever
of it still runs here is stopped by `ProcessDied`, which is no `Exception`, so that no handler of the gateway takes it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from floop_gateway_core.errors import StoreUnavailable
from tests.simulation.lane import LANE, Admission, Lane
from tests.simulation.schedule import Effect

__all__ = ["Link", "Outages", "ProcessDied", "done_now"]

T = TypeVar("T")
ON_ITS_WAY = frozenset({"hold", "settle", "post", "authenticate_and_acquire"})
"""Calls that may arrive although their caller has given up."""


class ProcessDied(BaseException):
    """The process of the running task is dead."""


@dataclass
class Outages:
    """When the store fails, and for whom: (until, effect, process or None for all)."""

    chance: random.Random
    planned: list[tuple[float, Effect, int | None]] = field(default_factory=list)

    def effect(self, now: float, process: int) -> str | None:
        """Return whether a call fails `before` or `after` it is done; None if it does not."""
        for until, effect, whose in self.planned:
            if now < until and whose in (None, process):
                return self.chance.choice(("before", "after")) if effect == "mixed" else effect
        return None


def done_now(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of what never waits."""
    try:
        work.send(None)
    except StopIteration as over:
        result: T = over.value
        return result
    work.close()
    raise RuntimeError("the store waits for something")


class Link:
    """Has the methods of `store`, as the process at `place` sees them."""

    def __init__(
        self, store: object, place: int, outages: Outages, check: Callable[[], None], wall: Callable[[], float]
    ) -> None:
        self._store = store
        self._place = place
        self._outages = outages
        self._check = check
        self._wall = wall

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def call(*values: Any, **named: Any) -> Any:
            if name == "hold" and (lane := LANE.get()) is not None:
                return await self._hold(lane, values[0].record.request_id, lambda: method(*values))
            return await self._call(name, lambda: method(*values, **named))

        setattr(self, name, call)
        return call

    async def _hold(self, lane: Lane, id: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Note when a request is admitted, and what is granted to it."""
        admission = lane.holds[id] = Admission(self._wall(), asyncio.get_running_loop().time())

        async def hold() -> Any:
            held = await work()
            admission.granted = getattr(held, "held_tokens", 0)
            return held

        return await self._call("hold", hold)

    async def _call(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._check()
        lane, loop = LANE.get(), asyncio.get_running_loop()
        unheard = lane is not None and lane.unheard
        there_s, back_s = (0.0, 0.0) if lane is None else (lane.delay_s(), lane.delay_s())
        if there_s:
            try:
                await asyncio.sleep(there_s)
            except asyncio.CancelledError:
                if name in ON_ITS_WAY and lane is not None and lane.chance.random() < 0.5:
                    loop.call_later(lane.delay_s(), self._arrive, name, lane, work)
                raise
            self._check()
        effect = self._outages.effect(loop.time(), self._place)
        if effect is not None and lane is not None:
            lane.met_outage = True
        if effect == "before":
            raise StoreUnavailable("the way there is cut")
        result = done_now(work())
        if effect == "after":
            if lane is not None and name == "settle":
                lane.unheard = True
            raise StoreUnavailable("the way back is cut")
        if back_s:
            if lane is not None and name == "settle":
                lane.unheard = True  # until its answer is here: the caller's patience may end before
            await asyncio.sleep(back_s)
            if lane is not None and name == "settle":
                lane.unheard = unheard
            self._check()
        return result

    def _arrive(self, name: str, lane: Lane, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do what nobody waits for any more."""
        if self._outages.effect(asyncio.get_running_loop().time(), self._place) == "before":
            return
        lane.unheard = lane.unheard or name == "settle"
        with suppress(Exception):
            done_now(work())
