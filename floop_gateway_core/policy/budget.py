"""The daily token budget: input + output of a UTC day, held before the work and captured after it.

The same two phases as the ledger's, but the true amount is always recorded: if an upstream reports more than was held,
`used` may pass the limit, and the next request is refused. A hold belongs to the day of its admission, whenever it ends.
"""

from dataclasses import dataclass

__all__ = ["DayBudget", "is_nearly_used", "seconds_to_midnight", "utc_day"]

DAY_S = 86_400


def utc_day(now: float) -> int:
    """Return the UTC day key: whole days since the epoch.

    >>> utc_day(86_399.9), utc_day(86_400.0)
    (0, 1)
    """
    return int(now) // DAY_S


def seconds_to_midnight(now: float) -> int:
    """Return the whole seconds, at least 1, until the next UTC day.

    >>> seconds_to_midnight(86_399.5), seconds_to_midnight(0.0)
    (1, 86400)
    """
    return DAY_S - int(now) % DAY_S


def is_nearly_used(limit: int, used: int, used_before: int) -> bool:
    """Return whether `used` has just reached 80 % of a budget.

    >>> is_nearly_used(100, 80, 79), is_nearly_used(100, 90, 80), is_nearly_used(100, 79, 0)
    (True, False, False)
    """
    return 5 * used_before < 4 * limit <= 5 * used


@dataclass(frozen=True, slots=True)
class DayBudget:
    """One project's day. `limit` is the project's current limit; `used` and `held` are kept when it changes.

    >>> DayBudget(limit=100).hold(60).capture(held=60, used=25)
    DayBudget(limit=100, used=25, held=0)
    """

    limit: int
    used: int = 0
    held: int = 0

    @property
    def available(self) -> int:
        """Return the tokens that are neither used nor held, at least 0."""
        return max(0, self.limit - self.used - self.held)

    def hold(self, tokens: int) -> "DayBudget":
        """Hold tokens; the caller has checked `available`. Raises ValueError if there are not enough."""
        if not 0 <= tokens <= self.available:
            raise ValueError(f"a hold must be between 0 and {self.available} tokens, got {tokens}")
        return DayBudget(self.limit, self.used, self.held + tokens)

    def capture(self, *, held: int, used: int) -> "DayBudget":
        """Resolve a hold of `held` tokens with what was really used; 0 voids it."""
        if not 0 <= held <= self.held or used < 0:
            raise ValueError(
                f"held must be between 0 and {self.held} tokens and used at least 0, got {held} and {used}"
            )
        return DayBudget(self.limit, self.used + used, self.held - held)
