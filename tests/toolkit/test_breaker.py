"""The circuit breaker around calls of a host's own: decorator, context manager, threads, tasks, cancellation."""

from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from floop_gateway_core import Breaker, BreakerOpen
from floop_gateway_core.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0.0)


def fail() -> None:
    raise ConnectionError


def trip(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            breaker(fail)()


def test_it_opens_after_the_failures_and_closes_after_a_probe(clock: FakeClock) -> None:
    turns: list[str] = []
    breaker = Breaker(failures=2, cool_down_s=30.0, on_state_change=turns.append, clock=clock)
    trip(breaker, 2)
    with pytest.raises(BreakerOpen) as caught:
        breaker(fail)()
    assert 30.0 == caught.value.retry_after_s
    clock.now = 30.0
    assert "half_open" == breaker.state
    assert 3 == breaker(lambda: 3)()
    assert ("closed", ["open", "closed"]) == (breaker.state, turns)


def test_only_what_counts_opens_it(clock: FakeClock) -> None:
    breaker = Breaker(failures=1, counts=OSError, clock=clock)
    with pytest.raises(KeyError), breaker.call():
        raise KeyError
    trip(breaker, 1)
    with pytest.raises(BreakerOpen):
        breaker(fail)()


@pytest.mark.anyio
async def test_coroutine_functions_and_async_with_are_guarded_too(clock: FakeClock) -> None:
    breaker = Breaker(failures=1, clock=clock)

    @breaker
    async def search(word: str) -> str:
        """Search."""
        await anyio.lowlevel.checkpoint()
        return word.upper()

    assert ("QUOKKA", "search", "Search.") == (await search("quokka"), search.__name__, search.__doc__)
    with pytest.raises(ConnectionError):
        async with breaker.call():
            fail()
    with pytest.raises(BreakerOpen):
        await search("quokka")


@pytest.mark.anyio
async def test_a_cancelled_probe_counts_neither_way(clock: FakeClock) -> None:
    breaker = Breaker(failures=1, cool_down_s=10.0, clock=clock)
    trip(breaker, 1)
    clock.now = 10.0
    with anyio.CancelScope() as scope:
        async with breaker.call():
            scope.cancel()
            await anyio.sleep_forever()
    async with breaker.call():
        with pytest.raises(BreakerOpen):  # one probe at a time
            breaker(fail)()
    assert "closed" == breaker.state


def test_of_many_threads_one_is_the_probe(clock: FakeClock) -> None:
    breaker = Breaker(failures=1, cool_down_s=10.0, clock=clock)
    trip(breaker, 1)
    clock.now = 10.0
    with breaker.call(), ThreadPoolExecutor(8) as pool:
        others = [pool.submit(breaker(lambda: None)) for _ in range(32)]
        assert {BreakerOpen} == {type(one.exception()) for one in others}


def test_a_listener_that_fails_does_not_hide_the_calls_own_error(clock: FakeClock) -> None:
    breaker = Breaker(failures=1, on_state_change=lambda state: 1 // 0, clock=clock)
    trip(breaker, 1)


def test_generators_are_refused() -> None:
    async def stream() -> object:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        Breaker()(stream)
