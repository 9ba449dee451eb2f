"""A disk that is full, a file that is read-only, locked or damaged: each is refused, costs nothing, and is told in the log.

The faults are real ones of the file; root may write to read-only files, so a read-only connection stands for one.
"""

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from floop_gateway_core import Gateway, Microcredits, Settings
from floop_gateway_core.errors import UnavailableError
from floop_gateway_core.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio
MESSAGES = [{"role": "user", "content": "Hello"}]


class Faulty(SQLiteStore):
    """A store whose new connections get `fault` applied."""

    fault: Callable[[sqlite3.Connection], object] | None = None

    def _connect(self, *, waits: bool = True) -> sqlite3.Connection:
        connection = super()._connect(waits=waits)
        if self.fault is not None:
            self.fault(connection)
        return connection


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    store = Faulty(tmp_path / "a.db", busy_s=0.2)
    plan = {"requests_per_minute": 1000, "daily_tokens": 1_000_000}
    settings = Settings.read({"store_spool": str(tmp_path / "a.spool"), "plans": {"default": plan}}, source="test")
    async with Gateway(settings, store=store) as gateway:
        await gateway.admin.create_project("shop", credits=Microcredits(10_000_000))
        yield gateway
        store.fault = None


def full(connection: sqlite3.Connection) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def read_only(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = 1")


async def restarted(gateway: Gateway, fault: Callable[[sqlite3.Connection], object] | None) -> None:
    store: Any = gateway.store
    await store.aclose()
    store.fault = fault


async def refused(gateway: Gateway) -> None:
    """Ask until the store has no room for one more: small writes still fit into a full file."""
    for _ in range(200):
        try:
            await gateway.as_project("shop").chat(MESSAGES, model="fast", max_tokens=5)
        except UnavailableError:
            return
    raise AssertionError("the store has taken everything")


async def balanced(gateway: Gateway) -> None:
    """What the records say was charged is what is missing."""
    account = await gateway.admin.account("project:shop")
    charged = sum([record.microcredits async for record in gateway.store.usage()])
    assert (10_000_000 - charged, 0) == (account.posted, account.held)


@pytest.mark.parametrize(
    ("fault", "said"),
    [(full, "free some space"), (read_only, "let this process write to the file")],
)
async def test_a_store_that_takes_nothing_refuses_and_goes_on_when_it_does(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, fault: Callable[[sqlite3.Connection], object], said: str
) -> None:
    await restarted(gateway, fault)
    with caplog.at_level(logging.WARNING, "floop_gateway"):
        await refused(gateway)
    assert said in caplog.text
    await restarted(gateway, None)
    assert "Hello" in (await gateway.as_project("shop").chat(MESSAGES, model="fast", max_tokens=5)).content
    await gateway.admin.expire()
    await balanced(gateway)


async def test_a_file_that_another_process_keeps_locked_refuses_in_time(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with locked(tmp_path / "a.db"), caplog.at_level(logging.WARNING, "floop_gateway"):
        await refused(gateway)
    assert "longer than store_timeout_s" in caplog.text
    await gateway.as_project("shop").chat(MESSAGES, model="fast", max_tokens=5)
    await balanced(gateway)


@contextmanager
def locked(path: Path) -> Any:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        writer.execute("ROLLBACK")
        writer.close()


async def test_a_damaged_file_refuses_until_a_backup_is_in_its_place(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    await restarted(gateway, None)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with caplog.at_level(logging.WARNING, "floop_gateway"):
        await refused(gateway)
    assert "restore a backup" in caplog.text
    await restarted(gateway, None)
    for one in tmp_path.glob("a.db-*"):
        one.unlink()
    path.write_bytes(whole)
    await gateway.as_project("shop").chat(MESSAGES, model="fast", max_tokens=5)
    await balanced(gateway)


async def test_a_file_that_is_locked_at_the_end_of_an_answer_is_charged_later(gateway: Gateway, tmp_path: Path) -> None:
    async with gateway.as_project("shop").stream(MESSAGES, model="fast", max_tokens=5) as answer:
        with locked(tmp_path / "a.db"):
            text = "".join([piece async for piece in answer])
    assert "Hello" in text
    assert answer.bill is not None
    assert (True, None) == (answer.bill.credits_used > 0, answer.bill.credits_remaining)
    await gateway.as_project("shop").chat(MESSAGES, model="fast", max_tokens=5)
    assert ["complete"] * 2 == [record.ending async for record in gateway.store.usage()]
    await balanced(gateway)
