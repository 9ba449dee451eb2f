from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.policy.retry import Failover, FaultKind, GiveUp, RetrySame, next_step


def journey(deployments: int, attempts: int = 3) -> str:
    """Walk a route on which everything fails; say which deployment each attempt was at."""
    walked, at, tries = "", 0, 0
    while True:
        walked, attempts, tries = walked + "ABCD"[at], attempts - 1, tries + 1
        step = next_step(
            FaultKind.TRANSIENT,
            attempts_left=attempts,
            tries_here=tries,
            deployments_left=deployments - at - 1,
            time_left_s=100.0,
            jitter=0.5,
        )
        if isinstance(step, GiveUp):
            return walked
        if isinstance(step, Failover):
            at, tries = at + 1, 0


def test_three_attempts_go_as_the_contract_says() -> None:
    assert ["AAA", "AAB", "ABC", "ABC"] == [journey(number) for number in (1, 2, 3, 4)]


def test_the_last_deployment_takes_what_is_left() -> None:
    assert "AABBB" == journey(2, attempts=5)


@given(
    st.sampled_from(FaultKind),
    st.integers(0, 5),
    st.integers(1, 5),
    st.integers(0, 3),
    st.floats(0, 300),
    st.floats(0, 1),
    st.none() | st.floats(0, 400),
)
def test_no_step_outlasts_the_deadline_or_forgets_the_upstreams_word(
    fault: FaultKind, left: int, tries: int, behind: int, time_left_s: float, jitter: float, retry_after_s: float | None
) -> None:
    step = next_step(
        fault,
        attempts_left=left,
        tries_here=tries,
        deployments_left=behind,
        time_left_s=time_left_s,
        jitter=jitter,
        retry_after_s=retry_after_s,
    )
    if left == 0 or fault.final:
        assert GiveUp() == step
    if isinstance(step, RetrySame):
        assert (retry_after_s or 0) <= step.delay_s < time_left_s
        assert fault is not FaultKind.UNUSABLE
    if isinstance(step, Failover):
        assert behind > 0


def test_an_exhausted_quota_moves_on_at_once_and_a_long_wait_does_too() -> None:
    def step(fault: FaultKind, retry_after_s: float | None = None, behind: int = 1) -> object:
        return next_step(
            fault,
            attempts_left=2,
            tries_here=1,
            deployments_left=behind,
            time_left_s=99.0,
            jitter=0.0,
            retry_after_s=retry_after_s,
        )

    assert Failover() == step(FaultKind.UNUSABLE) == step(FaultKind.RATE_LIMITED, 2.5)
    assert RetrySame(2.0) == step(FaultKind.RATE_LIMITED, 2.0)
    assert RetrySame(30.0) == step(FaultKind.RATE_LIMITED, 30.0, behind=0)
