from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.policy.pricing import Prices, format_credits, parse_credits, parse_rate
from floop_gateway_core.types import Microcredits, Usage

RATES = st.integers(0, 10**10)
TOKENS = st.integers(0, 10**7)


@given(RATES, RATES, TOKENS, TOKENS)
def test_a_charge_is_the_exact_sum_rounded_up_once(
    of_input: int, of_output: int, tokens_in: int, tokens_out: int
) -> None:
    exact = Fraction(of_input * tokens_in + of_output * tokens_out, 10**6)
    assert ceil(exact) == Prices(of_input, of_output).charge(Usage(tokens_in, tokens_out))


@given(RATES, RATES, RATES, RATES, TOKENS, TOKENS, st.data())
def test_no_charge_is_above_the_worst_case(
    a: int, b: int, c: int, d: int, most_in: int, most_out: int, data: st.DataObject
) -> None:
    prices = Prices(a, b, c, d)
    tokens_in, tokens_out = data.draw(st.integers(0, most_in)), data.draw(st.integers(0, most_out))
    usage = Usage(tokens_in, tokens_out, data.draw(st.integers(0, tokens_in)), data.draw(st.integers(0, tokens_out)))
    assert prices.charge(usage) <= prices.cost_line(most_in, 0).cost(most_out)


@given(RATES, RATES, st.integers(0, 10**5), st.integers(0, 10**12), st.integers(1, 10**5))
def test_what_is_affordable_is_paid_for_and_one_more_is_not(
    a: int, b: int, fixed: int, available: int, wanted: int
) -> None:
    line = Prices(a, b).cost_line(fixed, 0)
    most = line.affordable(Microcredits(available), wanted)
    if most >= 0:
        assert line.cost(most) <= available
    if most < wanted:
        assert line.cost(max(most, -1) + 1) > available


@given(st.integers(0, 10**18))
def test_credits_are_written_and_read_back_exactly(amount: int) -> None:
    written = format_credits(Microcredits(amount))
    assert "e" not in written
    assert amount == parse_credits(written) == Decimal(written) * 10**6


@pytest.mark.parametrize("rate", ["0.0000001", "-1", "NaN", "Infinity", "1e10"])
def test_a_rate_beyond_six_places_or_reason_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="must be a number from 0"):
        parse_rate(rate)


def test_what_is_written_to_a_cache_has_its_own_price_or_the_inputs() -> None:
    usage = Usage(100, 0, cached_tokens=30, cache_written_tokens=20)
    assert 50 * 2 + 30 * 1 + 20 * 3 == Prices(*(10**6 * rate for rate in (2, 0, 1, 0, 3))).charge(usage)
    assert 70 * 2 + 30 * 1 == Prices(*(10**6 * rate for rate in (2, 0, 1, 0))).charge(usage)
    assert 300 == Prices(*(10**6 * rate for rate in (2, 0, 1, 0, 3))).cost_line(100, 0).cost(0)
