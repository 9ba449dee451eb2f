"""The one thread of a process that waits for the SQLite file: it takes what has piled up and commits it together.

Commits dominate under load, so waiting jobs share one transaction, each in its own savepoint; a failed job rolls back
alone. Results are returned after the commit. A single job waits for no other, and a cancelled caller does not stop its job.
A short job is done immediately, without the thread, if nothing is queued and nobody else writes: see `inline`.

SQLite keeps its table of locks per process, so a connection must not be open across a fork: a child that closes its copy
would release the parent's locks. Before a fork every worker finishes what it has begun, closes its connection and ends its
thread; afterwards parent and child each start anew with their next job.

The connection is opened again after an error of the file itself, and when the file at the path is another one or gone.
"""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint_if_cancelled

from floop_gateway_core.concurrency.forks import watch_forks
from floop_gateway_core.concurrency.replies import Reply, wake
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.stores.sqlite.inline import InlineConnection
from floop_gateway_core.stores.sqlite.turns import Turnstile

__all__ = ["Job", "Worker"]

T = TypeVar("T")
Connection = sqlite3.Connection
HELD_UP_S = 0.05
"""A batch takes a few milliseconds at most unless it waits."""
ADVICE = {
    sqlite3.SQLITE_BUSY: "another process has been writing for longer than store_timeout_s",
    sqlite3.SQLITE_FULL: "free some space; until then requests are refused and cost nothing",
    sqlite3.SQLITE_READONLY: "let this process write to the file and to its folder",
    sqlite3.SQLITE_CANTOPEN: "let this process create files in the folder",
    sqlite3.SQLITE_CORRUPT: "stop every process and restore a backup, or the output of `sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOTADB: "stop every process and restore a backup",
    sqlite3.SQLITE_IOERR: "the disk is failing, or one of its limits was reached",
}
"""What an operator can do, by SQLite's primary result code."""
MAX_BATCH = 128
"""The maximum number of calls in one transaction, so that the first does not wait long for the last."""


@dataclass(slots=True, eq=False)
class Job(Reply[T]):
    """`look` runs outside any transaction; if it returns None, that is the result. `work` runs inside one.

    A job without `work` only reads. `short` jobs take microseconds, and may be done on the event loop's own thread.
    """

    look: Callable[[Connection], Any] | None
    work: Callable[[Connection, Any], T] | None
    short: bool = False
    seen: Any = None


class Worker:
    """`connect` opens the file, `identity` says which file is at the path now; both are called in the thread."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        identity: Callable[[], object] = lambda: None,
        inline: InlineConnection | None = None,
        turns: Turnstile | None = None,
    ) -> None:
        self._connect = connect
        self._identity = identity
        self._inline = inline
        self._turns = turns
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        watch_forks(self)

    @property
    def is_held_up(self) -> bool:
        """Return whether one batch has been running for long: the thread is waiting for another process's write."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > HELD_UP_S

    async def run(self, job: Job[T]) -> T | None:
        """Do a job; once it is queued, cancellation waits for its answer, which would otherwise be lost."""
        await checkpoint_if_cancelled()
        if not (job.short and self._done_inline(job)):
            self._queue(job)
        return await job.result()

    def _done_inline(self, job: Job[Any]) -> bool:
        """Do a job here and now if the thread has opened the file and is idle; return False if that was not possible."""
        inline = self._inline
        if inline is None or self._thread is None or self._busy_since is not None or not self._jobs.empty():
            return False
        if not inline.attempt(lambda connection: _do(connection, [job])) or _damaged(job.error):
            job.error = None
            return False
        if inline.checkpoint_is_due:
            self._queue(Job(lambda connection: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall(), None))
        return True

    def _queue(self, job: Job[Any]) -> None:
        job.expect()
        with self._lock:  # otherwise a stop could end the thread between this check and queueing the job
            if self._thread is None:
                self._start()
            self._jobs.put(job)

    def _start(self) -> None:
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._serve, args=(self._jobs,), name="floop-gateway-sqlite", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, close the connection, and end the thread; the next job starts another."""
        with self._lock:
            thread = self._retire()
            if self._inline is not None:
                self._inline.close()
        if thread is not None:
            thread.join()

    def _retire(self) -> threading.Thread | None:
        """Let the thread end after what is queued. Needs the lock."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
        return thread

    def before_fork(self) -> None:
        """End the thread, and keep the lock until the fork is over."""
        self._lock.acquire()
        if (thread := self._retire()) is not None and thread is not threading.current_thread():
            thread.join()
        if self._inline is not None:
            self._inline.before_fork()

    def after_fork_in_parent(self) -> None:
        """Let jobs in again."""
        if self._inline is not None:
            self._inline.after_fork_in_parent()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew: the lock is held by a thread that exists in the parent only."""
        self._lock = threading.Lock()
        self._thread = None
        if self._inline is not None:
            self._inline.after_fork_in_child()

    def _serve(self, jobs: "queue.SimpleQueue[Job[Any] | None]") -> None:
        connection: Connection | None = None
        opened: object = None
        stopping = False
        while not stopping:
            batch = [jobs.get()]
            while len(batch) < MAX_BATCH and not jobs.empty():
                batch.append(jobs.get())
            stopping = None in batch
            wanted = [job for job in batch if job is not None]
            try:
                if connection is not None and self._identity() != opened:
                    _closed(connection)
                    connection = None
                if connection is None and wanted:
                    connection = self._connect()
                    opened = self._identity()
                if connection is not None:
                    self._busy_since = time.monotonic()
                    _do(connection, wanted, _begin if self._turns is None else self._turns.begin)
            except BaseException as error:
                for job in wanted:
                    if not job.answered:
                        job.error = job.error or _translated(error)
            self._busy_since = None
            if connection is not None and any(_damaged(job.error) for job in wanted):
                _closed(connection)
                connection = None
            wake(wanted)
        if connection is not None:
            connection.close()
        if self._turns is not None:
            self._turns.close()


def _closed(connection: Connection) -> None:
    """Close a connection, even if its file is gone or broken."""
    with suppress(sqlite3.Error):  # closing a damaged file may fail
        connection.close()


def _damaged(error: BaseException | None) -> bool:
    """Return whether an error concerns the file or the connection, and not contention or a single statement."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    if not isinstance(cause, sqlite3.DatabaseError):
        return False
    return (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _begin(connection: Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


def _do(connection: Connection, batch: list[Job[Any]], begin: Callable[[Connection], None] = _begin) -> None:
    writing = [job for job in batch if _looked(connection, job)]
    if not writing:
        return
    # Read-only jobs are answered before waiting for the write lock; they include requests with an unknown key.
    wake([job for job in batch if job not in writing])
    begin(connection)
    try:
        for job in writing:
            _attempt(connection, job, alone=len(writing) == 1)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _looked(connection: Connection, job: Job[Any]) -> bool:
    """Run the part of a job that only reads; say whether there is work left."""
    if job.look is None:
        return True
    try:
        job.seen = job.answer = job.look(connection)
    except BaseException as error:
        job.error = _translated(error)
        return False
    return job.work is not None and job.seen is not None


def _attempt(connection: Connection, job: Job[Any], *, alone: bool) -> None:
    if job.work is None:
        return
    if not alone:
        connection.execute("SAVEPOINT job")
    try:
        job.answer = job.work(connection, job.seen)
    except BaseException as error:
        job.error = _translated(error)
        connection.execute("ROLLBACK" if alone else "ROLLBACK TO job")
        if alone:
            connection.execute("BEGIN")
    if not alone:
        connection.execute("RELEASE job")


def _translated(error: BaseException) -> BaseException:
    """Turn SQLite's own failures into ours. Its messages name at most a table, never a value."""
    if not isinstance(error, sqlite3.Error):
        return error
    advice = ADVICE.get((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF)
    unavailable = StoreUnavailable(f"SQLite: {error}" if advice is None else f"SQLite: {error} ({advice})")
    unavailable.__cause__ = error
    return unavailable
