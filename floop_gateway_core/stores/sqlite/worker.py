"""The one thread of a process that touches the SQLite file: it takes what has piled up and commits it together.

Under load a commit is the dear part, so jobs that wait at the same moment share a transaction, each in a savepoint of its
own: one that fails is taken back alone. Nobody is answered before the commit. Alone, a job waits for no other.

A caller that is cancelled does not stop its job; a connection does not survive a fork, so each process has a thread and a
connection of its own, made at its first job.
"""

import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from floop_gateway_core.stores.base import StoreUnavailable

__all__ = ["Job", "Worker"]

T = TypeVar("T")
Connection = sqlite3.Connection
MAX_BATCH = 128


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """`look` runs outside any transaction; where it gives None, that is the answer. `work` runs inside one.

    A job without `work` only reads.
    """

    look: Callable[[Connection], Any] | None
    work: Callable[[Connection, Any], T] | None
    seen: Any = None
    answer: T | None = None
    error: BaseException | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    loop: Any = field(default_factory=lambda: current_token().native_token)


class Worker:
    """`connect` opens the file; it is called in the thread."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._pid = 0
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, job: Job[T]) -> T | None:
        """Do a job; once it is queued, cancellation waits for its answer, which would otherwise be lost."""
        await checkpoint_if_cancelled()
        if self._thread is None or self._pid != os.getpid():
            self._start()
        self._jobs.put(job)
        with anyio.CancelScope(shield=True):
            await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.answer

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or self._pid != os.getpid():
                # After a fork the parent's queue may hold its jobs, and its thread is not here.
                self._jobs, self._pid = queue.SimpleQueue(), os.getpid()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._jobs,), name="floop-gateway-sqlite", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, close the connection, and end the thread; the next job starts another."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None and self._pid == os.getpid():
                self._jobs.put(None)
                thread.join()

    def _serve(self, jobs: "queue.SimpleQueue[Job[Any] | None]") -> None:
        connection: Connection | None = None
        stopping = False
        while not stopping:
            batch = [jobs.get()]
            while len(batch) < MAX_BATCH and not jobs.empty():
                batch.append(jobs.get())
            stopping = None in batch
            wanted = [job for job in batch if job is not None]
            try:
                connection = connection or self._connect()
                _do(connection, wanted)
            except BaseException as error:
                for job in wanted:
                    job.error = job.error or _translated(error)
            _wake(wanted)
        if connection is not None:
            connection.close()


def _do(connection: Connection, batch: list[Job[Any]]) -> None:
    writing = [job for job in batch if _looked(connection, job)]
    if not writing:
        return
    connection.execute("BEGIN IMMEDIATE")
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
    return StoreUnavailable(f"SQLite: {error}") if isinstance(error, sqlite3.Error) else error


def _wake(batch: list[Job[Any]]) -> None:
    by_loop: dict[Any, list[Job[Any]]] = {}
    for job in batch:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon  # asyncio's name, and trio's
        with suppress(RuntimeError):  # that event loop is gone, and whoever waited with it
            soon(_set_all, jobs)


def _set_all(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.done.set()
