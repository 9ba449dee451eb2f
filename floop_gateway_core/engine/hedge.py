"""Hedging: if the first event is slow, a second deployment is asked too, and whichever answers first serves.

The loser is stopped immediately and closed here. The host bears its cost, as for every attempt that the client never
saw; `lost` reports it. A fault that no other deployment could avoid ends the race for both.
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
    """Start `first`, then a `hedge` if no event comes within `after_s`; return the decisive attempt and its outcome.

    `failed` is called with a fault and the attempt that outlives it, `lost` with an attempt that came second. The winner
    stays open; every other attempt is closed, also if this is cancelled.
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
                with suppress(Exception):  # an error of one must not keep the other open
                    await one.aclose()
        raise
    return attempt, outcome
