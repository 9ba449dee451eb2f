"""The PostgreSQL store passes the suite, and holds with several processes, when the server ends, and for a DBA."""

import os
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import closing, suppress
from dataclasses import astuple, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import anyio
import anyio.to_thread
import psycopg
import pytest

from floop_gateway_core.policy.admission import Held
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.policy.summary import DAY_S
from floop_gateway_core.stores.base import HoldRequest, Posting, StoreUnavailable
from floop_gateway_core.stores.postgres import PostgresStore, schema, session
from floop_gateway_core.stores.postgres.jobs import Job
from floop_gateway_core.stores.postgres.migrations import migrate, pending_script
from floop_gateway_core.stores.registry import inspect_store
from floop_gateway_core.stores.sql import usage
from floop_gateway_core.testing.suites.facts import NOW, hold_request, project, settlement, together
from floop_gateway_core.testing.suites.stores import StoreSuite
from floop_gateway_core.types import Microcredits, ProjectId, ProjectSettings, RequestId, UsageFilter
from tests.postgres import PGBOUNCER, empty, new_database, restart, start_server, transaction_pooler

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def database() -> str:
    return new_database()


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database)
    await store.setup()
    empty(database)
    yield store
    await store.aclose()


class TestPostgresStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _short_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(usage, "PAGE_RECORDS", 10)


# -- one busy account ----------------------------------------------------------------------------------------------


async def test_a_busy_account_stops_no_other(database: str, store: PostgresStore) -> None:
    impatient = PostgresStore(database, timeout_s=0.3)
    for owner in ("o", "p"):
        await store.grant_credits(owner, Microcredits(500), NOW)
    with closing(psycopg.connect(database, autocommit=True)) as other:
        other.execute((session.begin_script(1.0) + session.lock_script(["account o"])).encode())
        async with anyio.create_task_group() as group:
            waiting = [hold_request(f"req_{number}") for number in range(8)]
            refused = list[str]()

            async def hold(request: HoldRequest) -> None:
                with pytest.raises(StoreUnavailable) as raised:
                    await impatient.hold(request)
                refused.append(str(raised.value))

            for request in waiting:
                group.start_soon(hold, request)
            await anyio.sleep(0.05)
            assert isinstance(await impatient.hold(hold_request("req_p", owner="p", project=ProjectId("q"))), Held)
            assert not refused  # the other one was served first
        assert ["PostgreSQL: canceling statement due to lock timeout"] * 8 == refused
        other.execute(b"ROLLBACK")
    assert isinstance(await impatient.hold(waiting[0]), Held)
    assert Account(Microcredits(500), Microcredits(100)) == await store.account("o")
    await impatient.aclose()


async def test_commands_on_the_same_things_in_any_order_never_wait_for_each_other(store: PostgresStore) -> None:
    await _crowd(store, store._conninfo)


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
async def test_a_pooler_in_transaction_mode_may_lie_between(database: str, store: PostgresStore) -> None:
    with transaction_pooler(database, Path(tempfile.mkdtemp())) as url:
        pooled = PostgresStore(url)
        await _crowd(pooled, url)
        await pooled.aclose()


async def _crowd(store: PostgresStore, url: str) -> None:
    """Let eight tasks work on two projects through two stores."""
    other = PostgresStore(url)
    for id in ("p", "q"):
        await store.create_project(project(id), digest=id, credits=Microcredits(10_000))

    async def busy(one: PostgresStore, number: int) -> None:
        for turn in range(10):
            id = ProjectId("pq"[(number + turn) % 2])
            request = hold_request(f"req_{number}_{turn}", project=id)
            await one.hold(request)
            await one.acquire(id, 10_000, NOW)
            await one.settle(settlement(request, 7, tokens=7))
            await one.roll_up(NOW + 10_000, limit=10)
            await one.set_project(id, ProjectSettings())

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(busy, (store, other)[number % 2], number)
    assert Account(Microcredits(20_000 - 8 * 10 * 7)) == await store.account("o")
    assert 80 == sum(row.requests for row in await other.summary(UsageFilter(), DAY_S))
    await other.aclose()


async def test_one_bad_command_does_not_undo_those_beside_it(store: PostgresStore) -> None:
    await store.grant_credits("o", Microcredits(100), NOW)

    async def grant(amount: int) -> str:
        return await _error(store.grant_credits("o", Microcredits(amount), NOW))

    errors = await together([grant(amount) for amount in (1, 2, 2**63, 3)])
    assert 3 == errors.count("no error")
    assert Account(Microcredits(106)) == await store.account("o")


# -- down and back -------------------------------------------------------------------------------------------------


class Proxy:
    """A TCP door to the server's socket, which can be shut: what is sent then is kept back, and nothing is closed."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.open = threading.Event()
        self.open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.open.wait()
                far = socket.socket(socket.AF_UNIX)
                self._sockets += near, far
                far.connect(self._target)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.open.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.open.set()
        for one in self._sockets:
            one.close()


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    folder = dict(parse_qsl(urlsplit(database).query))["host"]
    proxy = Proxy(f"{folder}/.s.PGSQL.5432")
    yield proxy
    proxy.close()


async def test_a_server_that_hangs_is_given_up_in_time_and_used_again(
    database: str, store: PostgresStore, proxy: Proxy
) -> None:
    await store.grant_credits("o", Microcredits(500), NOW)
    name = urlsplit(database).path
    far = PostgresStore(f"postgresql://postgres@127.0.0.1:{proxy.port}{name}", timeout_s=0.5)
    assert Account(Microcredits(500)) == await far.account("o")
    proxy.open.clear()
    began = time.monotonic()
    errors = await together([_error(far.hold(hold_request(f"req_{number}"))) for number in range(200)])
    assert time.monotonic() - began < 5.0  # two attempts at most, of a second each with what connecting may take
    assert {"PostgreSQL: the server does not answer"} == set(errors)
    proxy.open.set()
    for number in range(200):  # what was sent may still arrive; a request that was refused so is voided
        await far.settle(settlement(hold_request(f"req_{number}")))
    assert isinstance(await far.hold(hold_request("req_later")), Held)
    assert Account(Microcredits(500), Microcredits(100)) == await store.account("o")
    await far.aclose()


async def test_a_server_that_hangs_is_given_up_once_by_all_who_wait(
    database: str, store: PostgresStore, proxy: Proxy
) -> None:
    """None of these holds is an ordinary one, so each needs more than the one round trip."""
    far = PostgresStore(f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(database).path}", timeout_s=0.5)
    await far.setup()
    began = time.monotonic()
    async with anyio.create_task_group() as group:
        for number in range(64):
            group.start_soon(_error, far.hold(hold_request(f"req_{number}")))
        await anyio.sleep(0.005)
        proxy.open.clear()
    assert time.monotonic() - began < 5.0
    proxy.open.set()
    await far.aclose()


async def _error(call: Awaitable[object]) -> str:
    try:
        await call
    except (StoreUnavailable, ValueError) as error:
        return str(error)
    return "no error"


async def test_a_server_that_was_killed_is_used_again_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = start_server(tmp_path_factory.mktemp("pg"))
    store = PostgresStore(server.get_uri(), timeout_s=1.0)
    await store.grant_credits("o", Microcredits(500), NOW)
    assert isinstance(await store.hold(hold_request("req_1")), Held)
    os.kill(server.get_pid(), signal.SIGKILL)
    await _error(store.settle(settlement(hold_request("req_1"), 40, tokens=42)))  # its process may outlive the server
    await anyio.to_thread.run_sync(restart, server)
    settled = await store.settle(settlement(hold_request("req_1"), 40, tokens=42))
    assert Account(Microcredits(460)) == settled.account == await store.account("o")
    os.kill(server.get_pid(), signal.SIGINT)  # a fast shutdown ends idle connections; the next call opens another one
    await anyio.to_thread.run_sync(restart, server)
    assert Account(Microcredits(460)) == await store.account("o")
    await store.aclose()
    await anyio.to_thread.run_sync(server.cleanup)


async def test_a_locked_table_fails_what_has_waited_as_long_as_a_call_may_take(database: str) -> None:
    slow = PostgresStore(database, timeout_s=0.5)
    await slow.setup()
    record = hold_request("req_0").record
    records = [replace(record, request_id=RequestId(f"req_{number}")) for number in range(20)]
    with closing(psycopg.connect(database)) as other:
        other.execute("LOCK TABLE floop_gateway.usage IN ACCESS EXCLUSIVE MODE")
        start = time.monotonic()
        errors = await together([_error(slow.log(record)) for record in records])
        assert time.monotonic() - start < 20 * 0.5 / 4  # one after the other, on four connections, they would take that
    assert {"PostgreSQL: canceling statement due to lock timeout"} == set(errors)
    await slow.log(record)
    await slow.aclose()


async def test_a_locked_row_fails_only_the_job_that_needs_it(database: str) -> None:
    slow = PostgresStore(database, timeout_s=0.5)
    await slow.setup()
    owners = [f"owner-{number}" for number in range(12)]
    for owner in owners:
        await slow.grant_credits(owner, Microcredits(1), NOW)
    with closing(psycopg.connect(database)) as other:
        other.execute("UPDATE floop_gateway.accounts SET posted = posted WHERE owner = 'owner-7'")
        errors = await together([_error(_granted(slow, owner)) for owner in owners])
    assert Counter({"no error": 11, "PostgreSQL: canceling statement due to lock timeout": 1}) == Counter(errors)
    await slow.aclose()


async def test_a_connection_too_many_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    url = new_database()
    role = f"few_{urlsplit(url).path[1:]}"
    with closing(psycopg.connect(url, autocommit=True)) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER".encode())
    store = PostgresStore(url.replace("postgres:@", f"{role}@"))
    await store.setup()
    with closing(psycopg.connect(url, autocommit=True)) as admin:
        admin.execute(f"ALTER ROLE {role} NOSUPERUSER CONNECTION LIMIT 1".encode())
        admin.execute(f"GRANT ALL ON SCHEMA floop_gateway TO {role}".encode())
        admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA floop_gateway TO {role}".encode())
        admin.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA floop_gateway TO {role}".encode())
    owners = [f"owner-{number}" for number in range(40)]
    for _ in range(3):
        await together([_granted(store, owner) for owner in owners])
    assert [3] * 40 == [account.posted for _, account in await store.accounts()]
    assert 'too many connections for role "few_' in caplog.text
    assert "continuing with 1 connection" in caplog.text
    await store.aclose()


async def _granted(store: PostgresStore, owner: str) -> str:
    await store.grant_credits(owner, Microcredits(1), NOW)
    return owner


# -- the schema ----------------------------------------------------------------------------------------------------


async def test_a_team_may_migrate_by_itself_and_give_the_gateway_a_role_that_cannot() -> None:
    url = new_database()
    assert ("will be created", None) == inspect_store(url)
    script = pending_script(url, 2.0)
    role = f"gateway_{urlsplit(url).path[1:]}"
    with closing(psycopg.connect(url, autocommit=True)) as admin:
        admin.execute(script.encode())
        admin.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA floop_gateway TO {role}".encode())
        admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA floop_gateway TO {role}".encode())
    assert "" == pending_script(url, 2.0)
    store = PostgresStore(url.replace("postgres:@", f"{role}@"))
    await store.create_project(project(), digest="d", credits=Microcredits(7))
    assert Account(Microcredits(7)) == await store.account("o")
    await store.aclose()
    assert ("ready", 1) == inspect_store(url)


async def test_sums_of_schema_3_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_database()
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "STEPS", schema.STEPS[:3])
        migrate(url, 2.0)
    row = (DAY_S, "p", 0, "fast", "", 200, "shop", 3, 1, 20, 10, 5, '{"0":1,"33":2,"34":0}', "{}")
    with closing(psycopg.connect(url, autocommit=True)) as admin:
        admin.execute(f"INSERT INTO floop_gateway.rollups VALUES ({', '.join(['%s'] * len(row))})".encode(), row)
    store = PostgresStore(url)
    (found,) = await store.summary(UsageFilter(), DAY_S)
    assert (("p", "shop", 0, "fast", None, 200), 3, 1, 20, 10, 5) == astuple(found)[:6]
    counts = found.latency.counts()
    assert (1, 2, 34, []) == (counts[0], counts[33], len(counts), found.first_text.counts())
    await store.aclose()


async def test_processes_that_start_together_on_an_empty_database_take_turns() -> None:
    url = new_database()
    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(anyio.to_thread.run_sync, migrate, url, 2.0)
    assert "" == pending_script(url, 2.0)


async def test_a_role_that_may_not_migrate_is_told_so() -> None:
    url = new_database()
    role = f"reader_{urlsplit(url).path[1:]}"
    with closing(psycopg.connect(url, autocommit=True)) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN".encode())
    poor = url.replace("postgres:@", f"{role}@")
    for call in (lambda: migrate(poor, 2.0), lambda: inspect_store(poor)):
        with pytest.raises(StoreUnavailable, match="migrate --sql"):
            call()


@pytest.mark.parametrize("setting", ["default_transaction_isolation = serializable", "client_encoding = latin1"])
async def test_a_databases_own_settings_do_not_matter(setting: str) -> None:
    url = new_database()
    with closing(psycopg.connect(url, autocommit=True)) as admin:
        admin.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} SET {setting}".encode())
    store = PostgresStore(url)
    await _crowd(store, url)
    await store.post(Posting("grant", "o", Microcredits(1), NOW, note="…✓"))
    await store.aclose()


async def test_a_schema_of_the_next_release_is_used_and_one_that_cannot_be_is_refused() -> None:
    url = new_database()
    store = PostgresStore(url)
    await store.setup()
    await store.aclose()
    with closing(psycopg.connect(url, autocommit=True)) as admin:
        admin.execute("UPDATE floop_gateway.schema_version SET version = version + 1")
        await store.setup()
        await store.aclose()
        admin.execute("UPDATE floop_gateway.schema_version SET oldest = version")
    with pytest.raises(StoreUnavailable, match="use the release that wrote it"):
        await PostgresStore(url).setup()


async def test_a_pooler_of_transactions_needs_no_state_of_a_session(database: str, store: PostgresStore) -> None:
    await store.grant_credits("o", Microcredits(500), NOW)
    pooled = PostgresStore(f"{database}&pgbouncer=true")
    for number in range(8):
        assert isinstance(await pooled.hold(hold_request(f"req_{number}", output_tokens=1)), Held)
    job = Job(lambda connection: connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall())
    assert [(0,)] == await pooled._workers.run(job)
    await pooled.aclose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://user:secret-word@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://user:secret-word@[", "malformed"),
        ("postgresql://user:secret-word@127.0.0.1:1/db?nonsense=1", "a parameter that"),
    ],
)
async def test_a_place_without_a_server_is_told_without_its_password(url: str, said: str) -> None:
    with pytest.raises((StoreUnavailable, ValueError), match=said) as raised:
        await PostgresStore(url).setup()
    assert "secret-word" not in str(raised.value)
