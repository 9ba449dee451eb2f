"""One request's two holds, in the day's budget and in the account, placed and resolved together.

This is what a store runs inside its transaction: load the three rows into `RequestHolds`, call one
function, save the result.
Both holds share an id and resolve once; see `budget` and `ledger` for what each does.
"""

from dataclasses import dataclass

from floop_gateway_core.policy import ledger
from floop_gateway_core.policy.admission import AlreadySettled, Held, HoldEstimate, HoldRefused, decide_hold
from floop_gateway_core.policy.budget import DayBudget
from floop_gateway_core.policy.ledger import Account, Hold, Resolved
from floop_gateway_core.types import Microcredits

__all__ = ["RESOLVED_HOLD_DAYS", "RequestHold", "RequestHolds", "expire", "place", "settle"]


RESOLVED_HOLD_DAYS = 7
"""How long resolved holds are kept: they make a repeated settlement harmless, and none is repeated later."""


@dataclass(frozen=True, slots=True)
class RequestHold:
    """The hold in the ledger, with the tokens that the budget set aside and the output that was granted."""

    credits: Hold
    tokens: int = 0
    output_tokens: int = 0

    @property
    def open(self) -> bool:
        """Return whether the hold is not yet resolved."""
        return self.credits.state == "open"


@dataclass(frozen=True, slots=True)
class RequestHolds:
    """What a request touches; `hold` is None if its id is new."""

    account: Account
    budget: DayBudget
    hold: RequestHold | None = None


def place(before: RequestHolds, estimate: HoldEstimate) -> tuple[RequestHolds, Held | HoldRefused]:
    """Place both holds, or neither. Repeated, return what the first call granted."""
    if (hold := before.hold) is not None:
        if hold.open:
            return before, Held(hold.output_tokens, hold.tokens, hold.credits.amount)
        return before, AlreadySettled()
    held = decide_hold(estimate, before.budget, before.account)
    if not isinstance(held, Held):
        return before, held
    account, credits, _ = ledger.apply(before.account, None, ledger.Place(held.held_microcredits))
    if credits is None:
        raise AssertionError("a hold is never more than what is available")
    hold = RequestHold(credits, held.held_tokens, held.output_tokens)
    return RequestHolds(account, before.budget.hold(held.held_tokens), hold), held


def settle(before: RequestHolds, charge: Microcredits | None, tokens: int) -> RequestHolds:
    """Capture both holds, or void them if `charge` is None. A hold that is resolved stays as it is.

    One that has expired can still be captured: its request was delivered after all.
    """
    return _resolve(before, ledger.Void() if charge is None else ledger.Capture(charge), tokens)


def expire(before: RequestHolds) -> RequestHolds:
    """Void the holds of a process that died."""
    return _resolve(before, ledger.Expire(), 0)


def _resolve(holds: RequestHolds, command: ledger.Command, tokens: int) -> RequestHolds:
    before = holds.hold
    account, _, outcome = ledger.apply(holds.account, None if before is None else before.credits, command)
    if not isinstance(outcome, Resolved):
        # Nothing was ever held: what is to be captured was never admitted, so it is voided, and the id marked.
        account, _, outcome = ledger.apply(holds.account, None, ledger.Void())
    if not isinstance(outcome, Resolved):
        raise AssertionError("a void resolves every id")
    budget = holds.budget
    if before is not None and outcome.hold != before.credits:
        budget = budget.capture(held=before.tokens if before.open else 0, used=tokens)
    joint = (
        RequestHold(outcome.hold) if before is None else RequestHold(outcome.hold, before.tokens, before.output_tokens)
    )
    return RequestHolds(account, budget, joint)
