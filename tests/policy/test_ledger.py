"""The ledger against a model, under every order of commands; and the few things that it must refuse to do."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from floop_gateway_core.policy.ledger import (
    MAX_MICROCREDITS,
    Account,
    Capture,
    Command,
    Credited,
    Expire,
    Grant,
    Hold,
    Insufficient,
    Outcome,
    Place,
    Resolved,
    Unknown,
    Void,
    apply,
)
from floop_gateway_core.types import Microcredits

AMOUNTS = st.one_of(st.integers(0, 50), st.integers(0, 10**12)).map(Microcredits)


def account(posted: int, held: int = 0) -> Account:
    return Account(Microcredits(posted), Microcredits(held))


def amount(value: int) -> Microcredits:
    return Microcredits(value)


@dataclass
class Model:
    """What the books must say, kept as plain sums."""

    granted: int = 0
    captured: int = 0
    overrun: int = 0
    written_off: int = 0
    asked: int = 0


class LedgerMachine(RuleBasedStateMachine):
    """Ids live in two bundles: those that nobody has resolved, and those that something has resolved for good."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.account = Account()
        self.holds: dict[int, Hold | None] = {}
        self.resolved: dict[int, Hold] = {}
        self.next_id = 0

    open_ids = Bundle("open_ids")
    expired_ids = Bundle("expired_ids")
    resolved_ids = Bundle("resolved_ids")

    def command(self, hold_id: int, command: Command) -> Outcome:
        self.account, self.holds[hold_id], outcome = apply(self.account, self.holds.get(hold_id), command)
        return outcome

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    @rule(amount=AMOUNTS)
    def grant(self, amount: Microcredits) -> None:
        self.account, _, outcome = apply(self.account, None, Grant(amount))
        self.model.granted += amount
        assert Credited(amount) == outcome

    @rule(target=open_ids, amount=AMOUNTS)
    def place(self, amount: Microcredits) -> object:
        before, hold_id = self.account, self.new_id()
        outcome = self.command(hold_id, Place(amount))
        if amount > before.available:
            assert Insufficient(amount, before.available) == outcome
            assert (before, None) == (self.account, self.holds[hold_id])
            return multiple()
        assert Resolved(Hold(amount)) == outcome
        return hold_id

    @rule(target=open_ids, share=st.fractions(0, 1))
    def place_a_share_of_what_is_there(self, share: object) -> int:
        hold_id = self.new_id()
        part = amount(int(self.account.available * share))  # type: ignore[operator]
        assert Resolved(Hold(part)) == self.command(hold_id, Place(part))
        return hold_id

    @rule(hold_id=open_ids, other=AMOUNTS)
    def place_again(self, hold_id: int, other: Microcredits) -> None:
        before = self.account, self.holds[hold_id]
        outcome = self.command(hold_id, Place(other))
        assert isinstance(outcome, Resolved)
        assert (*before, before[1]) == (self.account, self.holds[hold_id], outcome.hold)

    @rule(target=resolved_ids, hold_id=consumes(open_ids), charge=AMOUNTS)
    def capture(self, hold_id: int, charge: Microcredits) -> int:
        before, hold = self.account, self.holds[hold_id]
        assert hold is not None
        outcome = self.command(hold_id, Capture(charge))
        assert isinstance(outcome, Resolved)
        after = outcome.hold
        captured = min(charge, hold.amount)
        overrun = min(charge - captured, before.posted - before.held)
        assert (captured, overrun) == (after.captured, after.overrun)
        self.model.captured += captured
        self.model.overrun += overrun
        self.model.written_off += charge - captured - overrun
        self.model.asked += charge
        return self.note_resolved(hold_id, "captured")

    @rule(target=resolved_ids, hold_id=consumes(open_ids))
    def void(self, hold_id: int) -> int:
        self.free(hold_id, Void())
        return self.note_resolved(hold_id, "voided")

    @rule(target=expired_ids, hold_id=consumes(open_ids))
    def expire(self, hold_id: int) -> int:
        self.free(hold_id, Expire())
        return hold_id

    def free(self, hold_id: int, command: Void | Expire) -> None:
        before, hold = self.account, self.holds[hold_id]
        assert hold is not None
        self.command(hold_id, command)
        assert before.available + hold.amount == self.account.available
        assert before.posted == self.account.posted

    @rule(target=resolved_ids, hold_id=consumes(expired_ids), charge=AMOUNTS)
    def capture_what_has_expired(self, hold_id: int, charge: Microcredits) -> int:
        before = self.account
        outcome = self.command(hold_id, Capture(charge))
        assert isinstance(outcome, Resolved)
        overrun = min(charge, before.available)
        assert (0, overrun) == (outcome.hold.captured, outcome.hold.overrun)
        assert before.held == self.account.held
        self.model.overrun += overrun
        self.model.written_off += charge - overrun
        self.model.asked += charge
        return self.note_resolved(hold_id, "captured")

    @rule(hold_id=expired_ids, command=st.one_of(AMOUNTS.map(Place), st.just(Void()), st.just(Expire())))
    def anything_but_a_capture_leaves_an_expired_hold(self, hold_id: int, command: Command) -> None:
        before = self.account, self.holds[hold_id]
        self.command(hold_id, command)
        assert before == (self.account, self.holds[hold_id])

    @rule(target=resolved_ids)
    def void_an_id_that_has_not_come_yet(self) -> int:
        hold_id, before = self.new_id(), self.account
        self.command(hold_id, Void())
        assert before == self.account
        return self.note_resolved(hold_id, "voided")

    def note_resolved(self, hold_id: int, state: str) -> int:
        hold = self.holds[hold_id]
        assert hold is not None
        assert state == hold.state
        assert hold_id not in self.resolved
        self.resolved[hold_id] = hold
        return hold_id

    @rule(command=st.one_of(st.just(Expire()), AMOUNTS.map(Capture)))
    def settle_an_id_that_nobody_placed(self, command: Command) -> None:
        before, hold_id = self.account, self.new_id()
        assert Unknown() == self.command(hold_id, command)
        assert (before, None) == (self.account, self.holds[hold_id])

    @rule(
        hold_id=resolved_ids,
        command=st.one_of(AMOUNTS.map(Place), AMOUNTS.map(Capture), st.just(Void()), st.just(Expire())),
    )
    def repeat_anything_on_a_resolved_id(self, hold_id: int, command: Command) -> None:
        before = self.account
        assert Resolved(self.resolved[hold_id]) == self.command(hold_id, command)
        assert (before, self.resolved[hold_id]) == (self.account, self.holds[hold_id])

    @invariant()
    def what_is_posted_and_what_was_charged_is_what_was_granted(self) -> None:
        assert self.model.granted == self.account.posted + self.model.captured + self.model.overrun

    @invariant()
    def every_micro_credit_that_was_asked_for_is_charged_or_written_off(self) -> None:
        assert self.model.asked == self.model.captured + self.model.overrun + self.model.written_off

    @invariant()
    def nothing_is_below_zero(self) -> None:
        assert 0 <= self.account.held <= self.account.posted
        assert self.account.available >= 0

    @invariant()
    def open_holds_add_up_to_what_is_held(self) -> None:
        held = sum(hold.amount for hold in self.holds.values() if hold is not None and hold.state == "open")
        assert held == self.account.held

    @invariant()
    def a_resolved_hold_never_changes(self) -> None:
        assert self.resolved == {hold_id: self.holds[hold_id] for hold_id in self.resolved}


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=80, stateful_step_count=40, deadline=None, database=None)


def test_exactly_what_is_available_can_be_held() -> None:
    after, hold, _ = apply(account(100, 40), None, Place(amount(60)))
    assert (account(100, 100), Hold(amount(60))) == (after, hold)
    assert Insufficient(amount(1), amount(0)) == apply(after, None, Place(amount(1)))[2]


def test_a_capture_below_the_hold_frees_the_rest() -> None:
    after, hold, outcome = apply(account(100, 60), Hold(amount(60)), Capture(amount(25)))
    assert account(75) == after
    assert Hold(amount(60), "captured", amount(25)) == hold
    assert Resolved(Hold(amount(60), "captured", amount(25))) == outcome


def test_a_capture_above_the_hold_is_paid_from_what_is_available_then_written_off() -> None:
    after, hold, _ = apply(account(100, 80), Hold(amount(60)), Capture(amount(90)))
    assert account(20, 20) == after
    assert Hold(amount(60), "captured", amount(60), amount(20), amount(10)) == hold
    assert hold is not None
    assert 80 == hold.charged


@pytest.mark.parametrize("command", [Grant(amount(-1)), Place(amount(-1)), Capture(amount(-1))])
def test_an_amount_below_zero_is_a_bug_of_the_caller(command: Command) -> None:
    hold = Hold(amount(1)) if isinstance(command, Capture) else None
    with pytest.raises(ValueError, match="got -1"):
        apply(account(10, 1), hold, command)


def test_a_balance_always_fits_a_64_bit_column() -> None:
    after, _, _ = apply(Account(), None, Grant(amount(MAX_MICROCREDITS)))
    assert account(MAX_MICROCREDITS) == after
    with pytest.raises(ValueError, match="must be between 0 and 0 micro-credits, got 1"):
        apply(after, None, Grant(amount(1)))
