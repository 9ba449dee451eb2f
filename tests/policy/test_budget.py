"""The day's budget refuses amounts that cannot be."""

import pytest

from floop_gateway_core.policy.budget import DayBudget


@pytest.mark.parametrize("tokens", [-1, 71])
def test_only_what_is_available_can_be_held(tokens: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 70 tokens"):
        DayBudget(100, used=20, held=10).hold(tokens)


@pytest.mark.parametrize(("held", "used"), [(11, 0), (-1, 0), (5, -1)])
def test_only_what_is_held_can_be_resolved(held: int, used: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 10 tokens"):
        DayBudget(100, used=20, held=10).capture(held=held, used=used)
