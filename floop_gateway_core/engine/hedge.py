"""Hedging: where the first event is slow to come, a second deployment is asked too, and whichever answers first serves.

The loser is stopped at once and closed here. What it may have cost is the host's, as with every attempt that the client
saw nothing of; `lost` is where that is told. A fault that no deployment could better ends the race for both.
"""

from collections.abc import Callable
from contextlib import suppress

import anyio

from floop_gateway_core.engine.attempt import Attempt
from floop_gateway_core.providers.base import Delta, UpstreamFault

__all__ = ["race"]


async def race(
    first: Attempt,
    *,
    after_s: float,
    hedge: Callable[[], Attempt | None],
    failed: Callable[[Attempt, UpstreamFault, Attempt], None],
    lost: Callable[[Attempt], None],
) -> tuple[Attempt, Delta | UpstreamFault]:
    """Start `first`, and after `after_s` without an event what `hedge` gives; give the attempt that decides, and how.

    `failed` is told of a fault and of the attempt that outlives it, `lost` of an attempt that came second. The winner stays
    open; every other attempt is closed, also where this is cancelled.
    """
    under_way = [first]
    send, receive = anyio.create_memory_object_stream[tuple[Attempt, Delta | UpstreamFault]](2)

    async def start(attempt: Attempt) -> None:
        try:
            send.send_nowait((attempt, await attempt.start()))
        except UpstreamFault as fault:
            send.send_nowait((attempt, fault))

    try:
        with send, receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start, first)
                decided = None
                with anyio.move_on_after(after_s):
                    decided = await receive.receive()
                if decided is None and (second := hedge()) is not None:
                    under_way.append(second)
                    tasks.start_soon(start, second)
                attempt, outcome = decided or await receive.receive()
                while isinstance(outcome, UpstreamFault) and not outcome.fault.final and len(under_way) > 1:
                    under_way.remove(attempt)
                    await attempt.aclose()
                    failed(attempt, outcome, under_way[0])
                    attempt, outcome = await receive.receive()
                tasks.cancel_scope.cancel()
        for one in under_way:
            if one is not attempt:
                await one.aclose()
                lost(one)
    except BaseException:
        with anyio.CancelScope(shield=True):
            for one in under_way:
                with suppress(Exception):  # whatever one of them says to that, the other is closed too
                    await one.aclose()
        raise
    return attempt, outcome
