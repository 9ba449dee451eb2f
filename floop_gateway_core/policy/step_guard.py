"""Protects holds when the wall clock jumps forward: after a suspended machine resumes, or at the first NTP sync.

Holds expire by the wall clock, which processes share. When it steps by more than a hold's time to live, the holds of living
requests look like those of dead processes. Each process therefore compares the wall clock with its monotonic clock and, for
one time to live after a step, expires holds by the time without the step.
"""

from collections import deque

__all__ = ["StepGuard"]

STEP_S = 1.0
"""Smaller differences are the clock being slewed."""


class StepGuard:
    """`ttl_s` is the time to live of a hold. Use it from one thread, or guard it.

    >>> guard = StepGuard(ttl_s=300.0)
    >>> guard.time_for_expiry(1000.0, monotonic=0.0), guard.time_for_expiry(1400.0, monotonic=0.0)
    (1000.0, 1000.0)
    >>> guard.time_for_expiry(1701.0, monotonic=301.0)
    1701.0
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._offset: float | None = None
        self._steps: deque[tuple[float, float]] = deque()

    def time_for_expiry(self, now: float, monotonic: float) -> float:
        """Return the time up to which holds may expire. `now` is wall time; both arguments are in seconds."""
        offset = now - monotonic
        step = 0.0 if self._offset is None else offset - self._offset
        if self._offset is None or abs(step) > STEP_S:
            self._offset = offset
        if step > STEP_S:
            self._steps.append((monotonic, step))
        while self._steps and monotonic - self._steps[0][0] > self._ttl_s:
            self._steps.popleft()
        return now - sum(seconds for _, seconds in self._steps)
