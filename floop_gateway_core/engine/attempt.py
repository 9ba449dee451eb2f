"""One attempt: a provider's answer, opened and read under the deployment's time limits.

The limits count events of the upstream, not bytes and not comments: a connection that sends only keep-alives is stalled.
Nothing stays open between two calls, so the reader may be cancelled, or yield, at any point in between.
"""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from anyio.lowlevel import checkpoint

from floop_gateway_core.concurrency.wait import wait_limit
from floop_gateway_core.engine.meter import Meter
from floop_gateway_core.engine.schedule import PlannedAttempt
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.providers.base import Delta, Stream, UpstreamCall, UpstreamFault

__all__ = ["Attempt"]

TIMEOUT_TOLERANCE = 0.9
"""A wait of nearly its whole limit is the upstream's failure, even if the request's own time ran out slightly earlier."""


class Attempt:
    """Call `start`, then `next` until a delta has `finish`, and always `aclose`; the first two raise `UpstreamFault`.

    `start` notes in `meter` that the request was sent; the reader adds the rest. `deadline` is the request's, on the
    clock of the event loop.
    """

    def __init__(
        self,
        planned: PlannedAttempt,
        meter: Meter,
        call: UpstreamCall,
        *,
        number: int,
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self.planned = planned
        self.meter = meter
        self.deployment = planned.deployment
        self.number = number
        self.created = clock()
        self.ended = False
        self._call = call
        self._deadline = deadline
        self._clock = clock
        self._wait = wait_limit()
        self._stream: Stream | None = None
        self._stopped = False
        self._context: AbstractAsyncContextManager[Stream] | None = None
        self._waits_from = self._limit_s = self._ends_at = 0.0

    async def start(self) -> Delta:
        """Send the request and return the first delta."""
        self._limit(self.deployment.first_event_s)
        context = self.deployment.provider.open(self._call, self.meter.send)
        self._check_time()
        with self._wait.until(self._ends_at):
            self._stream = await context.__aenter__()
            self._context = context
        if self._stream is None:
            raise self._timed_out()
        return await self._event(self._stream)

    def next(self) -> Coroutine[Any, Any, Delta]:
        """Return the next delta, which has at least one event of the upstream."""
        if self._stream is None:
            raise RuntimeError("the attempt was not started")
        # The time-out starts when we start to wait: a client that reads slowly is not the upstream's fault.
        self._limit(self.deployment.between_events_s)
        return self._event(self._stream)

    async def read_on(self, limit_s: float, first: Delta | None = None) -> None:
        """Read up to the end, or for `limit_s`, for the report that comes with it; `first` has been read already.

        The meter notes the report, and the output that the client never receives.
        """
        self._deadline = self._clock() + limit_s
        delta = first
        with suppress(UpstreamFault):
            while self._stream is not None:
                if delta is not None:
                    self.meter.add_unsent(delta)
                    if delta.finish:
                        return
                delta = await self.next()

    async def _event(self, stream: Stream) -> Delta:
        while True:
            delta = None
            self._check_time()
            with self._wait.until(self._ends_at):
                delta = await stream.next()
            if delta is None:
                raise self._timed_out()
            if delta.events or delta.finish:
                return delta
            await checkpoint()  # an upstream that floods us with comments may never suspend

    def stop(self) -> None:
        """End the attempt: cancel the current wait and every later one."""
        self._stopped = True
        self._wait.cancel()

    def _check_time(self) -> None:
        """Raise if the time is over, because a wait that never suspends is not ended by its scope."""
        if self._stopped or self._clock() >= self._ends_at:
            raise self._timed_out()

    def _limit(self, limit_s: float) -> None:
        self._waits_from, self._limit_s = self._clock(), limit_s
        self._ends_at = min(self._waits_from + limit_s, self._deadline)

    def _timed_out(self) -> UpstreamFault:
        if self._stopped:
            return UpstreamFault(FaultKind.OUT_OF_TIME, "the gateway is stopping")
        if self._clock() - self._waits_from < self._limit_s * TIMEOUT_TOLERANCE:
            return UpstreamFault(FaultKind.OUT_OF_TIME, "the request's time is over")
        return UpstreamFault(FaultKind.TRANSIENT, "no event came in time")

    async def aclose(self) -> None:
        """Release the connection if the answer was read to its end, else close it."""
        self._wait.close()
        if self._context is not None:
            context, self._context = self._context, None
            await context.__aexit__(None, None, None)
