"""The credit ledger: hold → capture | void | expire, as card payments do it, in whole micro-credits.

An account has `posted` (granted and not yet spent) and `held` (set aside for requests in flight); `available` is the
difference, and never below zero. A hold is placed under an id chosen by the caller and resolves exactly once. Every
command may be repeated: a repeat changes nothing and returns the result of the first one.

Invariants: `0 <= held <= posted`; posted = granted - captured - overruns; the sum of open holds is `held`.

A capture above its hold takes the rest from the available balance, as an *overrun*, never from other holds. The part
that the account cannot pay is *written off*: a separate entry, never a negative balance. A hold that arrives after its
id was resolved (because the caller gave up in the meantime) is refused; otherwise it would never be released. A capture
after the hold has expired is entirely overrun: delivered output is charged as far as the account can pay.

`apply` is the whole state machine. A store loads the account and the one hold, applies, and writes both back in the same
transaction.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, assert_never

from floop_gateway_core.types import Microcredits

__all__ = [
    "MAX_MICROCREDITS",
    "Account",
    "Capture",
    "Command",
    "Credited",
    "Expire",
    "Grant",
    "Hold",
    "Insufficient",
    "Outcome",
    "Place",
    "Resolved",
    "Unknown",
    "Void",
    "apply",
]

ZERO = Microcredits(0)
MAX_MICROCREDITS = Microcredits(2**62)
"""Bounds every balance, so that it fits a 64-bit column with room for a sum."""

HoldState = Literal["open", "captured", "voided", "expired"]


@dataclass(frozen=True, slots=True)
class Account:
    """An owner's balance in micro-credits: `posted` is granted and unspent, of which `held` is set aside."""

    posted: Microcredits = ZERO
    held: Microcredits = ZERO

    @property
    def available(self) -> Microcredits:
        """Return what may still be held or spent."""
        return Microcredits(self.posted - self.held)


@dataclass(frozen=True, slots=True)
class Hold:
    """`captured` includes no overrun; `charged` is both."""

    amount: Microcredits
    state: HoldState = "open"
    captured: Microcredits = ZERO
    overrun: Microcredits = ZERO
    written_off: Microcredits = ZERO

    @property
    def charged(self) -> Microcredits:
        """Return what the account paid: captured and overrun."""
        return Microcredits(self.captured + self.overrun)


@dataclass(frozen=True, slots=True)
class Grant:
    """Add to the account."""

    amount: Microcredits


@dataclass(frozen=True, slots=True)
class Place:
    """Set `amount` aside."""

    amount: Microcredits


@dataclass(frozen=True, slots=True)
class Capture:
    """Charge `amount`, less or more than was held, and free the rest. An expired hold can still be captured."""

    amount: Microcredits


@dataclass(frozen=True, slots=True)
class Void:
    """Release the hold; nothing is charged. For an unknown id it leaves a mark, so that a late `Place` is refused."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Void the hold of a process that died."""


Command: TypeAlias = Grant | Place | Capture | Void | Expire


@dataclass(frozen=True, slots=True)
class Credited:
    """The account after a credit."""

    amount: Microcredits


@dataclass(frozen=True, slots=True)
class Resolved:
    """The hold after the command, placed or resolved, now or by an earlier command of the same id."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Insufficient:
    """`needed` is more than `available`. Nothing changed."""

    needed: Microcredits
    available: Microcredits


@dataclass(frozen=True, slots=True)
class Unknown:
    """The hold to capture or expire does not exist. Nothing changed."""


Outcome: TypeAlias = Credited | Resolved | Insufficient | Unknown


def apply(account: Account, hold: Hold | None, command: Command) -> tuple[Account, Hold | None, Outcome]:
    """Apply one command to an account and the hold of the command's id (None if the id is new).

    >>> account, _, _ = apply(Account(), None, Grant(Microcredits(100)))
    >>> account, hold, _ = apply(account, None, Place(Microcredits(60)))
    >>> account.available
    40
    >>> account, hold, _ = apply(account, hold, Capture(Microcredits(25)))
    >>> account
    Account(posted=75, held=0)
    >>> apply(account, hold, Void())[2].hold.state
    'captured'
    """
    match command:
        case Grant(amount):
            if not 0 <= amount <= MAX_MICROCREDITS - account.posted:
                raise ValueError(
                    f"a grant must be between 0 and {MAX_MICROCREDITS - account.posted} micro-credits, got {amount}"
                )
            return Account(Microcredits(account.posted + amount), account.held), hold, Credited(amount)
        case Place(amount):
            if hold is not None:
                return account, hold, Resolved(hold)
            if amount < 0:
                raise ValueError(f"a hold must be at least 0 micro-credits, got {amount}")
            if amount > account.available:
                return account, None, Insufficient(amount, account.available)
            hold = Hold(amount)
            return Account(account.posted, Microcredits(account.held + amount)), hold, Resolved(hold)
        case Capture(amount):
            if hold is None:
                return account, None, Unknown()
            if hold.state not in ("open", "expired"):
                return account, hold, Resolved(hold)
            return _capture(account, hold, amount)
        case Void():
            return _free(account, hold or Hold(ZERO), "voided")
        case Expire():
            return (account, None, Unknown()) if hold is None else _free(account, hold, "expired")
        case _:
            assert_never(command)


def _capture(account: Account, hold: Hold, amount: Microcredits) -> tuple[Account, Hold, Outcome]:
    if amount < 0:
        raise ValueError(f"a capture must be at least 0 micro-credits, got {amount}")
    set_aside = hold.amount if hold.state == "open" else ZERO
    captured = min(amount, set_aside)
    overrun = min(amount - captured, account.available)
    written_off = amount - captured - overrun
    hold = Hold(hold.amount, "captured", Microcredits(captured), Microcredits(overrun), Microcredits(written_off))
    after = Account(Microcredits(account.posted - hold.charged), Microcredits(account.held - set_aside))
    return after, hold, Resolved(hold)


def _free(account: Account, hold: Hold, state: HoldState) -> tuple[Account, Hold, Outcome]:
    if hold.state != "open":
        return account, hold, Resolved(hold)
    freed = replace(hold, state=state)
    return Account(account.posted, Microcredits(account.held - hold.amount)), freed, Resolved(freed)
