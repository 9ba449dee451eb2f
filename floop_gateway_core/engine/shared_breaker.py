"""A circuit breaker for several threads and event loops: the same policy, protected by a lock."""

import threading

from floop_gateway_core.policy.breaker import CircuitBreaker, Permit

__all__ = ["SharedBreaker"]


class SharedBreaker(CircuitBreaker):
    """A `CircuitBreaker` whose calls are atomic. Pass `time.monotonic()`, which all threads of a process share."""

    def __init__(self, *, failures: int = 5, window_s: float = 60.0, cool_down_s: float = 60.0) -> None:
        super().__init__(failures=failures, window_s=window_s, cool_down_s=cool_down_s)
        self._lock = threading.RLock()

    def admit(self, now: float) -> Permit | None:
        """Return a permit for one call, or None."""
        with self._lock:
            return super().admit(now)

    def success(self, permit: Permit | None) -> None:
        """Return a permit after a success."""
        with self._lock:
            super().success(permit)

    def answered(self, permit: Permit | None) -> None:
        """Note the first event of a call's answer."""
        with self._lock:
            super().answered(permit)

    def failure(self, permit: Permit | None, now: float, *, suspect: str | None = None) -> None:
        """Return a permit after a failure."""
        with self._lock:
            super().failure(permit, now, suspect=suspect)

    def cancel(self, permit: Permit | None) -> None:
        """Return a permit that says nothing about the deployment."""
        with self._lock:
            super().cancel(permit)
