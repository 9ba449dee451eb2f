import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.policy.breaker import CircuitBreaker

STEPS = st.lists(st.tuples(st.sampled_from(["success", "failure", "cancel"]), st.integers(0, 40)), max_size=60)


def tripped(at: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=3, window_s=60, cool_down_s=30)
    for _ in range(3):
        breaker.failure(breaker.admit(at), at)
    return breaker


def test_failures_in_a_row_trip_it_and_a_success_between_them_does_not() -> None:
    assert "open" == tripped().state(0.0)
    breaker = CircuitBreaker(failures=3)
    for outcome in "ffsff":
        permit = breaker.admit(0.0)
        breaker.failure(permit, 0.0) if outcome == "f" else breaker.success(permit)
    assert "closed" == breaker.state(0.0)


def test_failures_older_than_the_window_do_not_count() -> None:
    breaker = CircuitBreaker(failures=3, window_s=60)
    for at in (0.0, 1.0, 60.0):
        breaker.failure(breaker.admit(at), at)
    assert "closed" == breaker.state(60.0)


def test_half_open_lets_one_probe_pass_whose_outcome_decides() -> None:
    breaker = tripped()
    assert breaker.admit(29.9) is None
    probe = breaker.admit(30.0)
    assert (None, "half_open") == (breaker.admit(30.0), breaker.state(30.0))
    breaker.failure(probe, 30.0)
    assert (None, 30.0) == (breaker.admit(59.0), breaker.cool_down_left_s(30.0))
    breaker.success(breaker.admit(60.0))
    assert "closed" == breaker.state(60.0)


def test_a_cancelled_probe_makes_room_for_the_next() -> None:
    breaker = tripped()
    breaker.cancel(breaker.admit(30.0))
    assert breaker.admit(30.0) is not None


def test_an_outcome_from_before_the_last_transition_says_nothing() -> None:
    breaker = CircuitBreaker(failures=1, cool_down_s=30)
    late = breaker.admit(0.0)
    breaker.failure(breaker.admit(0.0), 0.0)
    breaker.success(late)
    assert "open" == breaker.state(0.0)


@given(STEPS)
def test_an_open_breaker_admits_nothing_and_every_other_state_comes_to_admit_again(
    steps: list[tuple[str, int]],
) -> None:
    breaker, now = CircuitBreaker(failures=2, window_s=50, cool_down_s=20), 0
    for outcome, wait_s in steps:
        now += wait_s
        state = breaker.state(now)
        permit = breaker.admit(now)
        assert (permit is None) == (state == "open")
        if outcome == "failure":
            breaker.failure(permit, now)
        elif outcome == "success":
            breaker.success(permit)
        else:
            breaker.cancel(permit)
        assert 0 <= breaker.cool_down_left_s(now) <= 20
    assert breaker.admit(now + 20) is not None


def test_what_one_suspect_meets_counts_once_until_another_one_meets_it() -> None:
    breaker = CircuitBreaker(failures=3)
    for _ in range(20):
        breaker.failure(breaker.admit(0.0), 0.0, suspect="a")
    assert "closed" == breaker.state(0.0)
    breaker.failure(breaker.admit(0.0), 0.0, suspect="b")
    breaker.failure(breaker.admit(0.0), 0.0, suspect="a")
    assert "open" == breaker.state(0.0)


def test_a_success_clears_the_suspects() -> None:
    breaker = CircuitBreaker(failures=3)
    for suspect in ("a", "b"):
        breaker.failure(breaker.admit(0.0), 0.0, suspect=suspect)
    breaker.success(breaker.admit(0.0))
    for _ in range(20):
        breaker.failure(breaker.admit(0.0), 0.0, suspect="a")
    assert "closed" == breaker.state(0.0)


def test_the_first_event_of_a_probe_closes_the_breaker_for_all() -> None:
    breaker = CircuitBreaker(failures=1, cool_down_s=60.0)
    breaker.failure(breaker.admit(0.0), 0.0)
    probe = breaker.admit(60.0)
    assert breaker.admit(60.0) is None
    breaker.answered(probe)
    assert ("closed", True) == (breaker.state(60.0), breaker.admit(60.0) is not None)
    breaker.failure(probe, 61.0)  # a permit from before the transition says nothing
    assert "closed" == breaker.state(61.0)


def test_a_suspected_failure_of_a_probe_lets_the_next_call_probe() -> None:
    breaker = CircuitBreaker(failures=1, cool_down_s=60.0)
    breaker.failure(breaker.admit(0.0), 0.0)
    for _ in range(2):
        breaker.failure(breaker.admit(60.0), 60.0, suspect="a")
    assert "open" == breaker.state(60.0)


@pytest.mark.parametrize("limits", [{"failures": 0}, {"window_s": 0.0}, {"cool_down_s": -1.0}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="failures must be at least 1"):
        CircuitBreaker(**limits)  # type: ignore[arg-type]
