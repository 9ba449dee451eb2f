"""The attempts of one call: the deployment of each, which one is current, and what happens after a failure.

The schedule decides and `attempt` does; the runner connects the two and notifies the listeners. The *current* attempt is
the one whose output may be billed: the only one in progress, or, while a hedge races, the earlier one until the race is
decided.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from floop_gateway_core.engine.attempt import Attempt
from floop_gateway_core.engine.hedge import race
from floop_gateway_core.engine.meter import Meter
from floop_gateway_core.engine.routing import Deployment, RoutingTable, Runtime
from floop_gateway_core.engine.schedule import AttemptSchedule, PlannedAttempt
from floop_gateway_core.observability.events import (
    AttemptEnded,
    AttemptStarted,
    BreakerStateChanged,
    HedgeLost,
    Notifier,
)
from floop_gateway_core.policy.breaker import BreakerState
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.policy.tokens.estimate import TokenEstimate
from floop_gateway_core.providers.base import Delta, UpstreamFault
from floop_gateway_core.types import AttemptRecord, Call, RequestId, Usage

__all__ = ["AttemptRunner"]

log = logging.getLogger("floop_gateway")


class AttemptRunner:
    """While there is a `next_attempt`, `start` it and then call `succeeded` or `failed`. Always call `close`.

    `sizes` has an estimate of the input for each vocabulary; `deadline` is the request's, on the event loop's `clock`.
    """

    def __init__(
        self,
        runtime: Runtime,
        routing: RoutingTable,
        notifier: Notifier,
        request_id: RequestId,
        call: Call,
        route: Sequence[Deployment],
        sizes: Mapping[str, TokenEstimate],
        *,
        granted_tokens: int,
        deadline: float,
        clock: Callable[[], float],
        suspect: str | None,
    ) -> None:
        self.made = 0
        self.records: list[AttemptRecord] = []
        self.deployment: str | None = None
        self.first_text_ms: int | None = None
        self._limits = routing.limits
        self._notifier = notifier
        self._request_id = request_id
        self._call = call
        self._route = route
        self._sizes = sizes
        self._granted_tokens = granted_tokens
        self._deadline = deadline
        self._clock = clock
        self._runtime = runtime
        self._now = runtime.monotonic
        self._current: Attempt | None = None
        self._schedule = AttemptSchedule(
            route,
            runtime.breakers,
            attempts=routing.limits.attempts,
            now=self._now(),
            on_state_change=self._state_changed,
            suspect=suspect,
        )

    @property
    def current(self) -> Attempt:
        """Return the current attempt, which must exist."""
        if self._current is None:
            raise RuntimeError("no attempt is under way")
        return self._current

    @property
    def may_cost(self) -> bool:
        """Whether there is a current attempt whose request was sent."""
        return self._current is not None and self._current.meter.sent

    @property
    def starts_apart(self) -> bool:
        """Whether an attempt's start may run in a task of its own: it may not while two attempts race."""
        return not self._limits.hedge_after_s

    @property
    def hides_thinking(self) -> bool:
        """Whether the current attempt may have cost thinking that neither the stream nor a report has shown."""
        attempt = self._current
        return (
            attempt is not None
            and attempt.deployment.thinking_allowance(self._call) > 0
            and attempt.meter.may_hide_thinking
        )

    @property
    def next_attempt(self) -> PlannedAttempt | None:
        """The attempt to start next; None if there is none left."""
        return self._schedule.stop

    @property
    def cool_down_left_s(self) -> float:
        """Seconds until the first of the route's breakers lets a probe pass."""
        return self._schedule.cool_down_left_s(self._route, self._now())

    async def start(self, planned: PlannedAttempt) -> Delta:
        """Ask a deployment, and return the first delta; raise `UpstreamFault`.

        If hedging is on and nothing comes for a while, the next deployment is asked too, and may become the current one.
        """
        self._make_current(self._new(planned))
        await self._notifier.flush()
        if not self._limits.hedge_after_s:
            delta = await self.current.start()
            self._schedule.answered(planned, self._now())
            return delta
        winner, result = await race(
            self.current,
            after_s=self._limits.hedge_after_s,
            hedge=self._hedge,
            failed=self._failed_in_race,
            lost=self._lost,
        )
        self._make_current(winner)
        if isinstance(result, UpstreamFault):
            raise result
        self._schedule.answered(winner.planned, self._now())
        return result

    def succeeded(self) -> None:
        """Count the current attempt's success."""
        self._ended(self.current, "succeeded")
        self._schedule.succeeded(self.current.planned, self._now())

    def failed(self, fault: UpstreamFault) -> None:
        """Count the current attempt's failure and find the next attempt; no attempt is in progress any more."""
        self._count(self.current, fault)

    def stop(self) -> None:
        """End the current attempt because the server stops."""
        if self._current is not None:
            self._current.stop()

    def forget(self) -> None:
        """Drop the current attempt: its output never reached the client, so there is nothing to bill."""
        self._current = None

    async def close_current(self) -> None:
        """Close the current attempt's connection."""
        if self._current is not None:
            await self._current.aclose()

    def close(self) -> None:
        """Return the permits of attempts that were cut short or never made."""
        if self._current is not None and not self._current.ended:
            self._ended(self._current, "cancelled")
        self._schedule.close(self._now())

    # -- one attempt -----------------------------------------------------------------------------------------------

    def _new(self, planned: PlannedAttempt) -> Attempt:
        deployment = planned.deployment
        meter = Meter(
            input_tokens=self._sizes[deployment.vocabulary].expected,
            granted_tokens=self._granted_tokens,
            thinking_tokens=deployment.thinking_allowance(self._call),
            vocabulary=deployment.vocabulary,
        )
        self.made += 1
        self._notifier.notify(
            AttemptStarted, self._request_id, deployment.id, self.made, deployment.provider_name, deployment.model
        )
        headers = self._notifier.upstream_headers(self._request_id, self.made)
        call = deployment.upstream_call(self._call, self._granted_tokens, headers)
        return Attempt(planned, meter, call, number=self.made, deadline=self._deadline, clock=self._clock)

    def _make_current(self, attempt: Attempt) -> None:
        self._current = attempt
        self.deployment = attempt.deployment.id
        self.first_text_ms = None

    def _ended(
        self, attempt: Attempt, outcome: Literal["succeeded", "failed", "cancelled"], fault: UpstreamFault | None = None
    ) -> None:
        attempt.ended = True
        duration_ms = round((self._clock() - attempt.created) * 1000)
        kind, reason = (None, None) if fault is None else (fault.fault, fault.reason)
        self.records.append(AttemptRecord(attempt.deployment.id, kind and kind.value, reason, duration_ms))
        self._notifier.notify(
            AttemptEnded, self._request_id, attempt.deployment.id, attempt.number, outcome, kind, reason, duration_ms
        )

    def _count(self, attempt: Attempt, fault: UpstreamFault) -> None:
        self._ended(attempt, "failed", fault)
        log.warning(
            "request %s: attempt %d of %d at %s failed: %s (%s)",
            self._request_id,
            attempt.number,
            self._limits.attempts,
            attempt.deployment.id,
            fault.reason,
            fault.fault.value,
        )
        if fault.fault is FaultKind.UNUSABLE and self._runtime.may_report(attempt.deployment.id):
            log.error(
                "deployment %s cannot be used: %s; check its key, model and quota", attempt.deployment.id, fault.reason
            )
        time_left_s = self._deadline - self._clock()
        self._schedule.failed(attempt.planned, fault, self._now(), time_left_s)

    def _state_changed(self, deployment: str, state: BreakerState) -> None:
        if state == "open":
            log.warning("deployment %s: the circuit breaker has opened", deployment)
        self._runtime.note_transition(deployment, state)
        self._notifier.notify(BreakerStateChanged, deployment, state, self._request_id)

    # -- a race of two ---------------------------------------------------------------------------------------------

    def _hedge(self) -> Attempt | None:
        planned = self._schedule.hedge(self._now())
        return None if planned is None else self._new(planned)

    def _failed_in_race(self, attempt: Attempt, fault: UpstreamFault, other: Attempt) -> None:
        self._count(attempt, fault)
        self._make_current(other)

    def _lost(self, attempt: Attempt) -> None:
        self._ended(attempt, "cancelled")
        self._schedule.dropped(attempt.planned, self._now())
        usage = attempt.meter.usage() if attempt.meter.sent else Usage(0, 0)
        cost = attempt.deployment.prices.charge(usage)
        self._notifier.notify(HedgeLost, self._request_id, attempt.deployment.id, usage, cost)
