"""The attempts of one request along its route: which deployment is tried next, and when.

It asks `policy.retry` what to do after a fault, and each deployment's breaker whether that deployment may be tried; a
deployment with an open breaker is skipped and uses no attempt. All state changes happen here, without awaiting
anything.

An attempt is *under way* until it is reported as `succeeded`, `failed` or `dropped`. There is one, or two if a hedge
was started; the next one is chosen only after the last of them has failed. A hedge that came second has not failed, and
the deployment of an attempt that failed first is skipped only if its fault requires it.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from floop_gateway_core.engine.routing import Deployment
from floop_gateway_core.policy.breaker import BreakerState, CircuitBreaker, Permit
from floop_gateway_core.policy.retry import Failover, FaultKind, GiveUp, RetrySame, next_step
from floop_gateway_core.providers.base import UpstreamFault

__all__ = ["AttemptSchedule", "PlannedAttempt"]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedAttempt:
    """An attempt to make: wait `delay_s`, try `deployment`, and return the permit."""

    deployment: Deployment
    permit: Permit
    delay_s: float = 0.0


class AttemptSchedule:
    """`stop` is the next attempt to make, or None. `on_state_change` is called when a breaker changes state.

    `suspect` is the caller's project: failures that its own request may have caused are attributed to it. If it is
    None, all failures count.
    """

    def __init__(
        self,
        route: Sequence[Deployment],
        breakers: Mapping[str, CircuitBreaker],
        *,
        attempts: int,
        now: float,
        on_state_change: Callable[[str, BreakerState], None],
        suspect: str | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ahead = list(route)
        self._breakers = breakers
        self._attempts_left = attempts
        self._tries: Counter[str] = Counter()
        self._on_turn = on_state_change
        self._suspect = suspect
        self._jitter = jitter
        self._under_way: list[PlannedAttempt] = []
        self.stop: PlannedAttempt | None = self._pass_over(now)

    def hedge(self, now: float) -> PlannedAttempt | None:
        """Return an attempt at the next deployment, alongside the one under way, or None if no deployment is left."""
        for deployment in self._ahead[1:]:
            if (stop := self._admitted(deployment, now)) is not None:
                return stop
        return None

    def answered(self, stop: PlannedAttempt, now: float) -> None:
        """Note that an attempt's first event has come."""
        self._change(stop, now, lambda breaker: breaker.answered(stop.permit))

    def succeeded(self, stop: PlannedAttempt, now: float) -> None:
        """Count the success and stop looking for further attempts."""
        self._give_back(stop, now, lambda breaker: breaker.success(stop.permit))

    def failed(self, stop: PlannedAttempt, fault: UpstreamFault, now: float, time_left_s: float) -> None:
        """Count the failure; if nothing else is under way, find the next stop."""
        if fault.fault.counts:
            suspect = self._suspect if fault.request_suspected else None
            self._give_back(stop, now, lambda breaker: breaker.failure(stop.permit, now, suspect=suspect))
        else:
            self._give_back(stop, now, lambda breaker: breaker.cancel(stop.permit))
        if not self._under_way:
            self.stop = self._after(stop.deployment, fault, now, time_left_s)
        elif stop.deployment is self._ahead[0]:
            self._go_to(self._under_way[0].deployment)
        elif fault.fault is FaultKind.UNUSABLE or fault.again is False:
            self._ahead.remove(stop.deployment)

    def dropped(self, stop: PlannedAttempt, now: float) -> None:
        """Another attempt came first, or the client has left: it counts neither as a success nor as a failure."""
        self._give_back(stop, now, lambda breaker: breaker.cancel(stop.permit))
        if self._under_way and stop.deployment is self._ahead[0]:
            self._go_to(self._under_way[0].deployment)

    def close(self, now: float) -> None:
        """Return the breaker permits of stops that will not be made or were cut short."""
        for stop in tuple(self._under_way):
            self.dropped(stop, now)

    def cool_down_left_s(self, route: Sequence[Deployment], now: float) -> float:
        """Seconds until the first of the route's breakers lets a probe pass."""
        return min(self._breakers[deployment.id].cool_down_left_s(now) for deployment in route)

    def _after(
        self, deployment: Deployment, fault: UpstreamFault, now: float, time_left_s: float
    ) -> PlannedAttempt | None:
        behind = [one for one in self._ahead if one is not deployment and self._breakers[one.id].state(now) != "open"]
        step = next_step(
            fault.fault,
            attempts_left=self._attempts_left,
            tries_here=self._tries[deployment.id],
            deployments_left=len(behind),
            time_left_s=time_left_s,
            jitter=self._jitter(),
            retry_after_s=fault.retry_after_s,
            again=fault.again,
        )
        match step:
            case GiveUp():
                return None
            case Failover():
                self._ahead.remove(deployment)
                return self._pass_over(now)
            case RetrySame(delay_s):
                # This failure may have tripped the breaker, so ask the breaker again even for the same deployment.
                return self._pass_over(now, delay_s)

    def _go_to(self, deployment: Deployment) -> None:
        del self._ahead[: self._ahead.index(deployment)]

    def _pass_over(self, now: float, delay_s: float = 0.0) -> PlannedAttempt | None:
        """Find the next deployment whose breaker lets us pass; the delay applies only to the current one."""
        while self._ahead and self._attempts_left:
            if (stop := self._admitted(self._ahead[0], now, delay_s)) is not None:
                return stop
            del self._ahead[0]
            delay_s = 0.0
        return None

    def _admitted(self, deployment: Deployment, now: float, delay_s: float = 0.0) -> PlannedAttempt | None:
        """Start a stop there if an attempt is left and the breaker allows it."""
        permit = self._breakers[deployment.id].admit(now) if self._attempts_left else None
        if permit is None:
            return None
        self._attempts_left -= 1
        self._tries[deployment.id] += 1
        stop = PlannedAttempt(deployment, permit, delay_s)
        self._under_way.append(stop)
        return stop

    def _give_back(self, stop: PlannedAttempt, now: float, change: Callable[[CircuitBreaker], None]) -> None:
        """Return a permit by `change`."""
        self._under_way.remove(stop)
        self._change(stop, now, change)

    def _change(self, stop: PlannedAttempt, now: float, change: Callable[[CircuitBreaker], None]) -> None:
        """Let `change` act on the breaker, and report a transition."""
        breaker = self._breakers[stop.deployment.id]
        before = breaker.generation
        change(breaker)
        if breaker.generation != before:
            self._on_turn(stop.deployment.id, breaker.state(now))
