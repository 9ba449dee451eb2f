"""Admission: what a request must pass before any work is done for it, in the contract's order of precedence.

The order is data (`PRECEDENCE`). Path, key, rate, body and fields are settled before a `Call` exists; from then on model
and size are checked here, and `grant` decides budget and credits together, inside the store's transaction, because both
holds are made or neither is. A refusal leaves no hold.

A near-empty budget or account gets a smaller `max_tokens`; it is refused only when it cannot pay for the input, the
thinking allowance and one token of output. A refusal that only other requests' holds cause says so, with a `Retry-After`
of a few seconds, and promises nothing.
"""

from dataclasses import dataclass

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy.budget import DayBudget, seconds_to_midnight
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.policy.pricing import CostLine, format_credits, max_cost
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.types import Microcredits

__all__ = ["PRECEDENCE", "Grant", "HoldEstimate", "grant", "rate_refusal", "size_refusal"]

PRECEDENCE = (
    ErrorCode.NOT_FOUND,
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.UNAUTHORIZED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.INVALID_BODY,
    ErrorCode.VALIDATION_ERROR,
    ErrorCode.INVALID_MODEL,
    ErrorCode.INPUT_TOO_LARGE,
    ErrorCode.BUDGET_EXCEEDED,
    ErrorCode.INSUFFICIENT_CREDITS,
    ErrorCode.SERVICE_UNAVAILABLE,
    ErrorCode.PROVIDER_ERROR,
)

HELD_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class HoldEstimate:
    """What a request may come to, on the dearest deployment of its route.

    `fixed_tokens` is the input's upper bound and the thinking allowance; `costs` has one line for each deployment.
    """

    fixed_tokens: int
    output_tokens: int
    costs: tuple[CostLine, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted: the output that the upstream may produce, and the two holds that cover it."""

    output_tokens: int
    held_tokens: int
    held_microcredits: Microcredits


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
        f"The input is about {expected_tokens} tokens; the plan's limit is {limit_tokens}. Send a shorter input.",
    )


def grant(ask: HoldEstimate, budget: DayBudget, account: Account, now: float) -> Grant | Refusal:
    """Grant as much output as both the day's budget and the account can bear, or refuse: budget first.

    >>> ask = HoldEstimate(10, 100, (CostLine(0, 0),))
    >>> grant(ask, DayBudget(limit=50), Account(), now=0.0)
    Grant(output_tokens=40, held_tokens=50, held_microcredits=0)
    """
    output = min(ask.output_tokens, budget.available - ask.fixed_tokens)
    if output < 1:
        return _refuse_budget(ask.fixed_tokens + 1, budget, now)
    output = min((line.affordable(account.available, output) for line in ask.costs), default=output)
    if output < 1:
        return _refuse_credits(max_cost(ask.costs, 1), account)
    return Grant(output, ask.fixed_tokens + output, max_cost(ask.costs, output))


def _refuse_budget(needed: int, budget: DayBudget, now: float) -> Refusal:
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
        )
    return Refusal(
        ErrorCode.BUDGET_EXCEEDED,
        f"The request needs {needed} tokens; {max(0, budget.limit - budget.used)} of the daily {budget.limit} are left. "
        "The budget is reset at midnight UTC.",
        retry_after_s=seconds_to_midnight(now),
    )


def _refuse_credits(needed: Microcredits, account: Account) -> Refusal:
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
    )
