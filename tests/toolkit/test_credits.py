"""The ledger for anything that is metered, on a SQLite file that a gateway may share."""

import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from floop_gateway_core import Credits, Gateway, Message, Microcredits, Settings, SQLiteStore
from floop_gateway_core.policy.ledger import Account, Hold, Insufficient, Unknown
from floop_gateway_core.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

M = Microcredits


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


@pytest.fixture
async def credits(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Credits]:
    credits = Credits(tmp_path / "credits.db", clock=clock)
    await credits.grant("olga", M(100))
    yield credits
    await credits.aclose()


async def test_a_hold_is_captured_for_less_and_the_rest_is_free(credits: Credits) -> None:
    assert Hold(M(60)) == await credits.hold("job", "olga", M(60), ttl_s=60)
    assert Account(M(100), M(60)) == await credits.account("olga")
    captured = await credits.capture("job", M(25))
    assert Hold(M(60), "captured", M(25)) == captured
    assert Account(M(75), M(0)) == await credits.account("olga")


async def test_every_command_may_be_repeated_and_an_id_resolves_once(credits: Credits) -> None:
    for _ in range(3):
        await credits.hold("job", "olga", M(60), ttl_s=60)
    for _ in range(3):
        await credits.capture("job", M(25))
    assert Hold(M(60), "captured", M(25)) == await credits.void("job")
    assert Hold(M(60), "captured", M(25)) == await credits.hold("job", "olga", M(60), ttl_s=60)
    assert Account(M(75), M(0)) == await credits.account("olga")


async def test_what_is_not_there_is_not_set_aside(credits: Credits) -> None:
    await credits.hold("one", "olga", M(60), ttl_s=60)
    assert Insufficient(M(60), M(40)) == await credits.hold("two", "olga", M(60), ttl_s=60)
    assert Insufficient(M(1), M(0)) == await credits.hold("three", "nobody", M(1), ttl_s=60)
    await credits.void("one")
    assert isinstance(await credits.hold("two", "olga", M(60), ttl_s=60), Hold)


async def test_an_overrun_takes_what_is_available_and_the_rest_is_written_off(credits: Credits) -> None:
    await credits.hold("other", "olga", M(30), ttl_s=60)
    await credits.hold("job", "olga", M(50), ttl_s=60)
    assert Hold(M(50), "captured", M(50), M(20), M(80)) == await credits.capture("job", M(150))
    assert Account(M(30), M(30)) == await credits.account("olga")


async def test_an_unknown_id_is_told_apart(credits: Credits) -> None:
    assert Unknown() == await credits.capture("nobody's", M(1))
    assert Unknown() == await credits.void("nobody's")
    assert Account(M(100), M(0)) == await credits.account("olga")


async def test_a_hold_that_nobody_resolves_expires_and_frees_credit(credits: Credits, clock: FakeClock) -> None:
    await credits.hold("job", "olga", M(60), ttl_s=60)
    clock.now += 60
    assert Account(M(100), M(0)) == await credits.account("olga")
    for _ in range(2):  # what was delivered after all is charged, once
        late = await credits.capture("job", M(25))
        assert isinstance(late, Hold)
        assert ("captured", 25) == (late.state, late.charged)
    assert Account(M(75), M(0)) == await credits.account("olga")


async def test_64_at_once_never_overdraw_the_account(credits: Credits) -> None:
    async def spend(number: int) -> None:
        if isinstance(await credits.hold(f"job {number}", "olga", M(9), ttl_s=60), Hold):
            await credits.capture(f"job {number}", M(7))
        assert (await credits.account("olga")).available >= 0

    async with anyio.create_task_group() as tasks:
        for number in range(64):
            tasks.start_soon(spend, number)
    left = await credits.account("olga")
    assert (0, 2) == (left.held, left.posted % 7)


SPENDER = """
import anyio, sys
from floop_gateway_core import Credits, Microcredits
from floop_gateway_core.policy.ledger import Hold
async def main():
    credits, paid = Credits(sys.argv[1]), 0
    for number in range(50):
        id = f"{sys.argv[2]}-{number}"
        if isinstance(await credits.hold(id, "olga", Microcredits(1), ttl_s=1e6), Hold):
            paid += (await credits.capture(id, Microcredits(1))).charged
    print(paid)
    await credits.aclose()
anyio.run(main)
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_several_processes_on_one_file_spend_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "credits.db"
    credits = Credits(path)
    await credits.grant("olga", M(100))
    start = partial(subprocess.Popen, stdout=subprocess.PIPE, text=True)
    spenders = [start([sys.executable, "-c", SPENDER, str(path), str(number)]) for number in range(3)]
    paid = [int((await anyio.to_thread.run_sync(one.communicate))[0]) for one in spenders]
    assert 100 == sum(paid)
    assert Account(M(0), M(0)) == await credits.account("olga")
    await credits.aclose()


async def test_a_gateway_on_the_same_file_pays_from_the_same_account(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "gateway.db")
    async with Gateway(Settings(), store=store) as gateway:
        new = await gateway.admin.create_project("shop", owner="olga", credits=M(10**6))
        credits = Credits(store)
        await credits.hold("image", "olga", M(100_000), ttl_s=60)
        await credits.capture("image", M(90_000))
        answer = await gateway.chat(new.key, [Message.of("user", "one two")])
        assert 10**6 - 90_000 - answer.bill.credits_used == (await credits.account("olga")).posted


async def test_a_hold_is_one_accounts_and_of_one_amount(credits: Credits) -> None:
    await credits.hold("job", "olga", M(60), ttl_s=60)
    for owner, amount in (("bob", 60), ("olga", 61)):
        with pytest.raises(ValueError, match="already"):
            await credits.hold("job", owner, M(amount), ttl_s=60)
    for odd in (-1, 0.5, 2**70, True):
        with pytest.raises(ValueError, match="amount"):
            await credits.capture("job", odd)  # type: ignore[arg-type]
    for ttl_s in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ttl_s"):
            await credits.hold("other", "olga", M(1), ttl_s=ttl_s)
    assert Account(M(100), M(60)) == await credits.account("olga")
