"""A few threads with a connection each, and the jobs that wait for them.

Waiting jobs share a transaction and its commit. Jobs whose locks are taken are skipped; they run alone next time and
wait for their locks, so a busy account occupies one thread and blocks nobody else. A job that fails rolls back the
transaction, and its jobs are then run one by one.

If the server does not respond, all waiting jobs fail together with the one that detected it, so nobody waits for longer
than one job may take; the next job tries again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import psycopg
from anyio.lowlevel import checkpoint_if_cancelled

from floop_gateway_core.concurrency.forks import watch_forks
from floop_gateway_core.concurrency.replies import Reply, wake
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.stores.postgres.session import Overdue, Session
from floop_gateway_core.stores.sql.connection import Connection

__all__ = ["Job", "Workers"]

T = TypeVar("T")
MAX_BATCH = 32
"""The maximum number of jobs in a transaction, so that the first does not wait long for the last."""
log = logging.getLogger("floop_gateway")


@dataclass(slots=True, eq=False)
class Job(Reply[T]):
    """`work` runs in a transaction that holds `locks`; without any it only reads, in a transaction of its own."""

    work: Callable[[Connection], T]
    locks: tuple[str, ...] = ()
    durable: bool = True

    def do(self, connection: Connection) -> None:
        """Keep the result of the work."""
        self.answer = self.work(connection)


Batch: TypeAlias = list[list[Job[Any]]]
"""Groups of jobs; those of a group have the same locks."""


class Workers:
    """`connect` opens a connection; `size` is how many there are at most."""

    def __init__(self, connect: Callable[[], Session], size: int) -> None:
        self._connect = connect
        self._size = size
        self._start_anew()
        watch_forks(self)

    def _start_anew(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[tuple[str, ...], deque[Job[Any]]] = {}
        self._locked: set[str] = set()
        self._passed_over: set[tuple[str, ...]] = set()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._stopping = False

    async def run(self, job: Job[T]) -> T | None:
        """Do a job; once it is queued, cancellation waits for its answer, which would otherwise be lost."""
        await checkpoint_if_cancelled()
        job.expect()
        with self._changed:
            self._waiting.setdefault(job.locks, deque()).append(job)
            if not self._idle and len(self._threads) < self._size:
                thread = threading.Thread(target=self._serve, name="floop-gateway-postgres", daemon=True)
                self._threads.add(thread)
                thread.start()
            self._changed.notify()
        return await job.result()

    def stop(self) -> None:
        """Finish what is queued, close the connections, and end the threads; the next job starts others."""
        with self._changed:
            self._stopping = True
            threads = list(self._threads)
            self._changed.notify_all()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._changed:
            self._stopping = False

    def before_fork(self) -> None:
        """End the threads, and keep the lock until the fork is over."""
        self.stop()
        self._changed.acquire()

    def after_fork_in_parent(self) -> None:
        """Let jobs in again."""
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """Start anew: the lock is held by a thread that exists in the parent only."""
        self._start_anew()

    def _serve(self) -> None:
        session: Session | None = None
        while batch := self._next():
            session = self._do(session, batch)
            with self._changed:
                for group in batch:
                    self._locked.difference_update(group[0].locks)
                self._changed.notify_all()
        if session is not None:
            session.close()

    def _next(self) -> Batch:
        """Wait for jobs whose locks no other thread holds, and take them; none at the end."""
        with self._changed:
            while True:
                if batch := self._take():
                    return batch
                if self._stopping and not self._waiting:
                    self._threads.discard(threading.current_thread())
                    self._changed.notify_all()
                    return []
                self._idle += 1
                self._changed.wait()
                self._idle -= 1

    def _take(self) -> Batch:
        batch: Batch = []
        room, locked = MAX_BATCH, frozenset(self._locked)
        for locks, queue in list(self._waiting.items()):
            alone = not locks or locks in self._passed_over
            if not locked.isdisjoint(locks) or (alone and batch):
                continue
            group = [queue.popleft() for _ in range(min(len(queue), room if locks else 1))]
            del self._waiting[locks]
            if queue:
                self._waiting[locks] = queue  # behind the others
            self._locked.update(locks)
            self._passed_over.discard(locks)
            batch.append(group)
            room -= len(group)
            if alone or not room:
                break
        return batch

    def _put_back(self, group: list[Job[Any]]) -> None:
        """Let jobs be the next ones of their queue, alone, so that they wait for their locks."""
        with self._changed:
            self._passed_over.add(group[0].locks)
            self._waiting.setdefault(group[0].locks, deque()).extendleft(reversed(group))

    def _do(self, session: Session | None, batch: Batch) -> Session | None:
        """Do jobs, and return the connection if it can be used again. Those whose locks are not free are put back."""
        fresh = session is None
        jobs = list(chain.from_iterable(batch))
        try:
            session = session or self._connect()
            groups = [(group[0].locks, [job.do for job in group]) for group in batch]
            done = session.transaction(groups, durable=any(job.durable for job in jobs))
        except BaseException as error:
            if session is None or session.lost:
                if session is not None and not (fresh or session.began or isinstance(error, Overdue)):
                    return self._do(None, batch)  # it was closed while idle, for example by a server restart
                self._fail([*jobs, *self._give_up()], error)
                return None
            if len(jobs) == 1 or not session.began:  # the job itself failed, or its locks could not be acquired
                self._fail(jobs, error)
                return session
            for job in jobs:
                session = self._do(session, [[job]])
            return session
        for group, was_done in zip(batch, done, strict=True):
            if was_done:
                wake(group)
            else:
                self._put_back(group)
        return session

    def _give_up(self) -> list[Job[Any]]:
        with self._changed:
            waiting = [job for queue in self._waiting.values() for job in queue]
            self._waiting.clear()
        return waiting

    @staticmethod
    def _fail(jobs: list[Job[Any]], error: BaseException) -> None:
        for job in jobs:
            job.error = _as_ours(error)
        wake(jobs)


def _as_ours(error: BaseException) -> BaseException:
    """Translate the driver's errors. Statement errors may quote values, so only their type is reported."""
    if not isinstance(error, psycopg.Error):
        return error
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        said = "the server does not answer"
    else:
        said = str(error).splitlines()[0] if isinstance(error, psycopg.OperationalError) else type(error).__name__
    unavailable = StoreUnavailable(f"PostgreSQL: {said}")
    unavailable.__cause__ = error
    return unavailable
