"""The moving window: at most `limit` admissions in any `window_s` seconds.

Theory: the window keeps the instants of the admissions that still count, as whole microseconds, so that comparisons are
exact. An instant leaves when it is exactly `window_s` old (contract: Limits). A refused call leaves no instant: a client
that hammers is not locked out for longer than the window says.

`decide` is the policy over what any store can count; `Window` keeps the instants of one key and `RateLimiter` those of
many, in memory. If the clock is set back by more than a window, instants that are now far ahead are forgotten.
"""

from collections import deque
from dataclasses import dataclass

__all__ = ["RateDecision", "RateLimiter", "Window", "decide", "leaving_index", "microseconds"]

WINDOW_S = 60.0
SECOND_US = 1_000_000


def microseconds(seconds: float) -> int:
    """Return seconds as whole microseconds."""
    return round(seconds * SECOND_US)


@dataclass(frozen=True, slots=True)
class RateDecision:
    """`retry_after_s` is 0 if allowed, else at least 1; if nobody else calls, a retry after it is sure to be allowed.

    `reset_s` is the time until the oldest counted admission leaves; it is at least 1.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: int
    reset_s: int
    window_s: float = WINDOW_S


def decide(
    *,
    limit: int,
    count: int,
    oldest_us: int | None,
    leaving_us: int | None,
    now_us: int,
    window_us: int,
    spends: bool = True,
    cost: int = 1,
) -> RateDecision:
    """Decide on one call, of which the caller keeps `cost` instants if it is allowed; else `spends` is False.

    `count` instants count now, the oldest is `oldest_us`. `leaving_us` is the instant that must leave before the call gets
    in, the one at `leaving_index`.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    allowed = count + cost <= limit
    if oldest_us is None or now_us < oldest_us < now_us + SECOND_US:
        # Calls may get here in a different order than they read the clock, so the oldest may be slightly ahead of this.
        oldest_us = now_us
    reset_s = _wait_s(oldest_us, now_us, window_us)
    retry_after_s = 0 if allowed or leaving_us is None else _wait_s(leaving_us, now_us, window_us)
    return RateDecision(
        allowed,
        limit,
        max(0, limit - count - (cost if spends and allowed else 0)),
        retry_after_s,
        reset_s,
        window_us / SECOND_US,
    )


def leaving_index(*, limit: int, count: int, cost: int = 1) -> int:
    """Return which instant, from the oldest on, must leave before a refused call gets in."""
    return count + cost - limit - 1


def _wait_s(instant_us: int, now_us: int, window_us: int) -> int:
    return max(1, -((now_us - instant_us - window_us) // SECOND_US))


class Window:
    """The instants of one key."""

    def __init__(self, window_us: int) -> None:
        self.window_us = window_us
        self._instants: deque[int] = deque()

    def acquire(self, limit: int, now_us: int, *, spends: bool = True, cost: int = 1) -> RateDecision:
        """Admit or refuse one call."""
        instants = self._instants
        while instants and instants[0] <= now_us - self.window_us:
            instants.popleft()
        while instants and instants[-1] > now_us + self.window_us:
            instants.pop()
        count = len(instants)
        decision = decide(
            limit=limit,
            count=count,
            oldest_us=instants[0] if instants else None,
            leaving_us=_at(instants, leaving_index(limit=limit, count=count, cost=cost)),
            now_us=now_us,
            window_us=self.window_us,
            spends=spends,
            cost=cost,
        )
        if decision.allowed and spends:
            # Calls of several threads may come a little out of order; the instants stay sorted.
            instants.extend([max(now_us, instants[-1]) if instants else now_us] * cost)
        return decision

    def idle(self, now_us: int) -> bool:
        """Return whether no admission counts any more."""
        return not self._instants or self._instants[-1] <= now_us - self.window_us


def _at(instants: deque[int], index: int) -> int | None:
    return instants[index] if 0 <= index < len(instants) else None


class RateLimiter:
    """A moving window for each key, in memory, for one process. Time comes in as an argument, in seconds of any clock.

    >>> limiter = RateLimiter(limit=2, window_s=60.0)
    >>> [limiter.acquire("key", now=second).allowed for second in (0.0, 1.0, 2.0, 60.0)]
    [True, True, False, True]
    >>> limiter.acquire("key", now=60.5)
    RateDecision(allowed=False, limit=2, remaining=0, retry_after_s=1, reset_s=1, window_s=60.0)
    """

    def __init__(self, limit: int, window_s: float = WINDOW_S) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        if not window_s > 0:
            raise ValueError(f"window_s must be greater than 0, got {window_s}")
        self.limit = limit
        self.window_s = window_s
        self._windows: dict[str, Window] = {}
        self._sweep_us: int | None = None

    def acquire(
        self, key: str, now: float, *, limit: int | None = None, spends: bool = True, cost: int = 1
    ) -> RateDecision:
        """Admit or refuse one call of `key` at `now`; `limit` overrides the limiter's own for this call.

        A call may count as several (`cost`). With `spends=False` this only reports what a call would get; `remaining` is
        then what is left before it.
        """
        now_us, window_us = microseconds(now), microseconds(self.window_s)
        if self._sweep_us is None or abs(now_us - self._sweep_us) >= window_us:
            # Drop idle keys once per window: memory is bounded by the number of keys used in two windows.
            self._windows = {name: window for name, window in self._windows.items() if not window.idle(now_us)}
            self._sweep_us = now_us
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(window_us)
        return window.acquire(self.limit if limit is None else limit, now_us, spends=spends, cost=cost)
