"""A wall clock that steps forward expires no hold of a living request."""

import pytest

from floop_gateway_core.policy.step_guard import StepGuard

TTL_S = 300.0


@pytest.fixture
def guard() -> StepGuard:
    guard = StepGuard(TTL_S)
    assert 1_000.0 == guard.time_for_expiry(1_000.0, 0.0)
    return guard


def test_time_that_passes_is_time(guard: StepGuard) -> None:
    for second in range(1, 2_000, 7):
        assert 1_000.0 + second == guard.time_for_expiry(1_000.0 + second, float(second))


def test_a_step_forward_is_left_out_for_one_time_to_live(guard: StepGuard) -> None:
    assert 1_010.0 == guard.time_for_expiry(1_410.0, 10.0)
    assert 1_310.0 == guard.time_for_expiry(1_710.0, 310.0)
    assert 1_711.0 == guard.time_for_expiry(1_711.0, 311.0)


def test_steps_add_up_and_leave_one_by_one(guard: StepGuard) -> None:
    assert 1_010.0 == guard.time_for_expiry(1_110.0, 10.0)
    assert 1_020.0 == guard.time_for_expiry(1_220.0, 20.0)
    assert 1_415.0 == guard.time_for_expiry(1_515.0, 315.0)
    assert 1_525.0 == guard.time_for_expiry(1_525.0, 325.0)


def test_a_step_back_is_taken_as_it_is(guard: StepGuard) -> None:
    assert 510.0 == guard.time_for_expiry(510.0, 10.0)
    assert 520.0 == guard.time_for_expiry(520.0, 20.0)


def test_slewing_is_no_step(guard: StepGuard) -> None:
    assert 1_010.5 == guard.time_for_expiry(1_010.5, 10.0)
