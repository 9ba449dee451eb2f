"""The attempts of one call: where each goes, which of them is the current one, and what becomes of those that fail.

The itinerary decides, `attempt` does; this stands between the two and tells the listeners. The *current* attempt is the one
whose product may be billed: the only one under way, or, while a hedge races, the earlier one until the race is decided.
"""

from collections.abc import Mapping, Sequence

import anyio

from floop_gateway_core.engine.attempt import Attempt
from floop_gateway_core.engine.hedge import race
from floop_gateway_core.engine.meter import Meter
from floop_gateway_core.engine.routing import Deployment, Engine
from floop_gateway_core.engine.schedule import AttemptSchedule, PlannedAttempt
from floop_gateway_core.observability.events import (
    AttemptFailed,
    AttemptStarted,
    BreakerStateChanged,
    HedgeLost,
    notify,
)
from floop_gateway_core.policy.breaker import BreakerState
from floop_gateway_core.policy.tokens.estimate import TokenEstimate
from floop_gateway_core.providers.base import Delta, UpstreamFault
from floop_gateway_core.types import Call, Usage, UsageRecord

__all__ = ["AttemptRunner"]


class AttemptRunner:
    """While there is a `next_attempt`, `start` an attempt; it ends by `succeeded` or `failed`. `close` whatever happens.

    `sizes` are the input's estimates by vocabulary, `deadline` is the request's on the clock of `anyio.current_time`.
    """

    def __init__(
        self,
        engine: Engine,
        record: UsageRecord,
        call: Call,
        route: Sequence[Deployment],
        sizes: Mapping[str, TokenEstimate],
        *,
        granted_tokens: int,
        deadline: float,
    ) -> None:
        self._engine = engine
        self._record = record
        self._call = call
        self._route = route
        self._sizes = sizes
        self._granted_tokens = granted_tokens
        self._deadline = deadline
        self._current: Attempt | None = None
        self._itinerary = AttemptSchedule(
            route,
            engine.breakers,
            attempts=engine.limits.attempts,
            now=anyio.current_time(),
            on_state_change=self._turned,
        )

    @property
    def current(self) -> Attempt:
        if self._current is None:
            raise RuntimeError("no attempt is under way")
        return self._current

    @property
    def may_cost(self) -> bool:
        """Whether there is a current attempt whose request was sent."""
        return self._current is not None and self._current.meter.sent

    @property
    def next_attempt(self) -> PlannedAttempt | None:
        return self._itinerary.stop

    @property
    def cool_down_left_s(self) -> float:
        """Seconds until the first of the route's breakers lets a probe pass."""
        return self._itinerary.cool_down_left_s(self._route, anyio.current_time())

    async def start(self, stop: PlannedAttempt) -> Delta:
        """Ask a deployment, and give the first that came; raise `UpstreamFault`.

        Where the host hedges and nothing comes for a while, the next deployment is asked too, and may become the current.
        """
        self._make_current(self._new(stop))
        if not self._engine.limits.hedge_after_s:
            return await self.current.start()
        most_restrictive, outcome = await race(
            self.current,
            after_s=self._engine.limits.hedge_after_s,
            hedge=self._hedge,
            failed=self._failed_beside,
            lost=self._lost,
        )
        self._make_current(most_restrictive)
        if isinstance(outcome, UpstreamFault):
            raise outcome
        return outcome

    def succeeded(self) -> None:
        self._itinerary.succeeded(self.current.stop, anyio.current_time())

    def failed(self, fault: UpstreamFault) -> None:
        """Count the current attempt's failure, and find the next stop; nothing is under way any more."""
        self._count(self.current, fault)

    def forget(self) -> None:
        """What the current attempt has produced, nobody saw: there is nothing to bill."""
        self._current = None

    async def close_current(self) -> None:
        if self._current is not None:
            await self._current.aclose()

    def close(self) -> None:
        self._itinerary.close(anyio.current_time())

    # -- one attempt -----------------------------------------------------------------------------------------------

    def _new(self, stop: PlannedAttempt) -> Attempt:
        deployment = stop.deployment
        meter = Meter(
            input_tokens=self._sizes[deployment.vocabulary].expected,
            granted_tokens=self._granted_tokens,
            thinking_tokens=deployment.thinking_allowance_tokens,
            vocabulary=deployment.vocabulary,
        )
        self._record.attempts += 1
        notify(self._engine.listeners, AttemptStarted(self._record.request_id, deployment.id, self._record.attempts))
        call = deployment.upstream_call(self._call, self._granted_tokens)
        return Attempt(stop, meter, call, deadline=self._deadline)

    def _make_current(self, attempt: Attempt) -> None:
        self._current = attempt
        self._record.deployment = attempt.deployment.id
        self._record.first_text_ms = None

    def _count(self, attempt: Attempt, fault: UpstreamFault) -> None:
        event = AttemptFailed(self._record.request_id, attempt.deployment.id, fault.fault, fault.reason)
        notify(self._engine.listeners, event)
        now = anyio.current_time()
        self._itinerary.failed(attempt.stop, fault, now, self._deadline - now)

    def _turned(self, deployment: str, state: BreakerState) -> None:
        notify(self._engine.listeners, BreakerStateChanged(deployment, state))

    # -- a race of two ---------------------------------------------------------------------------------------------

    def _hedge(self) -> Attempt | None:
        stop = self._itinerary.hedge(anyio.current_time())
        return None if stop is None else self._new(stop)

    def _failed_beside(self, attempt: Attempt, fault: UpstreamFault, other: Attempt) -> None:
        self._count(attempt, fault)
        self._make_current(other)

    def _lost(self, attempt: Attempt) -> None:
        self._itinerary.dropped(attempt.stop, anyio.current_time())
        usage = attempt.meter.usage() if attempt.meter.sent else Usage(0, 0)
        cost = attempt.deployment.prices.charge(usage)
        notify(self._engine.listeners, HedgeLost(self._record.request_id, attempt.deployment.id, usage, cost))
