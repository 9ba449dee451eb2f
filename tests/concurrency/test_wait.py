"""Time limits: what ends, what does not, and whose cancellation stays whose."""

import asyncio

import anyio
import anyio.lowlevel
import pytest

from floop_gateway_core.concurrency.wait import block_limit, wait_limit

pytestmark = pytest.mark.anyio


async def test_a_block_ends_silently_at_its_limit() -> None:
    began = anyio.current_time()
    with block_limit(0.05):
        await anyio.sleep(10)
        pytest.fail("the block went on")
    assert 0.05 <= anyio.current_time() - began < 5
    await anyio.lowlevel.checkpoint()  # nothing is left to be delivered


async def test_a_block_that_ends_in_time_leaves_no_timer() -> None:
    with block_limit(0.02):
        pass
    await anyio.sleep(0.05)


async def test_a_block_without_a_limit_ends_when_it_is_told() -> None:
    with block_limit() as _:
        await anyio.lowlevel.checkpoint()
    limit = block_limit()
    with limit:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_soon, limit.cancel)
            await anyio.sleep(10)
    await anyio.lowlevel.checkpoint()


async def _soon(cancel: object) -> None:
    await anyio.sleep(0.02)
    assert callable(cancel)
    cancel()


async def test_a_deadline_can_be_moved_while_the_block_runs() -> None:
    limit = block_limit(0.02)
    passed = False
    with limit:
        limit.deadline = anyio.current_time() + 0.2
        await anyio.sleep(0.1)
        passed = True
        limit.deadline = anyio.current_time() + 0.02
        await anyio.sleep(10)
    assert passed


async def test_an_error_in_the_block_is_raised_unchanged() -> None:
    with pytest.raises(KeyError), block_limit(10):
        raise KeyError("x")


async def test_an_inner_limit_ends_only_its_block() -> None:
    reached = []
    with block_limit(5):
        with block_limit(0.02):
            await anyio.sleep(10)
        reached.append("after the inner block")
        with block_limit(10):
            await anyio.sleep(0.01)
        reached.append("after the second")
    assert 2 == len(reached)


async def test_an_outer_limit_ends_both() -> None:
    with block_limit(0.02):
        with block_limit(5):
            await anyio.sleep(10)
        pytest.fail("only the inner block ended")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_tasks_own_cancellation_passes_through() -> None:
    async def limited() -> None:
        with block_limit(10):
            await asyncio.sleep(10)

    task = asyncio.create_task(limited())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_at_the_moment_of_the_limit_is_not_lost() -> None:
    limit = block_limit(10)

    async def limited() -> None:
        with limit:
            await asyncio.sleep(10)

    task = asyncio.create_task(limited())
    await asyncio.sleep(0.01)
    limit.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_waits_in_a_row_share_a_limit() -> None:
    limit = wait_limit()
    passed = 0
    for _ in range(3):
        with limit.until(anyio.current_time() + 5):
            await anyio.sleep(0.005)
            passed += 1
    with limit.until(anyio.current_time() + 0.02):
        await anyio.sleep(10)
        passed += 1
    limit.close()
    assert 3 == passed
