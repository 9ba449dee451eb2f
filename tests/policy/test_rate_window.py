"""The moving window against a model and against the `limits` package; every wait that it promises is true."""

import time
from unittest.mock import patch

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from floop_gateway_core.policy.rate_window import RateDecision, RateLimiter, decide, microseconds

EPOCH = 1_700_000_000
GAPS_MS = st.lists(
    st.one_of(st.integers(0, 3_000), st.integers(0, 70_000), st.sampled_from([0, 1, 59_999, 60_000, 60_001])),
    min_size=1,
    max_size=60,
)


def instants(gaps_ms: list[int]) -> list[float]:
    """Turn gaps into seconds since the epoch, none of them rounded differently from the others."""
    now_ms, found = EPOCH * 1000, []
    for gap in gaps_ms:
        now_ms += gap
        found.append(now_ms / 1000)
    return found


@given(GAPS_MS, st.integers(1, 6))
def test_it_admits_what_a_list_of_instants_admits(gaps_ms: list[int], limit: int) -> None:
    limiter, admitted = RateLimiter(limit), list[int]()
    for now in instants(gaps_ms):
        now_us = microseconds(now)
        counted = [instant for instant in admitted if now_us - instant < 60_000_000]
        decision = limiter.acquire("key", now)
        assert (len(counted) < limit) == decision.allowed
        assert max(0, limit - len(counted) - decision.allowed) == decision.remaining
        if decision.allowed:
            admitted.append(now_us)


@given(GAPS_MS, st.integers(1, 6))
def test_it_agrees_with_limits_but_for_the_instant_of_exactly_sixty_seconds(gaps_ms: list[int], limit: int) -> None:
    times_ms = [round(now * 1000) for now in instants(gaps_ms)]
    assume(all(later - earlier != 60_000 for earlier in times_ms for later in times_ms))
    ours = RateLimiter(limit)
    with patch.object(MemoryStorage, "_MemoryStorage__schedule_expiry", lambda _: None):
        referee = MovingWindowRateLimiter(MemoryStorage())
        item = RateLimitItemPerSecond(limit, 60)
        for now_ms in times_ms:
            now = now_ms / 1000
            with patch.object(time, "time", lambda now=now: now):
                assert referee.hit(item, "key") == ours.acquire("key", now).allowed


@given(GAPS_MS, st.integers(1, 6))
def test_whoever_waits_as_long_as_it_says_gets_in(gaps_ms: list[int], limit: int) -> None:
    for end in range(len(gaps_ms)):
        limiter, now, decision = RateLimiter(limit), 0.0, None
        for now in instants(gaps_ms[: end + 1]):
            decision = limiter.acquire("key", now)
        assert decision is not None
        if decision.allowed:
            assert 0 == decision.retry_after_s
        else:
            assert 1 <= decision.retry_after_s <= 60
            assert limiter.acquire("key", now + decision.retry_after_s).allowed


@given(st.integers(0, 59_999), st.integers(1, 5))
def test_a_second_less_than_it_says_is_too_early(lag_ms: int, limit: int) -> None:
    limiter = RateLimiter(limit)
    for _ in range(limit):
        limiter.acquire("key", float(EPOCH))
    now = (EPOCH * 1000 + lag_ms) / 1000
    wait_s = limiter.acquire("key", now).retry_after_s
    assert wait_s == 1 or not limiter.acquire("key", now + wait_s - 1).allowed


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 6)), min_size=1, max_size=30))
def test_waits_are_true_when_the_limit_changes_on_the_way(steps: list[tuple[int, int]]) -> None:
    limiter = RateLimiter(1)
    decision, now, limit = None, 0.0, 1
    for now, (_, limit) in zip(instants([gap for gap, _ in steps]), steps, strict=True):
        decision = limiter.acquire("key", now, limit=limit)
    assert decision is not None
    if not decision.allowed:
        assert limiter.acquire("key", now + decision.retry_after_s, limit=limit).allowed


@given(st.floats(1.6e9, 2e9), st.integers(1, 5))
def test_waits_are_true_at_any_fraction_of_a_second(now: float, limit: int) -> None:
    limiter = RateLimiter(limit)
    for _ in range(limit):
        limiter.acquire("key", now)
    refused = limiter.acquire("key", now)
    assert RateDecision(False, limit, 0, 60, 60) == refused
    assert limiter.acquire("key", now + 60).allowed


def test_an_admission_leaves_at_exactly_sixty_seconds() -> None:
    limiter = RateLimiter(1)
    at = (0.0, 59.999999, 60.0)
    assert [True, False, True] == [limiter.acquire("key", now).allowed for now in at]


def test_a_refused_call_leaves_no_instant() -> None:
    limiter = RateLimiter(1)
    limiter.acquire("key", 0.0)
    for tenth in range(599):
        assert not limiter.acquire("key", tenth / 10).allowed
    assert limiter.acquire("key", 60.0).allowed


def test_keys_do_not_share_a_window() -> None:
    limiter = RateLimiter(1)
    assert [True, True, False] == [limiter.acquire(key, 0.0).allowed for key in ("a", "b", "a")]


def test_reset_counts_to_the_oldest_admission() -> None:
    limiter = RateLimiter(3)
    resets = [limiter.acquire("key", now).reset_s for now in (0.0, 10.5, 59.5, 59.9)]
    assert [60, 50, 1, 1] == resets


def test_a_lowered_limit_waits_for_the_admission_that_must_leave() -> None:
    limiter = RateLimiter(4)
    for now in (0.0, 10.0, 20.0, 30.0):
        limiter.acquire("key", now)
    refused = limiter.acquire("key", 30.0, limit=2)
    assert RateDecision(False, 2, 0, retry_after_s=50, reset_s=30) == refused


def test_a_clock_that_is_set_back_far_locks_nobody_out() -> None:
    limiter = RateLimiter(1)
    limiter.acquire("key", 1_000_000.0)
    assert limiter.acquire("key", 0.0).allowed


def test_a_clock_that_is_set_back_a_little_still_counts_what_was_admitted() -> None:
    limiter = RateLimiter(1)
    limiter.acquire("key", 100.0)
    refused = limiter.acquire("key", 90.0)
    assert RateDecision(False, 1, 0, retry_after_s=70, reset_s=70) == refused
    assert limiter.acquire("key", 160.0).allowed


def test_calls_that_overtake_each_other_are_not_told_of_more_than_a_window() -> None:
    limiter = RateLimiter(2)
    limiter.acquire("key", 100.002)
    assert limiter.acquire("key", 100.0).reset_s == 60


def test_keys_that_two_windows_have_not_seen_are_forgotten() -> None:
    limiter = RateLimiter(1)
    for number in range(1_000):
        limiter.acquire(f"key {number}", 0.0)
    limiter.acquire("new", 120.0)
    assert ["new"] == list(limiter._windows)


@pytest.mark.parametrize(("limit", "window_s"), [(0, 60.0), (-1, 60.0), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_a_limiter_that_could_admit_nothing_is_refused(limit: int, window_s: float) -> None:
    with pytest.raises(ValueError, match=r"must be (at least 1|greater than 0)"):
        RateLimiter(limit, window_s)


def test_a_limit_below_one_is_refused_for_a_single_call_too() -> None:
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        decide(limit=0, count=0, oldest_us=None, leaving_us=None, now_us=0, window_us=1)
