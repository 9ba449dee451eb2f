"""Everything in one SQLite file: the default. Several processes of one machine may share it, and it survives kill -9.

WAL mode, so readers never wait; `BEGIN IMMEDIATE`, so a transaction never fails when it starts to write;
`synchronous=NORMAL`, so a commit needs no fsync: nothing is lost if a process dies, and after a power failure the last
moments may be missing but the file stays consistent. Anything that may wait or take long runs in a worker thread of the
process, so the event loop is never blocked, and a cancelled caller's transaction still completes. While the thread
waits for another process's write, reads go to a second one.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import anyio.to_thread

from floop_gateway_core.policy.summary import packed, unpacked
from floop_gateway_core.stores.base import KeyAdmitted, rate_limit
from floop_gateway_core.stores.sql import projects as project_rows
from floop_gateway_core.stores.sql import windows
from floop_gateway_core.stores.sql.connection import Connection
from floop_gateway_core.stores.sql.store import SQLStore
from floop_gateway_core.stores.sqlite.inline import InlineConnection
from floop_gateway_core.stores.sqlite.schema import check_ours, migrate
from floop_gateway_core.stores.sqlite.turns import Turnstile
from floop_gateway_core.stores.sqlite.worker import Job, Worker
from floop_gateway_core.types import Project

__all__ = ["SQLiteStore"]

T = TypeVar("T")
RETRY_S = 0.01
"""How long to wait before asking again for a lock that SQLite does not wait for."""
MAX_JOURNAL_BYTES = 16 * 1024 * 1024
"""The size to which the write-ahead log is truncated after a checkpoint; a long read lets it grow for a while."""


class SQLiteStore(SQLStore):
    """`path` is a file, which is created if missing. `busy_s` is how long a call waits for other processes' writes."""

    def __init__(self, path: str | Path, *, busy_s: float = 5.0) -> None:
        super().__init__()
        if str(path) == ":memory:":
            raise ValueError("a SQLite store must be a file, got ':memory:'; use MemoryStore, or store = \"memory://\"")
        self.path = Path(path)
        self._busy_s = busy_s
        inline = InlineConnection(partial(self._connect, waits=False), self._file_identity)
        self._worker = Worker(self._connect, self._file_identity, inline, Turnstile(self.path, busy_s))
        self._reader = Worker(self._connect, self._file_identity)  # for reads while the other waits to write

    async def _read(self, work: Callable[[Connection], T], *, consistent: bool = False) -> T:
        if consistent:
            work = partial(_at_once, work)
        worker = self._reader if self._worker.is_held_up else self._worker
        return cast(T, await worker.run(Job(work, None)))

    async def _write(self, work: Callable[[Connection], T], *locks: str, short: bool = False) -> T:
        return cast(T, await self._worker.run(Job(None, lambda connection, _: work(connection), short)))

    def _file_identity(self) -> object:
        """Return the identity of the file at the path, which changes if it is replaced; None if there is no file."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _connect(self, *, waits: bool = True) -> sqlite3.Connection:
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
            connection.create_aggregate("sum_of_lanes", 1, _SumOfLanes)  # type: ignore[arg-type]  # typeshed knows only int
        except BaseException:
            connection.close()
            raise
        return connection

    async def setup(self) -> None:
        """See `Store.setup`."""
        await self._read(lambda _: None)

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        for worker in (self._worker, self._reader):
            await anyio.to_thread.run_sync(worker.stop)

    async def authenticate_and_acquire(self, digest: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        """See `Store.authenticate_and_acquire`."""

        def spend(connection: Connection, project: Project) -> KeyAdmitted:
            if project.suspension is not None:
                return KeyAdmitted(project, None)
            return KeyAdmitted(project, windows.acquire(connection, project.id, rate_limit(project, limits), now))

        # Only a known key takes the write lock: unknown keys neither delay the projects' requests nor wait themselves.
        if self._worker.is_held_up and await self.authenticate(digest, now) is None:
            return None
        return await self._worker.run(Job(partial(project_rows.by_digest, digest, now), spend, short=True))


def _at_once(work: Callable[[Connection], T], connection: Connection) -> T:
    """Read in one transaction."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        connection.execute("COMMIT")


class _SumOfLanes:
    """The aggregate function `sum_of_lanes`, which adds the lanes of histograms and returns them in hexadecimal."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, lanes: bytes) -> None:
        self._sum += unpacked(lanes)

    def finalize(self) -> str:
        return packed(self._sum).hex()


def _create_private(path: Path) -> None:
    """Create a missing file readable by its owner only: it holds balances, usage and digests of keys."""
    with suppress(OSError):  # it exists, or SQLite will say why it cannot be created
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _turn_to_wal(connection: sqlite3.Connection, busy_s: float) -> None:
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
