"""The circuit breaker of one deployment: closed → open → half-open, one probe at a time.

    closed     every call passes. `failures` failures in a row, none older than `window_s`, trip it: a success between
               them clears the count, so a busy upstream that fails one call in a hundred is never cut off.
    open       no call passes until `cool_down_s` has gone by.
    half-open  one probe passes at a time. Its first event closes the breaker, its failure opens it for another
               cool-down; a probe that is cancelled says nothing, and the next call is the probe.

Some failures may be the request's own fault rather than the deployment's. They name a suspect (such as the project) and
count only once per suspect until a second suspect has had one, so that one caller cannot open the breaker for everyone.

Each call takes a `Permit` and gives it back as a success, a failure, or cancelled (a client's disconnect, our own
cancellation, a fault that is not the deployment's). A permit from before the last transition is ignored.
Time comes in as an argument. No locks: use one breaker from one thread, or guard it.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

__all__ = ["BreakerState", "CircuitBreaker", "Permit"]

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Permit:
    """One admitted call; `era` numbers the breaker's transitions."""

    generation: int
    probe: bool


class CircuitBreaker:
    """
    >>> breaker = CircuitBreaker(failures=2, cool_down_s=60.0)
    >>> for _ in range(2):
    ...     breaker.failure(breaker.admit(now=0.0), now=0.0)
    >>> breaker.admit(now=59.0) is None, breaker.cool_down_left_s(now=59.0)
    (True, 1.0)
    >>> probe = breaker.admit(now=60.0)
    >>> breaker.admit(now=60.0) is None
    True
    >>> breaker.success(probe)
    >>> breaker.state(now=60.0)
    'closed'
    """

    def __init__(self, *, failures: int = 5, window_s: float = 60.0, cool_down_s: float = 60.0) -> None:
        if failures < 1 or not window_s > 0 or not cool_down_s > 0:
            raise ValueError(
                "failures must be at least 1, window_s and cool_down_s above 0, "
                f"got {failures}, {window_s:g} and {cool_down_s:g}"
            )
        self.failures = failures
        self.window_s = window_s
        self.cool_down_s = cool_down_s
        self._recent: deque[float] = deque(maxlen=failures)
        self._opened_at: float | None = None
        self._probing = False
        self._suspects: set[str] = set()
        self._era = 0

    @property
    def generation(self) -> int:
        """The number of transitions so far; comparing it before and after a call shows one."""
        return self._era

    def state(self, now: float) -> BreakerState:
        """Return the state at `now`."""
        if self._opened_at is None:
            return "closed"
        return "open" if self.cool_down_left_s(now) > 0 else "half_open"

    def cool_down_left_s(self, now: float) -> float:
        """Return the seconds until a probe may pass; 0 if one may, or if the breaker is closed."""
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + self.cool_down_s - now)

    def admit(self, now: float) -> Permit | None:
        """Return a permit for one call, or None. Give every permit back with `success`, `failure` or `cancel`."""
        match self.state(now):
            case "closed":
                return Permit(self._era, probe=False)
            case "half_open" if not self._probing:
                self._probing = True
                return Permit(self._era, probe=True)
            case _:
                return None

    def success(self, permit: Permit | None) -> None:
        """Return a permit after a success, which closes a half-open breaker."""
        if permit is None or permit.generation != self._era:
            return
        self._recent.clear()
        self._suspects.clear()
        if permit.probe:
            self._turn(opened_at=None)

    def answered(self, permit: Permit | None) -> None:
        """Note the first event of a call's answer, which closes a half-open breaker. Still give the permit back."""
        if permit is not None and permit.generation == self._era and permit.probe:
            self._turn(opened_at=None)

    def failure(self, permit: Permit | None, now: float, *, suspect: str | None = None) -> None:
        """Return a permit after a failure, which may open the breaker; `suspect` is who may have caused it."""
        if permit is None or permit.generation != self._era:
            return
        if suspect is not None:
            if self._suspects == {suspect}:
                self.cancel(permit)
                return
            self._suspects.add(suspect)
        self._recent.append(now)
        if permit.probe or (len(self._recent) == self.failures and now - self._recent[0] < self.window_s):
            self._turn(opened_at=now)

    def cancel(self, permit: Permit | None) -> None:
        """Return a permit that says nothing about the deployment."""
        if permit is not None and permit.generation == self._era and permit.probe:
            self._probing = False

    def _turn(self, opened_at: float | None) -> None:
        self._opened_at = opened_at
        self._probing = False
        self._recent.clear()
        self._suspects.clear()
        self._era += 1
