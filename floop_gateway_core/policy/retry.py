"""What follows a failed attempt: the same deployment again, the next one, or the end.

A request has one budget of attempts for its whole route. A deployment gets a second attempt if that leaves at least one
for each remaining deployment; the last deployment gets all remaining attempts (three attempts: A A A, A A B or A B C).
The wait between attempts on one deployment is full-jitter back-off, but never less than the upstream's `Retry-After`.
If that exceeds `MAX_RETRY_AFTER_S` and another deployment remains, that one is next. If a wait would outlast the
request's deadline, the request ends immediately (contract: Providers).
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

__all__ = ["Failover", "FaultKind", "GiveUp", "RetrySame", "Step", "backoff_s", "next_step"]

BACKOFF_BASE_S = 0.5
"""The mean of the first wait is half of this."""
BACKOFF_CAP_S = 8.0
"""No wait is longer."""
MAX_RETRY_AFTER_S = 2.0
"""A longer `Retry-After` sends the request to the next deployment, if there is one."""
TRIES_BEFORE_FAILOVER = 2
"""Attempts on one deployment before the next, while the budget of attempts allows."""


class FaultKind(Enum):
    """How an attempt failed, as the contract's table distinguishes them."""

    TRANSIENT = "transient"  # connect, read, time-out, 408, 5xx, 529, broken or truncated: again, next, counts
    RATE_LIMITED = "rate_limited"  # 429: again, next, does not count
    UNUSABLE = "unusable"  # exhausted quota, 401, 403, 404: next deployment immediately, counts
    REJECTED = "rejected"  # 400, 413, 422: no other deployment would do better
    CONTEXT_LENGTH = "context_length"  # a 400 that says the input is too long for the model
    OUT_OF_TIME = "out_of_time"  # the request's own time ran out first

    @property
    def counts(self) -> bool:
        """Whether the breaker counts it against the deployment."""
        return self in (FaultKind.TRANSIENT, FaultKind.UNUSABLE)

    @property
    def final(self) -> bool:
        """Whether no attempt anywhere could do better."""
        return self in (FaultKind.REJECTED, FaultKind.CONTEXT_LENGTH, FaultKind.OUT_OF_TIME)


@dataclass(frozen=True, slots=True)
class RetrySame:
    """The same deployment, after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Failover:
    """Go to the next deployment immediately."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No attempt is left, or none would help."""


Step: TypeAlias = RetrySame | Failover | GiveUp


def backoff_s(tries: int, jitter: float) -> float:
    """Return the seconds to wait after `tries` failed attempts on one deployment; `jitter` is uniform in [0, 1).

    >>> backoff_s(1, 0.5), backoff_s(2, 0.5), backoff_s(10, 1.0)
    (0.25, 0.5, 8.0)
    """
    return float(jitter * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** (tries - 1)))


def next_step(
    fault: FaultKind,
    *,
    attempts_left: int,
    tries_here: int,
    deployments_left: int,
    time_left_s: float,
    jitter: float,
    retry_after_s: float | None = None,
    again: bool | None = None,
) -> Step:
    """Decide what follows a failure. `deployments_left` excludes this one; `again` is the upstream's retry hint.

    >>> next_step(FaultKind.TRANSIENT, attempts_left=2, tries_here=1, deployments_left=0, time_left_s=9.0, jitter=0.5)
    RetrySame(delay_s=0.25)
    """
    if fault.final or attempts_left < 1 or time_left_s <= 0:
        return GiveUp()
    elsewhere: Step = Failover() if deployments_left else GiveUp()
    if fault is FaultKind.UNUSABLE or again is False:
        return elsewhere
    if deployments_left and (
        tries_here >= TRIES_BEFORE_FAILOVER
        or attempts_left <= deployments_left
        or (retry_after_s or 0) > MAX_RETRY_AFTER_S
    ):
        return elsewhere
    delay_s = max(backoff_s(tries_here, jitter), retry_after_s or 0.0)
    return RetrySame(delay_s) if delay_s < time_left_s else elsewhere
