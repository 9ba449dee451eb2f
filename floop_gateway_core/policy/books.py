"""One request's two holds, in the day's budget and in the account, placed and resolved together.

This is what a store runs inside its transaction: load the three rows into `Books`, call one function, save what it gives.
Both holds share an id and resolve once; see `budget` and `ledger` for what each does.
"""

from dataclasses import dataclass, replace

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy import ledger
from floop_gateway_core.policy.admission import Ask, Grant, grant
from floop_gateway_core.policy.budget import DayBudget
from floop_gateway_core.policy.ledger import Account, Hold, Resolved
from floop_gateway_core.types import Microcredits

__all__ = ["Books", "JointHold", "expire", "place", "settle"]


@dataclass(frozen=True, slots=True)
class JointHold:
    """The hold in the ledger, with the tokens that the budget set aside and the output that was granted."""

    credits: Hold
    tokens: int = 0
    output_tokens: int = 0

    @property
    def open(self) -> bool:
        return self.credits.state == "open"


@dataclass(frozen=True, slots=True)
class Books:
    """What a request touches; `hold` is None where its id is new."""

    account: Account
    budget: DayBudget
    hold: JointHold | None = None


def place(books: Books, ask: Ask, now: float) -> tuple[Books, Grant | Refusal]:
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
    joint = JointHold(credits, granted.held_tokens, granted.output_tokens)
    return Books(account, books.budget.hold(granted.held_tokens), joint), granted


def settle(books: Books, charge: Microcredits | None, tokens: int) -> Books:
    """Capture both holds, or void them where `charge` is None; a hold that is resolved already stays as it is."""
    return _resolve(books, ledger.Void() if charge is None else ledger.Capture(charge), tokens)


def expire(books: Books) -> Books:
    """Void the holds of a process that died."""
    return _resolve(books, ledger.Expire(), 0)


def _resolve(books: Books, command: ledger.Command, tokens: int) -> Books:
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
    joint = replace(before or JointHold(outcome.hold), credits=outcome.hold)
    return Books(account, budget, joint)
