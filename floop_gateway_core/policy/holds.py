"""One request's two holds, in the day's budget and in the account, placed and resolved together.

This is what a store runs inside its transaction: load the three rows into `RequestHolds`, call one
function, save the result.
Both holds share an id and resolve once; see `budget` and `ledger` for what each does.
"""

from dataclasses import dataclass, replace

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy import ledger
from floop_gateway_core.policy.admission import Grant, HoldEstimate, grant
from floop_gateway_core.policy.budget import DayBudget
from floop_gateway_core.policy.ledger import Account, Hold, Resolved
from floop_gateway_core.types import Microcredits

__all__ = ["RequestHold", "RequestHolds", "expire", "place", "settle"]


@dataclass(frozen=True, slots=True)
class RequestHold:
    """The hold in the ledger, with the tokens that the budget set aside and the output that was granted."""

    credits: Hold
    tokens: int = 0
    output_tokens: int = 0

    @property
    def open(self) -> bool:
        return self.credits.state == "open"


@dataclass(frozen=True, slots=True)
class RequestHolds:
    """What a request touches; `hold` is None where its id is new."""

    account: Account
    budget: DayBudget
    hold: RequestHold | None = None


def place(books: RequestHolds, ask: HoldEstimate, now: float) -> tuple[RequestHolds, Grant | Refusal]:
    """Place both holds, or neither; repeated, give what the first call granted."""
    if (hold := books.hold) is not None:
        if hold.open:
            return books, Grant(hold.output_tokens, hold.tokens, hold.credits.amount)
        return books, Refusal(ErrorCode.INTERNAL_ERROR, "The request was settled before it was admitted.")
    granted = grant(ask, books.budget, books.account, now)
    if isinstance(granted, Refusal):
        return books, granted
    account, credits, _ = ledger.apply(books.account, None, ledger.Place(granted.held_microcredits))
    if credits is None:
        raise AssertionError("a grant is never more than what is available")
    joint = RequestHold(credits, granted.held_tokens, granted.output_tokens)
    return RequestHolds(account, books.budget.hold(granted.held_tokens), joint), granted


def settle(books: RequestHolds, charge: Microcredits | None, tokens: int) -> RequestHolds:
    """Capture both holds, or void them where `charge` is None; a hold that is resolved already stays as it is."""
    return _resolve(books, ledger.Void() if charge is None else ledger.Capture(charge), tokens)


def expire(books: RequestHolds) -> RequestHolds:
    """Void the holds of a process that died."""
    return _resolve(books, ledger.Expire(), 0)


def _resolve(books: RequestHolds, command: ledger.Command, tokens: int) -> RequestHolds:
    before = books.hold
    account, _, outcome = ledger.apply(books.account, None if before is None else before.credits, command)
    if not isinstance(outcome, Resolved):
        # Nothing was ever held: what is to be captured was never admitted, so it is voided, and the id marked.
        account, _, outcome = ledger.apply(books.account, None, ledger.Void())
    if not isinstance(outcome, Resolved):
        raise AssertionError("a void resolves every id")
    budget = books.budget
    if before is not None and before.open:
        budget = budget.capture(held=before.tokens, used=tokens)
    joint = replace(before or RequestHold(outcome.hold), credits=outcome.hold)
    return RequestHolds(account, budget, joint)
