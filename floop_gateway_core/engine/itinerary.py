"""One request's way along its route: which deployment is tried next, and when.

It asks `policy.retry` what follows a fault and each deployment's breaker whether it may be tried; a deployment whose
breaker is open is passed over and costs no attempt. All state changes happen here, without awaiting anything.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from floop_gateway_core.engine.deployment import Deployment
from floop_gateway_core.policy.breaker import BreakerState, CircuitBreaker, Permit
from floop_gateway_core.policy.retry import Again, GiveUp, NextDeployment, next_step
from floop_gateway_core.providers.base import UpstreamFault

__all__ = ["Itinerary", "Stop"]


@dataclass(frozen=True, slots=True)
class Stop:
    """One attempt to make: wait `delay_s`, then try `deployment`, and give the permit back."""

    deployment: Deployment
    permit: Permit
    delay_s: float = 0.0


class Itinerary:
    """`stop` is the attempt to make next, None where there is none; `on_turn` hears of breakers that change state."""

    def __init__(
        self,
        route: Sequence[Deployment],
        breakers: Mapping[str, CircuitBreaker],
        *,
        attempts: int,
        now: float,
        on_turn: Callable[[str, BreakerState], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ahead = list(route)
        self._breakers = breakers
        self._attempts_left = attempts
        self._tries_here = 0
        self._on_turn = on_turn
        self._jitter = jitter
        self.stop: Stop | None = self._pass_over(now)

    def succeeded(self, now: float) -> None:
        if (stop := self._take()) is not None:
            with self._watched(stop, now) as breaker:
                breaker.success(stop.permit)

    def failed(self, fault: UpstreamFault, now: float, time_left_s: float) -> None:
        """Count the failure, and find the next stop."""
        if (stop := self._take()) is None:
            return
        with self._watched(stop, now) as breaker:
            if fault.fault.counts:
                breaker.failure(stop.permit, now)
            else:
                breaker.cancel(stop.permit)
        behind = [one for one in self._ahead[1:] if self._breakers[one.id].state(now) != "open"]
        step = next_step(
            fault.fault,
            attempts_left=self._attempts_left,
            tries_here=self._tries_here,
            deployments_left=len(behind),
            time_left_s=time_left_s,
            jitter=self._jitter(),
            retry_after_s=fault.retry_after_s,
            again=fault.again,
        )
        match step:
            case GiveUp():
                pass
            case NextDeployment():
                self._leave()
                self.stop = self._pass_over(now)
            case Again(delay_s):
                # It may have tripped on this very failure, so the same deployment, too, is asked for anew.
                self.stop = self._pass_over(now, delay_s)

    def close(self) -> None:
        """Give back the permit of a stop that will not be made, or was cut short."""
        if (stop := self._take()) is not None:
            self._breakers[stop.deployment.id].cancel(stop.permit)

    def cool_down_left_s(self, route: Sequence[Deployment], now: float) -> float:
        """Seconds until the first of the route's breakers lets a probe pass."""
        return min(self._breakers[deployment.id].cool_down_left_s(now) for deployment in route)

    def _take(self) -> Stop | None:
        stop, self.stop = self.stop, None
        return stop

    def _leave(self) -> None:
        del self._ahead[0]
        self._tries_here = 0

    def _pass_over(self, now: float, delay_s: float = 0.0) -> Stop | None:
        """Find the first deployment ahead whose breaker lets us pass; the wait is only for the one we are at."""
        while self._ahead and self._attempts_left:
            deployment = self._ahead[0]
            permit = self._breakers[deployment.id].admit(now)
            if permit is not None:
                self._attempts_left -= 1
                self._tries_here += 1
                return Stop(deployment, permit, delay_s)
            self._leave()
            delay_s = 0.0
        return None

    @contextmanager
    def _watched(self, stop: Stop, now: float) -> Iterator[CircuitBreaker]:
        breaker = self._breakers[stop.deployment.id]
        before = breaker.era
        yield breaker
        if breaker.era != before:
            self._on_turn(stop.deployment.id, breaker.state(now))
