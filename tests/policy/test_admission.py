from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.errors import CATALOGUE, ErrorCode, Refusal
from floop_gateway_core.policy.admission import (
    PRECEDENCE,
    Held,
    HoldEstimate,
    ShortBudget,
    ShortCredits,
    decide_hold,
    hold_refusal,
)
from floop_gateway_core.policy.budget import DAY_S, DayBudget, seconds_to_midnight, utc_day
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.policy.pricing import Prices
from floop_gateway_core.types import Microcredits

NUMBERS = st.integers(0, 10**6)


@given(
    NUMBERS,
    st.integers(1, 10**5),
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3),
    NUMBERS,
    NUMBERS,
    st.integers(0, 10**9),
    NUMBERS,
)
def test_a_grant_is_covered_by_both_and_a_refusal_is_for_one_token_too_many(
    fixed: int, wanted: int, rates: list[tuple[int, int]], limit: int, used: int, posted: int, held: int
) -> None:
    costs = tuple(Prices(a, b).cost_line(fixed, 0) for a, b in rates)
    budget = DayBudget(limit, used)
    account = Account(Microcredits(posted), Microcredits(min(held, posted)))
    granted = decide_hold(HoldEstimate(fixed, wanted, costs), budget, account)
    if isinstance(granted, Held):
        assert 1 <= granted.output_tokens <= wanted
        assert granted.held_tokens == fixed + granted.output_tokens <= budget.available
        assert max((line.cost(granted.output_tokens) for line in costs), default=0) == granted.held_microcredits
        assert granted.held_microcredits <= account.available
    elif isinstance(granted, ShortBudget):
        assert fixed + 1 > budget.available
    else:
        assert max(line.cost(1) for line in costs) > account.available


def refused(account: Account, budget: DayBudget) -> Refusal:
    answer = decide_hold(HoldEstimate(9, 5, (Prices.flat(10**6).cost_line(9, 0),)), budget, account)
    assert not isinstance(answer, Held)
    return hold_refusal(answer, now=DAY_S - 100.0)


def test_each_refusal_says_when_to_come_back() -> None:
    rich = Account(Microcredits(10**6))
    whole_day = refused(rich, DayBudget(9))
    used_up, only_held = refused(rich, DayBudget(100, used=95)), refused(rich, DayBudget(100, held=95))
    assert [None, 100, 5] == [one.retry_after_s for one in (whole_day, used_up, only_held)]
    poor, busy = Account(Microcredits(5)), Account(Microcredits(50), Microcredits(45))
    assert [None, 5] == [refused(account, DayBudget(100)).retry_after_s for account in (poor, busy)]


def test_a_request_of_price_0_needs_no_credits() -> None:
    assert Held(5, 14, Microcredits(0)) == decide_hold(
        HoldEstimate(9, 5, (Prices().cost_line(9, 0),)), DayBudget(99), Account()
    )


def test_a_request_without_output_needs_only_its_input() -> None:
    estimate = HoldEstimate(10, 0, (Prices.flat(10**6).cost_line(10, 0),))
    assert Held(0, 10, Microcredits(10)) == decide_hold(estimate, DayBudget(10), Account(Microcredits(10)))
    assert isinstance(decide_hold(estimate, DayBudget(9), Account(Microcredits(10))), ShortBudget)
    assert isinstance(decide_hold(estimate, DayBudget(10), Account(Microcredits(9))), ShortCredits)


@given(st.floats(0, 10**11))
def test_midnight_is_a_new_day_and_no_instant_before_it_is(now: float) -> None:
    wait = seconds_to_midnight(now)
    assert 1 <= wait <= DAY_S
    assert utc_day(now) + 1 == utc_day(now + wait)


def test_every_code_that_a_call_can_meet_has_its_place() -> None:
    of_operators = {ErrorCode.CONFLICT, ErrorCode.FORBIDDEN}
    assert set(CATALOGUE) - set(PRECEDENCE) == {ErrorCode.INTERNAL_ERROR, ErrorCode.NOT_IMPLEMENTED} | of_operators
