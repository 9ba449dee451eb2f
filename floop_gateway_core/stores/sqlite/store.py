"""Everything in one SQLite file: the default. Several processes of one machine may share it, and it survives kill -9.

WAL, so readers never wait; `BEGIN IMMEDIATE`, so a transaction that will write never has to be taken back;
`synchronous=NORMAL`, so a commit costs no fsync: a process that dies loses nothing, a machine that loses power may lose
the last moments, never the file's consistency. Whatever may wait or take long runs in a worker thread of the process, so
the event loop is never blocked, and a cancelled caller's transaction still runs to its end. While the thread waits for
another process's write, reads go to a second one.
"""

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import anyio.to_thread

from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.idempotency import KeptAnswer
from floop_gateway_core.policy.ledger import Account, Command, Outcome
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.policy.summary import SummaryRow
from floop_gateway_core.stores.base import (
    DayUsage,
    HoldRequest,
    KeyAdmitted,
    Posted,
    Posting,
    PostingRefused,
    Settled,
    Settlement,
    WindowLimit,
    rate_limit,
)
from floop_gateway_core.stores.sqlite import answers as answer_rows
from floop_gateway_core.stores.sqlite import audit as audit_rows
from floop_gateway_core.stores.sqlite import books as book_rows
from floop_gateway_core.stores.sqlite import ledger as ledger_rows
from floop_gateway_core.stores.sqlite import named_holds as named_hold_rows
from floop_gateway_core.stores.sqlite import projects as project_rows
from floop_gateway_core.stores.sqlite import rollups as rollup_rows
from floop_gateway_core.stores.sqlite import usage as usage_rows
from floop_gateway_core.stores.sqlite import windows as window_rows
from floop_gateway_core.stores.sqlite.inline import InlineConnection
from floop_gateway_core.stores.sqlite.schema import check_ours, migrate
from floop_gateway_core.stores.sqlite.worker import Job, Worker
from floop_gateway_core.types import (
    AuditLine,
    Entry,
    Microcredits,
    Project,
    ProjectId,
    ProjectSettings,
    RequestId,
    Suspension,
    UsageFilter,
    UsageRecord,
)
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = ["SQLiteStore"]

T = TypeVar("T")
RETRY_S = 0.01
"""How long to wait before asking again for a lock that SQLite does not wait for."""
MAX_JOURNAL_BYTES = 16 * 1024 * 1024
"""What the write-ahead log is cut to after a checkpoint; a long reader lets it grow for a while."""
Connection = sqlite3.Connection


class SQLiteStore:
    """`path` is a file, which is created if missing. `busy_s` is how long a call waits for other processes' writes."""

    def __init__(self, path: str | Path, *, busy_s: float = 5.0) -> None:
        self.path = Path(path)
        self._busy_s = busy_s
        inline = InlineConnection(partial(self._connect, waits=False), self._file_identity)
        self._worker = Worker(self._connect, self._file_identity, inline)
        self._reader = Worker(self._connect, self._file_identity)  # for reads while the other waits to write
        self._swept: dict[float, float] = {}

    # -- how a call runs -------------------------------------------------------------------------------------------

    async def _read(self, work: Callable[[Connection], T]) -> T:
        worker = self._reader if self._worker.is_held_up else self._worker
        return cast(T, await worker.run(Job(work, None)))

    async def _write(self, work: Callable[[Connection], T], *, short: bool = False) -> T:
        return cast(T, await self._worker.run(Job(None, lambda connection, _: work(connection), short)))

    def _file_identity(self) -> object:
        """Return what distinguishes this file from another one at the same path; None if there is no file."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _connect(self, *, waits: bool = True) -> Connection:
        busy_s = self._busy_s if waits else 0.0
        _create_private(self.path)
        # One thread at a time uses a connection, though not always the same one.
        connection = sqlite3.connect(
            self.path, timeout=busy_s, isolation_level=None, cached_statements=256, check_same_thread=False
        )
        try:
            check_ours(connection)
            _turn_to_wal(connection, busy_s)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA journal_size_limit={MAX_JOURNAL_BYTES}")
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    async def setup(self) -> None:
        await self._read(lambda _: None)

    async def aclose(self) -> None:
        for worker in (self._worker, self._reader):
            await anyio.to_thread.run_sync(worker.stop)

    # -- projects and keys -----------------------------------------------------------------------------------------

    async def create_project(self, project: Project, *, digest: str, credits: Microcredits = ZERO_CREDITS) -> Project:
        def create(connection: Connection) -> Project:
            project_rows.create(connection, project, digest)
            ledger_rows.grant_credits(connection, project.owner, credits, project.created_at)
            return project

        return await self._write(create)

    async def project(self, name: str) -> Project | None:
        return await self._read(lambda connection: project_rows.by_name(connection, name))

    async def projects(self) -> list[Project]:
        return await self._read(project_rows.every)

    async def set_project(self, id: ProjectId, settings: ProjectSettings) -> Project:
        return await self._write(lambda connection: project_rows.change(connection, id, settings))

    async def rotate_key(
        self, id: ProjectId, *, digest: str, key_prefix: str, now: float, grace_until: float | None = None
    ) -> Project:
        rotate = partial(project_rows.rotate, id=id, digest=digest, prefix=key_prefix, now=now, grace_until=grace_until)
        return await self._write(rotate)

    async def suspend(self, id: ProjectId, suspension: Suspension | None) -> Project:
        return await self._write(lambda connection: project_rows.suspend(connection, id, suspension))

    async def delete_project(self, id: ProjectId, *, now: float, erase: bool = False) -> None:
        await self._write(lambda connection: project_rows.delete(connection, id, now, erase=erase))

    async def authenticate(self, digest: str, now: float) -> Project | None:
        return await self._read(partial(project_rows.by_digest, digest, now))

    async def audit(self, line: AuditLine) -> None:
        await self._write(lambda connection: audit_rows.add(connection, line))

    async def audit_lines(
        self, *, before: int | None = None, projects: frozenset[ProjectId] | None = None, limit: int = 100
    ) -> list[AuditLine]:
        return await self._read(partial(audit_rows.lines, before, projects, limit))

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        return await self._write(lambda connection: window_rows.acquire(connection, project, limit, now))

    async def acquire_windows(self, windows: Sequence[WindowLimit], now: float) -> Sequence[RateDecision]:
        def spend(connection: Connection) -> Sequence[RateDecision]:
            for window_s in {window.window_s for window in windows}:
                if abs(now - self._swept.get(window_s, 0.0)) >= window_s:  # once a window, in each process
                    window_rows.sweep(connection, window_s, now)
                    self._swept[window_s] = now
            return window_rows.acquire_windows(connection, windows, now)

        return await self._write(spend)

    async def authenticate_and_acquire(self, digest: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        def spend(connection: Connection, project: Project) -> KeyAdmitted:
            if project.suspension is not None:
                return KeyAdmitted(project, None)
            limit = rate_limit(project, limits)
            return KeyAdmitted(project, window_rows.acquire(connection, project.id, limit, now))

        # Only a known key takes the write lock: strangers do not make the projects' requests wait, nor wait themselves.
        if self._worker.is_held_up and await self.authenticate(digest, now) is None:
            return None
        return await self._worker.run(Job(partial(project_rows.by_digest, digest, now), spend, short=True))

    # -- both holds of a request -----------------------------------------------------------------------------------

    async def kept_answer(self, project: ProjectId, key: str, now: float) -> KeptAnswer | None:
        return await self._read(partial(answer_rows.kept, project, key, now))

    async def hold(self, request: HoldRequest) -> Held | HoldRefused:
        return await self._write(lambda connection: ledger_rows.hold(connection, request), short=True)

    async def settle(self, settlement: Settlement) -> Settled:
        return await self._write(lambda connection: ledger_rows.settle(connection, settlement), short=True)

    async def log(self, record: UsageRecord) -> None:
        await self._write(lambda connection: usage_rows.save_record(connection, record))

    async def expire(self, now: float) -> int:
        # Looking is a read; the write lock is taken only if there is something to void.
        over = Job(partial(ledger_rows.has_expired, now), lambda connection, _: ledger_rows.expire(connection, now))
        return await self._worker.run(over) or 0

    async def prune(self, *, before: float, day: int, now: float, limit: int) -> int:
        def prune(connection: Connection) -> int:
            rollup_rows.roll_up(before + rollup_rows.SETTLE_S, limit, connection)  # only what is added up is deleted
            return ledger_rows.prune(connection, before, day, now, limit)

        return await self._write(prune)

    # -- named holds -----------------------------------------------------------------------------------------------

    async def apply_named_hold(
        self, id: str, owner: str | None, command: Command, *, now: float, expires_at: float
    ) -> Outcome:
        apply = partial(named_hold_rows.apply, now=now, expires_at=expires_at)
        return await self._write(lambda connection: apply(connection, id, owner, command))

    async def expire_named_holds(self, now: float) -> int:
        over = Job(
            partial(named_hold_rows.has_expired, now), lambda connection, _: named_hold_rows.expire(connection, now)
        )
        return await self._worker.run(over) or 0

    # -- accounts and the log --------------------------------------------------------------------------------------

    async def grant_credits(self, owner: str, amount: Microcredits, now: float) -> Account:
        return await self._write(lambda connection: ledger_rows.grant_credits(connection, owner, amount, now))

    async def post(self, posting: Posting) -> Posted | PostingRefused:
        return await self._write(lambda connection: book_rows.post(connection, posting))

    async def payer(self, request_id: RequestId) -> str | None:
        return await self._read(partial(book_rows.payer, request_id))

    async def entries(
        self, owner: str, *, after: int = 0, since: float | None = None, until: float | None = None, limit: int = 1000
    ) -> list[Entry]:
        return await self._read(partial(book_rows.entries, owner, after, since, until, limit))

    async def accounts(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, Account]]:
        return await self._read(partial(book_rows.accounts, after, limit))

    async def record(self, request_id: RequestId) -> UsageRecord | None:
        return await self._read(partial(usage_rows.record, request_id))

    async def roll_up(self, now: float, *, limit: int) -> int:
        return await self._write(partial(rollup_rows.roll_up, now, limit))

    async def summary(self, wanted: UsageFilter, span: int) -> list[SummaryRow]:
        return await self._read(partial(rollup_rows.summary, wanted, span))

    async def usage_page(
        self, wanted: UsageFilter, *, after: tuple[float, str] | None, newest_first: bool, limit: int
    ) -> list[UsageRecord]:
        return await self._read(partial(usage_rows.usage_page, wanted, after, newest_first, limit))

    async def account(self, owner: str) -> Account | None:
        return await self._read(lambda connection: book_rows.account(connection, owner))

    async def day(self, project: ProjectId, day: int) -> DayUsage:
        return await self._read(lambda connection: ledger_rows.day(connection, project, day))

    async def usage(self, project: str | None = None, since: float | None = None) -> AsyncIterator[UsageRecord]:
        after = (-1.0 if since is None else since, "")
        while True:
            page = await self._read(partial(usage_rows.usage, project, after))
            for record in page:
                yield record
            if len(page) < usage_rows.PAGE_RECORDS:
                return
            after = (page[-1].started_at, page[-1].request_id)


def _create_private(path: Path) -> None:
    """Create a missing file readable by its owner only: it holds balances, usage and digests of keys."""
    with suppress(OSError):  # it exists, or SQLite will say why it cannot be created
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _turn_to_wal(connection: Connection, busy_s: float) -> None:
    """Switch a file to WAL. When several processes do so to a new file at the same time, SQLite does not wait."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_S)
