"""Several limits at once for a host's own routes, on our stores and on storages of `limits`, a real Valkey among them."""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from floop_gateway_core import MemoryStore, RateDecision, RequestLimiter, SQLiteStore
from floop_gateway_core.stores.base import StoreUnavailable, WindowLimit
from floop_gateway_core.testing.clock import FakeClock
from floop_gateway_core.testing.suites.facts import NOW
from floop_gateway_core.testing.suites.windows import WindowSuite
from tests.serving import valkey_server

pytestmark = pytest.mark.anyio


class TestMemoryStore(WindowSuite):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestSQLiteStore(WindowSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SQLiteStore]:
        store = SQLiteStore(tmp_path / "limits.db")
        yield store
        await store.aclose()


async def test_keys_that_come_and_go_do_not_fill_the_file(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    store = SQLiteStore(tmp_path / "limits.db")
    limiter = RequestLimiter("5/minute", store=store, clock=clock)
    for number in range(200):
        clock.now += 1
        assert (await limiter.hit(f"address {number}")).allowed
    rows = await store._read(lambda connection: connection.execute("SELECT count(*) FROM windows").fetchone()[0])
    assert rows <= 125
    await store.aclose()


async def test_the_headers_are_of_the_window_that_matters_and_name_every_one() -> None:
    limiter = RequestLimiter("10/minute;3/hour;100/day", clock=FakeClock(NOW))
    verdict = await limiter.hit("a")
    assert {
        "X-RateLimit-Limit": "3",
        "X-RateLimit-Remaining": "2",
        "X-RateLimit-Reset": "3600",
        "RateLimit-Policy": '"per-minute";q=10;w=60, "per-hour";q=3;w=3600, "per-day";q=100;w=86400',
        "RateLimit": '"per-minute";r=9;t=60, "per-hour";r=2;t=3600, "per-day";r=99;t=86400',
    } == dict(verdict.headers)
    for _ in range(3):
        verdict = await limiter.hit("a")
    assert verdict.refusal is not None
    assert ("RATE_LIMITED", 3600) == (verdict.refusal.code, verdict.refusal.retry_after_s)
    assert "3 requests in 3600 seconds" in verdict.refusal.message


async def test_of_several_limits_for_the_same_time_the_lowest_holds() -> None:
    limiter = RequestLimiter("10/minute;2/minute;60 per 60 seconds", clock=FakeClock(NOW))
    assert [True, True, False] == [(await limiter.hit("a")).allowed for _ in range(3)]


@pytest.mark.parametrize("limits", ["", "ten/minute", "0/minute", "10/fortnight"])
def test_what_is_no_limit_is_refused_when_it_is_made(limits: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        RequestLimiter(limits)


def test_a_strategy_or_storage_that_there_is_not_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="allowed are fixed-window"):
        RequestLimiter("1/minute", storage="memory://", strategy="leaky-bucket")
    with pytest.raises(ValueError, match="moving window"):
        RequestLimiter("1/minute", strategy="fixed-window")
    with pytest.raises(ValueError, match="not both"):
        RequestLimiter("1/minute", storage="memory://", store=MemoryStore())


class Away(MemoryStore):
    async def acquire_windows(self, windows: Sequence[WindowLimit], now: float) -> Sequence[RateDecision]:
        raise StoreUnavailable("away")


async def test_a_store_that_does_not_answer_refuses_or_admits_as_the_host_says() -> None:
    refused = await RequestLimiter("1/minute", store=Away()).hit("a")
    assert refused.refusal is not None
    assert ("SERVICE_UNAVAILABLE", 5) == (refused.refusal.code, refused.refusal.retry_after_s)
    assert (await RequestLimiter("1/minute", store=Away(), when_down="admit").hit("a")).allowed


# -- storages of `limits` ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with valkey_server() as server:
        yield f"redis://127.0.0.1:{server.port}"


STRATEGIES = ["fixed-window", "moving-window", "sliding-window-counter"]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_valkey_counts_for_everybody_who_asks_it(valkey: str, strategy: str) -> None:
    """Two limiters stand for two machines; what one limit refuses, the others do not spend."""
    here, there = (RequestLimiter("5/day;3/hour", storage=valkey, strategy=strategy) for _ in range(2))
    key = f"{strategy} {time.time_ns()}"
    found = [await (here, there)[number % 2].hit(key) for number in range(6)]
    assert [True] * 3 + [False] * 3 == [one.allowed for one in found]
    assert 2 == found[-1].windows[0][1].limit - 3
    refusal = found[-1].refusal
    assert refusal is not None
    assert 1 <= (refusal.retry_after_s or 0) <= 3601
    assert (await here.hit(key + "'s neighbour")).allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_who_waits_as_long_as_promised_is_let_in(valkey: str, strategy: str) -> None:
    limiter = RequestLimiter("2 per 2 seconds", storage=valkey, strategy=strategy)
    key = f"{strategy} {time.time_ns()}"
    while (verdict := await limiter.hit(key)).allowed:
        pass
    assert verdict.refusal is not None
    await anyio.sleep(verdict.refusal.retry_after_s or 0)
    assert (await limiter.hit(key)).allowed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_asynchronous_storage_serves_too() -> None:
    limiter = RequestLimiter("2/minute", storage="async+memory://")
    assert [True, True, False] == [(await limiter.hit("a")).allowed for _ in range(3)]


async def test_a_valkey_that_is_gone_is_a_store_that_does_not_answer() -> None:
    with valkey_server() as server:
        limiter = RequestLimiter("2/minute", storage=f"redis://127.0.0.1:{server.port}")
        assert (await limiter.hit("a")).allowed
    refused = await limiter.hit("a")
    assert refused.refusal is not None
    assert "SERVICE_UNAVAILABLE" == refused.refusal.code


async def test_a_key_may_be_any_text(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "limits.db")
    limiter = RequestLimiter("1/minute", store=store)
    for key in ("\udcff", "\x00", "", "x" * 10_000, "é"):
        assert [True, False] == [(await limiter.hit(key)).allowed for _ in range(2)]
    await store.aclose()


async def test_limiters_of_different_names_count_apart() -> None:
    store = MemoryStore()
    search, login = RequestLimiter("9/minute", store=store), RequestLimiter("1/minute", store=store, name="login")
    for _ in range(3):
        assert (await search.hit("a")).allowed
    assert (await login.hit("a")).allowed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_burst_on_a_foreign_storage_does_not_use_up_the_longer_limit() -> None:
    limiter = RequestLimiter("2/minute;5/hour", storage="memory://")
    found: list[bool] = []

    async def hit() -> None:
        found.append((await limiter.hit("a")).allowed)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(hit)
    assert 2 == found.count(True)
    assert 3 == (await limiter.hit("a")).windows[1][1].limit - 2


@pytest.mark.parametrize("kind", ["memory", "sqlite", "limits"])
async def test_a_request_may_count_as_several(kind: str, tmp_path: Path) -> None:
    sqlite = SQLiteStore(tmp_path / "limits.db")
    ways: dict[str, dict[str, Any]] = {"memory": {}, "sqlite": {"store": sqlite}, "limits": {"storage": "memory://"}}
    options = ways[kind]
    limiter = RequestLimiter("10/minute", **options)
    assert [True, True, False] == [(await limiter.hit("a", cost=4)).allowed for _ in range(3)]
    refused = await limiter.hit("a", cost=4)
    assert ("X-RateLimit-Remaining", "2") in refused.headers or kind == "limits"
    assert [True, True, False] == [(await limiter.hit("a")).allowed for _ in range(3)]
    for cost in (0, 11):
        with pytest.raises(ValueError, match="cost must be from 1 to the lowest limit, 10"):
            await limiter.hit("b", cost=cost)
    await sqlite.aclose()


async def test_a_dear_request_waits_until_enough_has_left() -> None:
    now = 1_000_000.0
    limiter = RequestLimiter("4/minute", clock=lambda: now)
    for _ in range(4):
        await limiter.hit("a")
        now += 10
    refused = (await limiter.hit("a", cost=2)).refusal
    assert refused is not None
    assert 30 == refused.retry_after_s  # the second one leaves then
    now += 29
    assert not (await limiter.hit("a", cost=2)).allowed
    now += 1
    assert (await limiter.hit("a", cost=2)).allowed


async def test_limits_may_depend_on_the_caller() -> None:
    limiter = RequestLimiter(lambda key: "3/minute" if key == "paying" else "1/minute")
    assert [True, True, True, False] == [(await limiter.hit("paying")).allowed for _ in range(4)]
    assert [True, False] == [(await limiter.hit("free")).allowed for _ in range(2)]


async def test_a_limiter_can_be_switched_off_for_tests() -> None:
    limiter = RequestLimiter("1/minute", enabled=False)
    assert all([(await limiter.hit("a")).allowed for _ in range(5)])
    limiter.enabled = True
    assert [True, False] == [(await limiter.hit("a")).allowed for _ in range(2)]
