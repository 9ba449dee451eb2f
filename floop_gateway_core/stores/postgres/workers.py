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
from floop_gateway_core.stores.postgres.calls import ServerCall
from floop_gateway_core.stores.postgres.session import Overdue, Session
from floop_gateway_core.stores.sql.connection import Connection

__all__ = ["Job", "Workers"]

T = TypeVar("T")
MAX_BATCH = 32
"""The maximum number of jobs in a transaction, so that the first does not wait long for the last."""
log = logging.getLogger("floop_gateway")


@dataclass(slots=True, eq=False)
class Job(Reply[T]):
    """`work` runs in a transaction that holds `locks`; without any it only reads, in a transaction of its own.

    `call` may do the same in one round trip, or say that it cannot.
    """

    work: Callable[[Connection], T]
    locks: tuple[str, ...] = ()
    durable: bool = True
    call: ServerCall[T] | None = None

    def do(self, connection: Connection) -> None:
        """Keep the result of the work."""
        self.answer = self.work(connection)


Batch: TypeAlias = list[list[Job[Any]]]
"""Groups of jobs; those of a group have the same locks."""
Sorted: TypeAlias = tuple[list[Job[Any]], list[Job[Any]]]
"""Jobs that were not done: those whose locks were not free, and those that a call could not do."""


class Workers:
    """`connect` opens a connection; `size` is how many there are at most."""

    def __init__(self, connect: Callable[[], Session], size: int) -> None:
        self._connect = connect
        self._size = size
        self._start_anew()
        watch_forks(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, ...], deque[Job[Any]]] = {}
        self._locked: set[str] = set()
        self._passed_over: set[tuple[str, ...]] = set()
        self._threads: set[threading.Thread] = set()
        self._idle: list[threading.Condition] = []
        """One for each idle thread; the last one has worked last."""
        self._looking = 0
        """Threads that are about to look for jobs."""
        self._stopping = False

    async def run(self, job: Job[T]) -> T | None:
        """Do a job; once it is queued, cancellation waits for its answer, which would otherwise be lost."""
        await checkpoint_if_cancelled()
        job.expect()
        with self._lock:
            self._waiting.setdefault(job.locks, deque()).append(job)
            if self._locked.isdisjoint(job.locks):  # otherwise the thread that has the locks looks for it
                self._let_one_look()
        return await job.result()

    def _let_one_look(self) -> None:
        """Let a thread look for jobs: the one that worked last, as its connection is warm. Needs the lock."""
        if self._looking:
            return
        if self._idle:
            self._looking += 1
            self._idle.pop().notify()
        elif len(self._threads) < self._size:
            self._looking += 1
            thread = threading.Thread(target=self._serve, name="floop-gateway-postgres", daemon=True)
            self._threads.add(thread)
            thread.start()

    def stop(self) -> None:
        """Finish what is queued, close the connections, and end the threads; the next job starts others."""
        with self._lock:
            self._stopping = True
            threads = list(self._threads)
            self._let_all_look()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._lock:
            self._stopping = False

    def _let_all_look(self) -> None:
        self._looking += len(self._idle)
        while self._idle:
            self._idle.pop().notify()

    def before_fork(self) -> None:
        """End the threads, and keep the lock until the fork is over."""
        self.stop()
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let jobs in again."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew: the lock is held by a thread that exists in the parent only."""
        self._start_anew()

    def _serve(self) -> None:
        session: Session | None = None
        turn = threading.Condition(self._lock)
        while batch := self._next(turn):
            session, busy = self._do(session, batch)
            with self._lock:
                for group in batch:
                    self._locked.difference_update(group[0].locks)
                self._put_back(busy)
                self._looking += 1  # before the callers are woken, because they may submit another job immediately
            wake(job for group in batch for job in group if job not in busy)
        if session is not None:
            session.close()

    def _next(self, turn: threading.Condition) -> Batch:
        """Wait for jobs whose locks no other thread holds, and take them; none at the end."""
        with self._lock:
            while True:
                self._looking -= 1
                batch = self._take()
                if any(self._locked.isdisjoint(locks) for locks in self._waiting):
                    self._let_one_look()
                if batch:
                    return batch
                if self._stopping and not self._waiting:
                    self._threads.discard(threading.current_thread())
                    self._let_all_look()
                    return []
                self._idle.append(turn)
                turn.wait()

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

    def _put_back(self, jobs: list[Job[Any]]) -> None:
        """Let jobs be the next ones of their queue, alone, so that they wait for their locks. Needs the lock."""
        for job in reversed(jobs):
            self._passed_over.add(job.locks)
            self._waiting.setdefault(job.locks, deque()).appendleft(job)

    def _do(self, session: Session | None, batch: Batch) -> tuple[Session | None, list[Job[Any]]]:
        """Do jobs; return the connection if it can be used again, and the jobs whose locks were not free."""
        fresh = session is None
        jobs = list(chain.from_iterable(batch))
        try:
            session = session or self._connect()
            busy, others = _call(session, jobs) if all(job.call for job in jobs) else _transact(session, batch)
        except BaseException as error:
            if session is None or session.lost:
                if session is not None and not (fresh or session.began or isinstance(error, Overdue)):
                    return self._do(None, batch)  # it was closed while idle, for example by a server restart
                self._fail([*jobs, *self._give_up()], error)
                return None, []
            if not session.began or (len(jobs) == 1 and jobs[0].call is None):
                self._fail(jobs, error)  # the job itself failed, or its locks could not be acquired
                return session, []
            return self._singly(session, jobs), []
        for job in others:
            job.call = None
        if others:
            session, more = self._do(session, _grouped(others))
            busy += more
        return session, busy

    def _singly(self, session: Session | None, jobs: list[Job[Any]]) -> Session | None:
        """Do each job in a transaction of its own, up to one that loses the connection, with which the rest fails."""
        for place, job in enumerate(jobs):
            job.call = None
            session, _ = self._do(session, [[job]])
            if session is None:
                self._fail(jobs[place + 1 :], job.error or StoreUnavailable("PostgreSQL: the connection was lost"))
                break
        return session

    def _give_up(self) -> list[Job[Any]]:
        with self._lock:
            waiting = [job for queue in self._waiting.values() for job in queue]
            self._waiting.clear()
        return waiting

    @staticmethod
    def _fail(jobs: list[Job[Any]], error: BaseException) -> None:
        for job in jobs:
            job.error = _as_ours(error)
        wake(jobs)


def _grouped(jobs: list[Job[Any]]) -> Batch:
    groups: dict[tuple[str, ...], list[Job[Any]]] = {}
    for job in jobs:
        groups.setdefault(job.locks, []).append(job)
    return list(groups.values())


def _transact(session: Session, batch: Batch) -> Sorted:
    """Do the work of jobs in one transaction."""
    groups = [(group[0].locks, [job.do for job in group]) for group in batch]
    durable = any(job.durable for group in batch for job in group)
    done = session.transaction(groups, durable=durable)
    return [job for group, was_done in zip(batch, done, strict=True) if not was_done for job in group], []


def _call(session: Session, jobs: list[Job[Any]]) -> Sorted:
    """Call the functions of jobs in one transaction."""
    calls = [(job.call, job.locks) for job in jobs if job.call is not None]
    busy, others = list[Job[Any]](), list[Job[Any]]()
    rows = session.call(calls, durable=any(job.durable for job in jobs))
    for job, (call, _), (outcome, *row) in zip(jobs, calls, rows, strict=True):
        if outcome == "done":
            job.answer = call.read(row)
        else:
            (busy if outcome == "busy" else others).append(job)
    return busy, others


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
