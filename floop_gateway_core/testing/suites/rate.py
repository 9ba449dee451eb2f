"""The suite for a `RateStore`."""

from floop_gateway_core.policy.rate_window import WINDOW_S, RateDecision
from floop_gateway_core.stores.base import (
    RateStore,
)
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, together
from floop_gateway_core.types import ProjectId

__all__ = ["RateSuite"]


class RateSuite:
    """What `RateStore` promises."""

    async def test_the_limit_is_admitted_and_the_next_is_refused(self, store: RateStore) -> None:
        decisions = [await store.acquire(PROJECT, 3, NOW) for _ in range(4)]
        assert [True, True, True, False] == [decision.allowed for decision in decisions]
        assert [2, 1, 0, 0] == [decision.remaining for decision in decisions]
        assert {3} == {decision.limit for decision in decisions}
        assert [0, 0, 0] == [decision.retry_after_s for decision in decisions[:3]]

    async def test_of_200_concurrent_requests_exactly_10_are_admitted(self, store: RateStore) -> None:
        decisions = await together([store.acquire(PROJECT, 10, NOW) for _ in range(200)])
        refused = [decision for decision in decisions if not decision.allowed]
        assert 190 == len(refused)
        waits = {decision.retry_after_s for decision in refused}
        assert 1 == len(waits)
        assert (await store.acquire(PROJECT, 10, NOW + waits.pop())).allowed

    async def test_retry_after_is_true_wherever_in_the_window_it_was_said(self, store: RateStore) -> None:
        for number, lag_s in enumerate((0.0, 0.25, 1.0, 30.5, 58.999, 59.5)):
            project = ProjectId(f"p{number}")
            assert (await store.acquire(project, 2, NOW)).allowed
            assert (await store.acquire(project, 2, NOW + lag_s / 2)).allowed
            refused = await store.acquire(project, 2, NOW + lag_s)
            assert not refused.allowed
            assert refused.retry_after_s >= 1
            assert (await store.acquire(project, 2, NOW + lag_s + refused.retry_after_s)).allowed

    async def test_retry_after_is_less_than_two_seconds_too_long(self, store: RateStore) -> None:
        await store.acquire(PROJECT, 1, NOW)
        refused = await store.acquire(PROJECT, 1, NOW + 20.5)
        assert 39.5 <= refused.retry_after_s < 41.5

    async def test_an_admission_leaves_the_window_at_exactly_sixty_seconds(self, store: RateStore) -> None:
        await store.acquire(PROJECT, 1, NOW)
        early = await store.acquire(PROJECT, 1, NOW + WINDOW_S - 0.001)
        assert RateDecision(False, 1, 0, retry_after_s=1, reset_s=1) == early
        assert (await store.acquire(PROJECT, 1, NOW + WINDOW_S)).allowed

    async def test_the_window_moves_and_is_not_reset(self, store: RateStore) -> None:
        for second in (0, 40):
            await store.acquire(PROJECT, 2, NOW + second)
        at = (61, 62, 101)
        assert [True, False, True] == [(await store.acquire(PROJECT, 2, NOW + second)).allowed for second in at]

    async def test_a_refused_request_spends_nothing(self, store: RateStore) -> None:
        await store.acquire(PROJECT, 1, NOW)
        for second in range(1, 59):
            assert not (await store.acquire(PROJECT, 1, NOW + second)).allowed
        assert (await store.acquire(PROJECT, 1, NOW + 61)).allowed

    async def test_reset_counts_to_the_oldest_admission_that_leaves(self, store: RateStore) -> None:
        await store.acquire(PROJECT, 3, NOW)
        second = await store.acquire(PROJECT, 3, NOW + 20.5)
        assert second.allowed
        assert 39.5 <= second.reset_s < 41.5

    async def test_projects_do_not_spend_each_others_requests(self, store: RateStore) -> None:
        await store.acquire(PROJECT, 1, NOW)
        assert (await store.acquire(ProjectId("q"), 1, NOW)).allowed

    async def test_a_raised_limit_counts_what_was_admitted_before(self, store: RateStore) -> None:
        for _ in range(2):
            await store.acquire(PROJECT, 2, NOW)
        assert [True, False] == [(await store.acquire(PROJECT, 3, NOW + 1)).allowed for _ in range(2)]

    async def test_a_lowered_limit_counts_what_was_admitted_before(self, store: RateStore) -> None:
        for second in range(4):
            await store.acquire(PROJECT, 4, NOW + second)
        refused = await store.acquire(PROJECT, 2, NOW + 4)
        assert not refused.allowed
        assert not (await store.acquire(PROJECT, 2, NOW + 61.5)).allowed
        assert (await store.acquire(PROJECT, 2, NOW + 4 + refused.retry_after_s)).allowed
