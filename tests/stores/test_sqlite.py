"""The SQLite store passes the suite, and holds with several processes, after kill -9, over releases and when broken."""

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import astuple, replace
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from floop_gateway_core.policy.admission import Held
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.policy.summary import DAY_S, Histogram
from floop_gateway_core.stores.base import StoreUnavailable, WindowLimit
from floop_gateway_core.stores.sql import usage
from floop_gateway_core.stores.sqlite import SQLiteStore, schema
from floop_gateway_core.testing.suites.facts import DAY, NOW, PROJECT, TTL_S, hold_request, project, settlement
from floop_gateway_core.testing.suites.stores import StoreSuite
from floop_gateway_core.types import Microcredits, ProjectSettings, RequestId, UsageFilter

pytestmark = pytest.mark.anyio

PREAMBLE = """
import anyio, os, signal, sys
from floop_gateway_core.policy.admission import Held
from floop_gateway_core.stores.sqlite import SQLiteStore
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, hold_request, settlement
store = SQLiteStore(sys.argv[1], busy_s=30.0)
number = sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.setup()
    yield store
    await store.aclose()


class TestSQLiteStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _short_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(usage, "PAGE_RECORDS", 10)


# -- the event loop ------------------------------------------------------------------------------------------------


async def test_the_event_loop_runs_on_while_another_process_writes(path: Path, store: SQLiteStore) -> None:
    admitted: list[bool] = []

    async def ask() -> None:
        admitted.append((await store.acquire(PROJECT, 1, NOW)).allowed)

    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        for _ in range(1_000):
            await anyio.lowlevel.checkpoint()
        assert [] == admitted
        writer.rollback()
    writer.close()
    assert [True] == admitted


async def test_readers_do_not_wait_for_a_writer(path: Path) -> None:
    store = SQLiteStore(path, busy_s=0.0)
    await store.create_project(project(), digest="d")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert await store.authenticate("d", NOW) is not None
    assert await store.authenticate_and_acquire("unknown", {"default": 1}, NOW) is None
    assert 0 == await store.expire(NOW)
    writer.close()
    await store.aclose()


async def test_a_cancelled_callers_transaction_runs_to_its_end(store: SQLiteStore) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.grant_credits("o", Microcredits(5), NOW)
    async with anyio.create_task_group() as group:
        group.start_soon(store.grant_credits, "o", Microcredits(7), NOW)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    account = await store.account("o")
    assert account is None or account.posted in (0, 7)


async def test_reads_and_unknown_keys_do_not_wait_for_another_processs_write(path: Path, store: SQLiteStore) -> None:
    await store.create_project(project(), digest="d")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    admitted: list[object] = []

    async def known() -> None:
        admitted.append(await store.authenticate_and_acquire("d", {"default": 1}, NOW))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(known)
        while not store._worker.is_held_up:
            await anyio.sleep(0.01)
        with anyio.fail_after(2):
            assert await store.authenticate_and_acquire("unknown", {"default": 1}, NOW) is None
            assert project() == await store.project("shop-p")
        assert [] == admitted
        other.execute("COMMIT")
    assert [True] == [one is not None for one in admitted]
    other.close()


# -- releases ------------------------------------------------------------------------------------------------------


async def test_a_file_of_an_earlier_release_is_migrated_and_keeps_what_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SQLiteStore(path)
    await before.create_project(project(), digest="d")
    await before.aclose()
    steps = (*schema.STEPS, "CREATE TABLE later (x INTEGER); INSERT INTO later VALUES (7)")
    monkeypatch.setattr(schema, "STEPS", steps)
    after = SQLiteStore(path)
    assert project() == await after.authenticate("d", NOW)
    await after.aclose()
    file = sqlite3.connect(path)
    assert [(len(steps),), (7,)] == [
        file.execute(query).fetchone() for query in ("PRAGMA user_version", "SELECT x FROM later")
    ]
    file.close()


SCHEMA_2 = """
    INSERT INTO projects VALUES ('shop', 'olga', 'gold', 20, NULL, 1000.5),
        ('blog', 'project:blog', 'default', NULL, 9, 2000.0);
    INSERT INTO keys VALUES
        ('old', 'shop', 'flp_sk_0000…', 1000.5, 1500.0), ('new', 'shop', 'flp_sk_1111…', 1500.0, NULL),
        ('blog', 'blog', 'flp_sk_2222…', 2000.0, NULL);
    INSERT INTO windows VALUES ('shop', 1), ('limit 60000000 a', 1);
    INSERT INTO instants VALUES ('shop', 1699999990000000), ('limit 60000000 a', 1699999990000000);
    INSERT INTO accounts VALUES ('olga', 900, 100), ('project:blog', 0, 0);
    INSERT INTO entries VALUES
        (1, 'olga', 'grant', 1000, NULL, 1000.5), (2, 'olga', 'capture', -100, 'req_done', 1600.0),
        (3, 'olga', 'write_off', 5, 'req_done', 1600.0);
    INSERT INTO days VALUES ('shop', {day}, 42, 100), ('gone', {day}, 1, 0);
    INSERT INTO holds VALUES
        ('req_done', 'olga', {day}, 'captured', 100, 100, 0, 5, 100, 90, 0.0),
        ('req_open', 'olga', {day}, 'open', 60, 0, 0, 0, 100, 90, {expires_at});
    INSERT INTO meters VALUES ('job-1', 'olga', 'open', 40, 0, 0, 0, {expires_at});
    INSERT INTO usage VALUES
        ('req_done', 'shop', 'flp_sk_0000…', 'chat', 'auto', 'fast', 'a', 200, NULL, 1, 2, 0, 0, 0, 100, 1, 5, 500, 1,
            'complete', 'end_turn', '[["short", 1.5]]', 1600.0),
        ('req_gone', 'gone', 'flp_sk_9999…', 'chat', 'fast', 'fast', 'a', 200, NULL, 1, 2, 0, 0, 1, 0, 1, 5, NULL, 0,
            'complete', 'end_turn', NULL, 1700.0),
        ('req_open', 'shop', 'flp_sk_1111…', 'chat', 'fast', 'fast', NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL,
            0, NULL, NULL, NULL, {now});
"""
"""What a file of schema 2 may hold: a request that has ended, one that runs, one of a project that is no longer there."""


async def test_everything_in_a_file_of_schema_2_is_kept(path: Path) -> None:
    file = sqlite3.connect(path)
    for step in schema.STEPS[:2]:
        file.executescript(step)
    file.executescript(SCHEMA_2.format(day=DAY, now=NOW, expires_at=NOW + TTL_S))
    file.execute("PRAGMA user_version = 2")
    file.close()
    store = SQLiteStore(path)
    shop = await store.authenticate("new", NOW)
    assert shop is not None
    assert re.fullmatch("prj_[0-9a-f]{26}", shop.id)
    assert ("shop", "olga", ProjectSettings("gold", 20, None)) == (shop.name, shop.owner, shop.settings)
    assert ("flp_sk_1111…", 1000.5, 1500.0) == (shop.key_prefix, shop.created_at, shop.key_created_at)
    assert await store.authenticate("old", NOW) is None
    assert ["blog", "shop"] == [one.name for one in await store.projects()]
    assert 2 == len({one.id for one in await store.projects()})
    assert not (await store.acquire(shop.id, 1, NOW)).allowed
    assert not (await store.acquire_windows([WindowLimit("a", 1, 60.0)], NOW))[0].allowed
    assert (42, 100) == await store.day(shop.id, DAY)
    assert Account(Microcredits(900), Microcredits(100)) == await store.account("olga")
    done, gone = [record async for record in store.usage()]
    assert (shop.id, "shop", 100, (("short", 1.5),), 1600.5) == (
        done.project_id, done.project, done.microcredits, done.auto_reasons, done.settled_at,
    )  # fmt: skip
    assert ("native", (), 1, None, ()) == (done.dialect, done.tags, done.repeats, done.replay_of, done.attempt_list)
    assert ("gone", "gone", 1700.0) == (gone.project_id, gone.project, gone.settled_at)
    # What was held is still held, and expires in its time.
    assert 1 == await store.expire(NOW + TTL_S)
    assert 1 == await store.expire_named_holds(NOW + TTL_S)
    assert Account(Microcredits(900)) == await store.account("olga")
    assert (42, 0) == await store.day(shop.id, DAY)
    assert ["req_open"] == [record.request_id async for record in store.usage(shop.id, NOW)]
    await store.aclose()
    file = sqlite3.connect(path)
    entries = file.execute("SELECT number, owner, kind, amount, request_id, at FROM entries").fetchall()
    strict = file.execute("SELECT name FROM pragma_table_list WHERE strict = 0 AND name NOT LIKE 'sqlite_%'").fetchall()
    file.close()
    assert [(1, "olga", "grant", 1000, None, 1000.5), (3, "olga", "written_off", 5, "req_done", 1600.0)] == entries[::2]
    assert [] == strict


async def test_sums_of_schema_5_are_kept(path: Path) -> None:
    file = sqlite3.connect(path)
    for step in schema.STEPS[:5]:
        file.executescript(step)
    row = (DAY_S, "p", 0, "fast", "", 200, "shop", 3, 1, 20, 10, 5, '{"0":1,"33":2,"34":0}', "{}")
    file.execute(f"INSERT INTO rollups VALUES ({', '.join('?' * len(row))})", row)
    file.execute("PRAGMA user_version = 5")
    file.commit()
    file.close()
    store = SQLiteStore(path)
    (found,) = await store.summary(UsageFilter(), DAY_S)
    assert (("p", "shop", 0, "fast", None, 200), 3, 1, 20, 10, 5) == astuple(found)[:6]
    assert ({0: 1, 33: 2}, []) == (_nonzero(found.latency), found.first_text.counts())
    await store.aclose()


def _nonzero(histogram: Histogram) -> dict[int, int]:
    return {bucket: count for bucket, count in enumerate(histogram.counts()) if count}


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = SQLiteStore(path)
    await before.setup()
    await before.aclose()
    steps = (*schema.STEPS, "CREATE TABLE later (x INTEGER); INSERT INTO nowhere VALUES (7)")
    monkeypatch.setattr(schema, "STEPS", steps)
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await SQLiteStore(path).setup()
    monkeypatch.undo()
    again = SQLiteStore(path)
    assert [] == await again.projects()
    await again.aclose()


async def test_a_file_of_a_later_release_is_left_alone(path: Path) -> None:
    file = sqlite3.connect(path)
    file.execute("PRAGMA user_version = 99")
    file.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    file.close()
    with pytest.raises(StoreUnavailable, match="the file has 99"):
        await SQLiteStore(path).setup()
    file = sqlite3.connect(path)
    assert [] == file.execute("SELECT * FROM sqlite_master").fetchall()
    file.close()


# -- broken files --------------------------------------------------------------------------------------------------


async def test_a_file_that_is_no_database_is_unavailable(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable):
        await SQLiteStore(path).authenticate("d", NOW)
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_file_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SQLiteStore(tmp_path / "missing" / "gateway.db").setup()


async def test_a_store_that_failed_to_open_opens_when_it_can(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "missing" / "gateway.db")
    with pytest.raises(StoreUnavailable):
        await store.setup()
    (tmp_path / "missing").mkdir()
    assert [] == await store.projects()
    await store.aclose()


@pytest.fixture
def readable_directory() -> Iterator[Path]:
    """A directory that somebody without rights may enter; root, who may write anything, becomes nobody for the test."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        was_root = os.geteuid() == 0
        yield Path(name)
        if was_root:
            os.seteuid(0)
        os.chmod(name, 0o755)


async def test_a_file_that_may_only_be_read_is_unavailable_to_writers(readable_directory: Path) -> None:
    path = readable_directory / "gateway.db"
    writable = SQLiteStore(path)
    await writable.create_project(project(), digest="d")
    await writable.aclose()
    os.chmod(path, 0o444)
    os.chmod(readable_directory, 0o555)
    if os.geteuid() == 0:
        os.seteuid(65_534)
    with pytest.raises(StoreUnavailable):
        await SQLiteStore(path).acquire(PROJECT, 10, NOW)


async def test_a_file_that_others_keep_locked_is_unavailable_when_the_wait_is_over(path: Path) -> None:
    store = SQLiteStore(path, busy_s=0.01)
    await store.setup()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.acquire(PROJECT, 10, NOW)
    writer.rollback()
    assert (await store.acquire(PROJECT, 10, NOW)).allowed
    writer.close()
    await store.aclose()


async def test_a_failure_in_mid_transaction_takes_everything_back(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    await store.grant_credits("o", Microcredits(1_000), NOW)
    monkeypatch.setattr(usage, "save_record", fail)
    with pytest.raises(StoreUnavailable, match="disk"):
        await store.hold(hold_request("req_1"))
    monkeypatch.undo()
    assert Account(Microcredits(1_000)) == await store.account("o")
    assert (0, 0) == await store.day(PROJECT, DAY)
    assert isinstance(await store.hold(hold_request("req_1")), Held)


async def test_sums_outlive_the_records_that_are_pruned(store: SQLiteStore) -> None:
    record = hold_request("req_0").record
    for number in range(30):
        one = replace(record, request_id=RequestId(f"req_{number}"), ending="complete", settled_at=NOW, input_tokens=7)
        await store.log(one)
    pruned = 0
    while some := await store.prune(before=NOW + 1, day=0, now=NOW, limit=8):
        pruned += some
    assert pruned == 30
    assert [(row.requests, row.input_tokens) for row in await store.summary(UsageFilter(), DAY_S)] == [(30, 210)]


async def test_a_charge_that_comes_later_than_its_sums_are_kept_is_billed(store: SQLiteStore) -> None:
    await store.create_project(project(), digest="d", credits=Microcredits(1_000))
    request = hold_request("req_0")
    await store.hold(request)
    await store.expire(request.expires_at + 1)
    await store.roll_up(NOW + DAY_S, limit=10)
    await store.carry(before=NOW + 10 * DAY_S, limit=100)
    assert [] == await store.summary(UsageFilter(), DAY_S)
    late = settlement(request, 40, tokens=40)
    await store.settle(replace(late, record=replace(late.record, settled_at=NOW + 11 * DAY_S)))
    assert Account(Microcredits(960)) == await store.account("o")
    assert [1] == [row.requests for row in await store.summary(UsageFilter(), DAY_S)]


# -- what the file holds -------------------------------------------------------------------------------------------


async def test_every_movement_of_money_leaves_an_entry_and_they_add_up_to_the_balance(
    path: Path, store: SQLiteStore
) -> None:
    await store.grant_credits("o", Microcredits(120), NOW)
    for request_id, charge in (("req_1", 30), ("req_2", 130), ("req_3", None)):
        request = hold_request(request_id, fixed_tokens=9, output_tokens=11)
        await store.hold(request)
        await store.settle(settlement(request, charge, tokens=20))
    file = sqlite3.connect(path)
    entries = file.execute("SELECT kind, amount, request_id FROM entries ORDER BY number").fetchall()
    file.close()
    assert [
        ("grant", 120, None),
        ("capture", -20, "req_1"), ("overrun", -10, "req_1"),
        ("capture", -20, "req_2"), ("overrun", -70, "req_2"), ("written_off", 40, "req_2"),
    ] == entries  # fmt: skip
    posted = sum(amount for kind, amount, _ in entries if kind != "written_off")
    assert Account(Microcredits(posted)) == await store.account("o")


async def test_the_store_is_what_it_was_after_it_is_opened_again(path: Path) -> None:
    first = SQLiteStore(path)
    await first.grant_credits("o", Microcredits(1_000), NOW)
    await first.hold(hold_request("req_1"))
    await first.acquire(PROJECT, 1, NOW)
    await first.aclose()
    second = SQLiteStore(path)
    assert Account(Microcredits(1_000), Microcredits(100)) == await second.account("o")
    assert not (await second.acquire(PROJECT, 1, NOW)).allowed
    await second.aclose()


async def test_the_window_keeps_no_row_that_no_longer_counts(path: Path, store: SQLiteStore) -> None:
    for second in range(200):
        await store.acquire(PROJECT, 10, NOW + second)
    file = sqlite3.connect(path)
    (rows,), (count,) = (file.execute(query).fetchone() for query in (
        "SELECT count(*) FROM instants", "SELECT count FROM windows"))  # fmt: skip
    file.close()
    assert rows == count <= 10


# -- the file as such ----------------------------------------------------------------------------------------------------


async def test_a_new_file_is_readable_by_its_owner_only(path: Path) -> None:
    store = SQLiteStore(path)
    await store.setup()
    assert 0o600 == path.stat().st_mode & 0o777
    await store.aclose()


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TABLE notes (text TEXT)",
        "CREATE TABLE projects (name TEXT); PRAGMA user_version = 2",
        "PRAGMA application_id = 1",
    ],
)
async def test_a_file_of_another_application_is_refused_and_left_as_it_was(path: Path, statements: str) -> None:
    file = sqlite3.connect(path)
    file.executescript(statements)
    file.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="another application"):
        await SQLiteStore(path).setup()
    assert before == path.read_bytes()


async def test_a_file_from_before_the_mark_is_taken_over(path: Path) -> None:
    file = sqlite3.connect(path)
    file.executescript(schema.STEPS[0])
    file.execute("PRAGMA user_version = 1")
    file.close()
    store = SQLiteStore(path)
    assert [] == await store.projects()
    await store.aclose()
    file = sqlite3.connect(path)
    assert [(schema.APPLICATION_ID,)] == file.execute("PRAGMA application_id").fetchall()
    file.close()


async def test_a_file_that_was_replaced_or_deleted_is_opened_again(path: Path) -> None:
    store, other = SQLiteStore(path), SQLiteStore(path.with_name("other.db"))
    await store.grant_credits("olga", Microcredits(1), NOW)
    await other.grant_credits("olga", Microcredits(2), NOW)
    await other.aclose()
    for name in (path.name + "-wal", path.name + "-shm"):
        path.with_name(name).unlink(missing_ok=True)
    path.with_name("other.db").replace(path)
    assert Account(Microcredits(2)) == await store.account("olga")
    path.unlink()
    assert await store.account("olga") is None
    await store.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_a_fork_with_an_open_store_leaves_both_processes_a_working_one(path: Path) -> None:
    program = f"""
import anyio, os
from floop_gateway_core.stores.sqlite import SQLiteStore
from floop_gateway_core.types import Microcredits
store = SQLiteStore({str(path)!r})
async def grant(): await store.grant_credits("olga", Microcredits(1), 0.0)
anyio.run(grant)
children = []
for _ in range(4):
    if (child := os.fork()) == 0:
        anyio.run(grant)
        os._exit(0)
    children.append(child)
anyio.run(grant)
assert [0] * 4 == [os.waitpid(child, 0)[1] for child in children]
"""
    # Python 3.12 and later count the system's threads, and one that was joined may not have left yet.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    store = SQLiteStore(path)
    assert Account(Microcredits(6)) == await store.account("olga")
    await store.aclose()


def test_a_database_in_memory_is_no_file_of_that_name() -> None:
    with pytest.raises(ValueError, match="a SQLite store must be a file, got ':memory:'; use MemoryStore"):
        SQLiteStore(":memory:")
