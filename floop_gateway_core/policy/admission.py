"""Admission: what a request must pass before any work is done for it, in the contract's order of precedence.

The order is data (`PRECEDENCE`). Path, key, rate, body and fields are settled before a `Call` exists. From then on model
and size are checked here, and `decide_hold` decides budget and credits together, inside the store's transaction,
because both holds are placed or neither is. A refusal leaves no hold.

If a budget or account is nearly empty, the request gets a smaller `max_tokens`; it is refused only if even the input,
the thinking allowance and one token of output cannot be paid. If only other requests' holds cause the refusal, it says
so, with a `Retry-After` of a few seconds, which is not a promise.
"""

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy.budget import DayBudget, seconds_to_midnight
from floop_gateway_core.policy.idempotency import IN_PROGRESS, KeyTaken, refusal_of
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.policy.pricing import CostLine, format_credits, max_cost
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.types import Microcredits

__all__ = [
    "PRECEDENCE",
    "AlreadySettled",
    "Held",
    "HoldEstimate",
    "HoldRefused",
    "ShortBudget",
    "ShortCredits",
    "decide_hold",
    "hold_refusal",
    "rate_refusal",
    "size_refusal",
]

PRECEDENCE = (
    ErrorCode.NOT_FOUND,
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.UNAUTHORIZED,
    ErrorCode.PROJECT_SUSPENDED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.INVALID_BODY,
    ErrorCode.VALIDATION_ERROR,
    ErrorCode.IDEMPOTENCY_MISMATCH,
    ErrorCode.IDEMPOTENCY_IN_PROGRESS,
    ErrorCode.INVALID_MODEL,
    ErrorCode.INPUT_TOO_LARGE,
    ErrorCode.BUDGET_EXCEEDED,
    ErrorCode.INSUFFICIENT_CREDITS,
    ErrorCode.SERVICE_UNAVAILABLE,
    ErrorCode.PROVIDER_ERROR,
)

HELD_RETRY_AFTER_S = 5
"""A typical request is over by then."""
RETRY = (("x-should-retry", "true"),)
"""For refusals that only other requests' holds cause."""


@dataclass(frozen=True, slots=True)
class HoldEstimate:
    """The maximum cost of a request, on the most expensive deployment of its route.

    `fixed_tokens` is the input's upper bound and the thinking allowance; `costs` has one line for each deployment.
    """

    fixed_tokens: int
    output_tokens: int
    costs: tuple[CostLine, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Both holds are placed: the output that the upstream may produce, and what covers it."""

    output_tokens: int
    held_tokens: int
    held_microcredits: Microcredits


@dataclass(frozen=True, slots=True)
class ShortBudget:
    """The day's budget cannot take the request, which needs at least `needed_tokens`."""

    needed_tokens: int
    budget: DayBudget


@dataclass(frozen=True, slots=True)
class ShortCredits:
    """The account cannot pay for the request, which needs at least `needed`."""

    needed: Microcredits
    account: Account


@dataclass(frozen=True, slots=True)
class AlreadySettled:
    """The request was settled before its hold arrived, so nothing may be held for it."""


HoldRefused: TypeAlias = ShortBudget | ShortCredits | AlreadySettled | KeyTaken


def rate_refusal(decision: RateDecision) -> Refusal | None:
    """Refuse what the moving window does not allow."""
    if decision.allowed:
        return None
    return Refusal(
        ErrorCode.RATE_LIMITED,
        f"The limit of {decision.limit} requests in {decision.window_s:g} seconds is used up. "
        f"Retry after {decision.retry_after_s} s.",
        retry_after_s=decision.retry_after_s,
    )


def size_refusal(expected_tokens: int, limit_tokens: int) -> Refusal | None:
    """Refuse an input beyond the plan's context limit, judged by the estimate."""
    if expected_tokens <= limit_tokens:
        return None
    return Refusal(
        ErrorCode.INPUT_TOO_LARGE,
        # Clients of the compatible dialects look for these words.
        f"prompt is too long: {expected_tokens} tokens > {limit_tokens} maximum context length. Send a shorter input.",
    )


def decide_hold(estimate: HoldEstimate, budget: DayBudget, account: Account) -> Held | ShortBudget | ShortCredits:
    """Grant as much output as both the day's budget and the account can bear; the budget is checked first.

    >>> estimate = HoldEstimate(10, 100, (CostLine(0, 0),))
    >>> decide_hold(estimate, DayBudget(limit=50), Account())
    Held(output_tokens=40, held_tokens=50, held_microcredits=0)
    """
    least = min(1, estimate.output_tokens)  # a request without output, such as an embedding, needs only its input
    output = min(estimate.output_tokens, budget.available - estimate.fixed_tokens)
    if output < least:
        return ShortBudget(estimate.fixed_tokens + least, budget)
    output = min((line.affordable(account.available, output) for line in estimate.costs), default=output)
    if output < least:
        return ShortCredits(max_cost(estimate.costs, least), account)
    return Held(output, estimate.fixed_tokens + output, max_cost(estimate.costs, output))


def hold_refusal(refused: HoldRefused, now: float) -> Refusal:
    """Return the refusal that a client sees, with the way out. `now` is epoch seconds."""
    match refused:
        case ShortBudget(needed, budget):
            return _budget_refusal(needed, budget, now)
        case ShortCredits(needed_credits, account):
            return _credit_refusal(needed_credits, account)
        case AlreadySettled():
            return Refusal(ErrorCode.INTERNAL_ERROR, "The request was settled before it was admitted.")
        case KeyTaken(by, claim):
            return refusal_of(by, claim) or IN_PROGRESS  # it has just ended: a retry gets its answer
        case _:
            assert_never(refused)


def _budget_refusal(needed: int, budget: DayBudget, now: float) -> Refusal:
    if needed > budget.limit:
        return Refusal(
            ErrorCode.BUDGET_EXCEEDED,
            f"The request needs {needed} tokens; the daily budget is {budget.limit}. Send a shorter input.",
        )
    if needed <= budget.limit - budget.used:
        return Refusal(
            ErrorCode.BUDGET_EXCEEDED,
            f"The request needs {needed} tokens; {budget.available} of the daily {budget.limit} are free while other "
            "requests run. Retry in a few seconds.",
            retry_after_s=HELD_RETRY_AFTER_S,
            extra_headers=RETRY,
        )
    return Refusal(
        ErrorCode.BUDGET_EXCEEDED,
        f"The request needs {needed} tokens; {max(0, budget.limit - budget.used)} of the daily {budget.limit} are left. "
        "The budget is reset at midnight UTC.",
        retry_after_s=seconds_to_midnight(now),
    )


def _credit_refusal(needed: Microcredits, account: Account) -> Refusal:
    held = needed <= account.posted
    way_out = (
        "free while other requests run. Retry in a few seconds."
        if held
        else "available. Send a shorter input, or ask the project's owner to add credits."
    )
    return Refusal(
        ErrorCode.INSUFFICIENT_CREDITS,
        f"The request needs at least {format_credits(needed)} credits; {format_credits(account.available)} are {way_out}",
        retry_after_s=HELD_RETRY_AFTER_S if held else None,
        extra_headers=RETRY if held else (),
    )
