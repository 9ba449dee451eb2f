"""Everything in one SQLite file: the default. Several processes of one machine may share it, and it survives kill -9.

WAL, so readers never wait; `BEGIN IMMEDIATE`, so a transaction that will write never has to be taken back;
`synchronous=NORMAL`, so a commit costs no fsync: a process that dies loses nothing, a machine that loses power may lose
the last moments, never the file's consistency. All calls run in a worker thread, one at a time in a process: the event
loop is never blocked, and a cancelled caller's transaction still runs to its end.

A connection does not survive a fork; each process opens its own at its first call.
"""

import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio.to_thread

from floop_gateway_core.errors import Refusal
from floop_gateway_core.policy.admission import Grant
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.policy.window import Decision
from floop_gateway_core.stores import _sqlite_ledger as ledger_rows
from floop_gateway_core.stores import _sqlite_projects as project_rows
from floop_gateway_core.stores._sqlite_schema import migrate
from floop_gateway_core.stores.base import (
    Admitted,
    HoldRequest,
    Project,
    ProjectSettings,
    Settled,
    Settlement,
    StoreUnavailable,
    UsageRecord,
)
from floop_gateway_core.types import Microcredits

__all__ = ["SQLiteStore"]

T = TypeVar("T")
Connection = sqlite3.Connection


class SQLiteStore:
    """`path` is a file, made where it is missing. `busy_s` is how long a call waits for other processes' writes."""

    def __init__(self, path: str | Path, *, busy_s: float = 5.0) -> None:
        self.path = Path(path)
        self._busy_s = busy_s
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._pid = 0

    # -- how a call runs -------------------------------------------------------------------------------------------

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await anyio.to_thread.run_sync(self._run, work, None)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await anyio.to_thread.run_sync(self._run, work, "BEGIN IMMEDIATE")

    def _run(self, work: Callable[[Connection], T], begin: str | None) -> T:
        with self._lock, _translated():
            connection = self._connected()
            if begin is None:
                return work(connection)
            connection.execute(begin)
            try:
                result = work(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            return result

    def _connected(self) -> Connection:
        if self._connection is None or self._pid != os.getpid():
            connection = sqlite3.connect(
                self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                migrate(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._pid = connection, os.getpid()
        return self._connection

    async def setup(self) -> None:
        await self._read(lambda _: None)

    async def aclose(self) -> None:
        def close() -> None:
            with self._lock:
                if self._connection is not None and self._pid == os.getpid():
                    self._connection.close()
                self._connection = None

        await anyio.to_thread.run_sync(close)

    # -- projects and keys -----------------------------------------------------------------------------------------

    async def create_project(
        self,
        name: str,
        owner: str,
        settings: ProjectSettings,
        *,
        digest: str,
        key_prefix: str,
        now: float,
        credits: Microcredits = Microcredits(0),  # noqa: B008 - a NewType of int
    ) -> Project:
        project = Project(name, owner, settings, key_prefix, now)

        def create(connection: Connection) -> Project:
            project_rows.create(connection, project, digest)
            ledger_rows.grant_credits(connection, owner, credits, now)
            return project

        return await self._write(create)

    async def project(self, name: str) -> Project | None:
        return await self._read(lambda connection: project_rows.by_name(connection, name))

    async def projects(self) -> list[Project]:
        return await self._read(project_rows.every)

    async def set_project(self, name: str, settings: ProjectSettings) -> Project:
        return await self._write(lambda connection: project_rows.change(connection, name, settings))

    async def rotate_key(self, name: str, *, digest: str, key_prefix: str, now: float) -> Project:
        return await self._write(lambda connection: project_rows.rotate(connection, name, digest, key_prefix, now))

    async def authenticate(self, digest: str) -> Project | None:
        return await self._read(lambda connection: project_rows.by_digest(connection, digest))

    async def acquire(self, project: str, limit: int, now: float) -> Decision:
        return await self._write(lambda connection: project_rows.acquire(connection, project, limit, now))

    async def authenticate_and_acquire(
        self, digest: str, limit_of: Callable[[Project], int], now: float
    ) -> Admitted | None:
        def admit() -> Admitted | None:
            # Only a known key takes the write lock: strangers cannot make the projects' requests wait.
            project = self._run(lambda connection: project_rows.by_digest(connection, digest), None)
            if project is None:
                return None
            limit = limit_of(project)
            decision = self._run(
                lambda connection: project_rows.acquire(connection, project.name, limit, now), "BEGIN IMMEDIATE"
            )
            return project, decision

        return await anyio.to_thread.run_sync(admit)

    # -- budgets, accounts, holds, the log -------------------------------------------------------------------------

    async def hold(self, request: HoldRequest) -> Grant | Refusal:
        return await self._write(lambda connection: ledger_rows.hold(connection, request))

    async def settle(self, settlement: Settlement) -> Settled:
        return await self._write(lambda connection: ledger_rows.settle(connection, settlement))

    async def expire(self, now: float) -> int:
        def sweep() -> int:
            # The look is a read; only where there is something to void is the write lock taken.
            if not self._run(lambda connection: ledger_rows.any_over(connection, now), None):
                return 0
            return self._run(lambda connection: ledger_rows.expire(connection, now), "BEGIN IMMEDIATE")

        return await anyio.to_thread.run_sync(sweep)

    async def grant_credits(self, owner: str, amount: Microcredits, now: float) -> Account:
        return await self._write(lambda connection: ledger_rows.grant_credits(connection, owner, amount, now))

    async def account(self, owner: str) -> Account | None:
        return await self._read(lambda connection: ledger_rows.account(connection, owner))

    async def day(self, project: str, day: int) -> tuple[int, int]:
        return await self._read(lambda connection: ledger_rows.day(connection, project, day))

    async def usage(self, project: str | None = None, since: float | None = None) -> AsyncIterator[UsageRecord]:
        after = (-1.0 if since is None else since, "")
        while True:
            page = await self._read(partial(ledger_rows.usage, project, after))
            for record in page:
                yield record
            if len(page) < ledger_rows.PAGE_RECORDS:
                return
            after = (page[-1].started_at, page[-1].request_id)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn SQLite's own failures into ours. Its messages name at most a table, never a value."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"SQLite: {error}") from error
