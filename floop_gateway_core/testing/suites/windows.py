"""The suite for a `WindowStore`: a host's own windows."""

from collections.abc import Sequence

import anyio

from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.stores.base import WindowLimit, WindowStore
from floop_gateway_core.testing.suites.facts import NOW

__all__ = ["WindowSuite"]


def windows(key: str = "a", *, minute: int = 2, hour: int = 3) -> list[WindowLimit]:
    return [WindowLimit(key, minute, 60.0), WindowLimit(key, hour, 3600.0)]


def allowed(decisions: Sequence[RateDecision]) -> list[bool]:
    return [decision.allowed for decision in decisions]


class WindowSuite:
    """What `WindowStore` promises."""

    async def test_every_window_is_spent_and_says_what_is_left(self, store: WindowStore) -> None:
        first = await store.acquire_windows(windows(), NOW)
        assert [(1, 60), (2, 3600)] == [(one.remaining, one.reset_s) for one in first]
        second = await store.acquire_windows(windows(), NOW + 1)
        assert [(0, 59), (1, 3599)] == [(one.remaining, one.reset_s) for one in second]

    async def test_a_refusal_of_one_window_spends_nothing_of_the_others(self, store: WindowStore) -> None:
        for second in range(10):
            found = await store.acquire_windows(windows(), NOW + second)
            assert [second < 2, True] == allowed(found)
        assert 1 == found[1].remaining
        assert 51 == found[0].retry_after_s
        last = await store.acquire_windows(windows(), NOW + 60)
        assert [True, True] == allowed(last)
        assert [True, False] == allowed(await store.acquire_windows(windows(), NOW + 130))

    async def test_the_wait_that_is_promised_is_true(self, store: WindowStore) -> None:
        for _ in range(3):
            found = await store.acquire_windows(windows(minute=100), NOW)
        refused = (await store.acquire_windows(windows(minute=100), NOW + 0.5))[1]
        assert (False, 3600) == (refused.allowed, refused.retry_after_s)
        found = await store.acquire_windows(windows(minute=100), NOW + 0.5 + refused.retry_after_s)
        assert [True, True] == allowed(found)

    async def test_keys_and_lengths_count_apart(self, store: WindowStore) -> None:
        for key in ("a", "b", "a b", "", "é", "x" * 500):
            assert [True] == allowed(await store.acquire_windows([WindowLimit(key, 1, 60.0)], NOW))
            assert [False] == allowed(await store.acquire_windows([WindowLimit(key, 1, 60.0)], NOW))
            assert [True] == allowed(await store.acquire_windows([WindowLimit(key, 1, 61.0)], NOW))

    async def test_keys_of_long_ago_leave_no_trace_in_what_is_counted(self, store: WindowStore) -> None:
        for step in range(50):
            key = f"key {step % 7}"
            assert [True] == allowed(await store.acquire_windows([WindowLimit(key, 1, 60.0)], NOW + step * 9))

    async def test_under_concurrency_exactly_the_limit_is_admitted(self, store: WindowStore) -> None:
        found: list[bool] = []

        async def ask() -> None:
            found.append(all(allowed(await store.acquire_windows(windows(minute=7, hour=5), NOW))))

        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(ask)
        assert (5, 55) == (found.count(True), found.count(False))
