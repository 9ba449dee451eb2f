"""The rate over storages of the `limits` package passes the suite, but for the instant at which an admission leaves."""

import time

import limits.storage
import pytest
from limits.errors import StorageError

from floop_gateway_core.policy.rate_window import WINDOW_S, RateDecision
from floop_gateway_core.stores.base import RateStore, StoreUnavailable
from floop_gateway_core.stores.limits import LimitsRate
from floop_gateway_core.testing.clock import FakeClock
from floop_gateway_core.testing.suites.facts import NOW, PROJECT
from floop_gateway_core.testing.suites.rate import RateSuite
from floop_gateway_core.types import ProjectId

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """`limits` reads the clock itself; here it reads ours."""
    clock = FakeClock(NOW)
    monkeypatch.setattr(time, "time", clock)
    # The storage's own thread would forget an admission at the very instant at which it leaves, or not, as it happens.
    monkeypatch.setattr(limits.storage.MemoryStorage, "_MemoryStorage__schedule_expiry", lambda _: None)
    monkeypatch.setattr(limits.storage.MemoryStorage, "_MemoryStorage__expire_events", lambda _: None)
    return clock


class AtGivenTime:
    """A `LimitsRate` whose storage's clock shows the `now` of each call."""

    def __init__(self, rate: LimitsRate, clock: FakeClock) -> None:
        self._rate = rate
        self._clock = clock

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        self._clock.now = now
        return await self._rate.acquire(project, limit, now)


class LimitsSuite(RateSuite):
    async def test_an_admission_leaves_the_window_at_exactly_sixty_seconds(self, store: RateStore) -> None:
        """Intentional divergence: `limits` counts an admission through that instant; the wait says so."""
        await store.acquire(PROJECT, 1, NOW)
        refused = await store.acquire(PROJECT, 1, NOW + WINDOW_S)
        assert RateDecision(False, 1, 0, retry_after_s=1, reset_s=1) == refused
        assert (await store.acquire(PROJECT, 1, NOW + WINDOW_S + 1)).allowed

    async def test_a_lowered_limit_counts_what_was_admitted_before(self, store: RateStore) -> None:
        """Intentional divergence: the wait is that of the oldest admission, though more than one must leave."""
        for second in range(3):
            await store.acquire(PROJECT, 3, NOW + second)
        assert not (await store.acquire(PROJECT, 2, NOW + 60.5)).allowed
        assert (await store.acquire(PROJECT, 2, NOW + 61.5)).allowed


class TestSynchronousStorage(LimitsSuite):
    @pytest.fixture
    def store(self, clock: FakeClock) -> AtGivenTime:
        return AtGivenTime(LimitsRate("memory://"), clock)


class TestAsynchronousStorage(LimitsSuite):
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"  # the asynchronous storages of `limits` run on nothing else

    @pytest.fixture
    async def store(self, clock: FakeClock) -> AtGivenTime:
        return AtGivenTime(LimitsRate("async+memory://"), clock)


@pytest.mark.parametrize("uri", ["nonsense://", "memcached://localhost:1"])
def test_a_storage_without_a_moving_window_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="storage"):
        LimitsRate(uri)


async def test_a_storage_that_does_not_answer_is_unavailable_and_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> bool:
        raise StorageError(ConnectionError("redis://user:secret@localhost is gone"))

    rate = LimitsRate("memory://")
    monkeypatch.setattr(rate._storage._limiter, "hit", fail)
    with pytest.raises(StoreUnavailable, match=r"^limits: ConnectionError$"):
        await rate.acquire(PROJECT, 1, NOW)
