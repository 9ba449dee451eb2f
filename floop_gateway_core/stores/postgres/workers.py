"""A few threads with a connection each, and the jobs that wait for them.

Waiting jobs share a transaction and its commit. Jobs whose locks are taken are skipped; they run alone next time and
wait for their locks, so a busy account occupies one thread and blocks nobody else. A job that fails rolls back the
transaction, and its jobs are then run one by one.

If the server does not respond, all waiting jobs fail together with the one that detected it, so nobody waits for longer
than one job may take; the next job tries again. If two jobs of a batch time out one after the other, as at a locked table,
those that have waited for as long fail with them. If one more connection cannot be had, jobs are done on those that there
are.
"""

import logging
import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import psycopg
from anyio.lowlevel import checkpoint_if_cancelled

from floop_gateway_core.concurrency.forks import watch_forks
from floop_gateway_core.concurrency.replies import wake
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.stores.postgres.jobs import Batch, Job, JobQueue
from floop_gateway_core.stores.postgres.session import Overdue, Session

__all__ = ["Workers"]

T = TypeVar("T")
REFUSED_S = 5.0
"""How long to do without one more connection after the server has refused it."""
TIMED_OUT = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
log = logging.getLogger("floop_gateway")

Sorted: TypeAlias = tuple[list[Job[Any]], list[Job[Any]]]
"""Jobs that were not done: those whose locks were not free, and those that a call could not do."""


class Workers:
    """`connect` opens a connection, `size` is how many there are at most, `timeout_s` is how long a call may take."""

    def __init__(self, connect: Callable[[], Session], size: int, timeout_s: float) -> None:
        self._connect = connect
        self._size = size
        self._timeout_s = timeout_s
        self._start_anew()
        watch_forks(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._queue = JobQueue()
        self._threads: set[threading.Thread] = set()
        self._connected: set[threading.Thread] = set()
        self._refused: set[threading.Thread] = set()
        """Threads that cannot connect, and leave their jobs to those that could."""
        self._no_more_before = 0.0
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
            if self._queue.add(job):
                self._let_one_look()
        return await job.result()

    def _let_one_look(self) -> None:
        """Let a thread look for jobs: the one that worked last, as its connection is warm. Needs the lock."""
        if self._looking:
            return
        if self._idle:
            self._looking += 1
            self._idle.pop().notify()
        elif not self._threads or (len(self._threads) < self._size and time.monotonic() >= self._no_more_before):
            self._looking += 1
            thread = threading.Thread(target=self._serve, name="floop-gateway-postgres", daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError as error:  # the process may have no more threads
                self._threads.discard(thread)
                self._looking -= 1
                if not self._threads:
                    self._fail(self._queue.take_late(0.0), StoreUnavailable(f"PostgreSQL: {error}"))

    def stop(self) -> None:
        """Finish what is queued, close the connections, and end the threads; the next job starts others."""
        while True:
            with self._lock:
                threads = self._threads - {threading.current_thread()}
                self._stopping = bool(threads)
                self._let_all_look()
            if not threads:
                return
            for thread in threads:
                thread.join()

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
            session, undone = self._do(session, batch)
            with self._lock:
                self._queue.release(batch, undone)
                if is_refused := threading.current_thread() in self._refused:
                    self._leave()
                    self._let_one_look()
                else:
                    self._looking += 1  # before the callers are woken: they may submit another job immediately
            wake(job for group in batch for job in group if job not in undone)
            if is_refused:
                return
        if session is not None:
            session.close()

    def _next(self, turn: threading.Condition) -> Batch:
        """Wait for jobs whose locks no other thread holds, and take them; none at the end."""
        with self._lock:
            while True:
                self._looking -= 1
                batch = self._queue.take()
                if self._queue.has_ready:
                    self._let_one_look()
                if batch:
                    return batch
                if self._stopping and not self._queue:
                    self._leave()
                    self._let_all_look()
                    return []
                self._idle.append(turn)
                turn.wait()

    def _leave(self) -> None:
        """Forget the current thread, which ends. Needs the lock."""
        for threads in (self._threads, self._connected, self._refused):
            threads.discard(threading.current_thread())

    def _do(self, session: Session | None, batch: Batch) -> tuple[Session | None, list[Job[Any]]]:
        """Do jobs; return the connection if it can be used again, and the jobs that were not done, which wait again.

        Their locks were not free, or this thread cannot connect and another can.
        """
        fresh = session is None
        jobs = list(chain.from_iterable(batch))
        try:
            if session is None:
                session = self._connect()
                self._connected.add(threading.current_thread())
                self._no_more_before = 0.0
            busy, others = _call(session, jobs) if all(job.call for job in jobs) else _transact(session, batch)
        except BaseException as error:
            if session is None or session.lost:
                self._connected.discard(threading.current_thread())
                if session is None and self._connected and not isinstance(error, psycopg.errors.ConnectionTimeout):
                    self._do_without(error)
                    return None, jobs
                if session is not None and not (fresh or session.began or isinstance(error, Overdue)):
                    return self._do(None, batch)  # it was closed while idle, for example by a server restart
                self._fail([*jobs, *self._taken(0.0)], error)
                return None, []
            if not session.began or (len(jobs) == 1 and jobs[0].call is None):
                self._fail(jobs, error)  # the job itself failed, or its locks could not be acquired
                return session, []
            return self._singly(session, jobs)
        for job in others:
            job.call = None
        if others:
            session, more = self._do(session, _grouped(others))
            busy += more
        return session, busy

    def _singly(self, session: Session | None, jobs: list[Job[Any]]) -> tuple[Session | None, list[Job[Any]]]:
        """Do each job in a transaction of its own, up to one that loses the connection, with which the rest fails."""
        timed_out = 0
        for place, job in enumerate(jobs):
            if job.error is not None:
                continue  # it has waited for too long while others were done
            job.call = None
            session, undone = self._do(session, [[job]])
            if undone:
                return session, [one for one in jobs[place:] if one.error is None]
            if session is None:
                self._fail(jobs[place + 1 :], job.error or StoreUnavailable("PostgreSQL: the connection was lost"))
                break
            if isinstance(job.error, StoreUnavailable) and isinstance(job.error.__cause__, TIMED_OUT):
                timed_out += 1
                if timed_out > 1:
                    late = [one for one in jobs[place + 1 :] if one.waits_for(self._timeout_s)]
                    self._fail([*late, *self._taken(self._timeout_s)], job.error)
        return session, []

    def _do_without(self, error: BaseException) -> None:
        """Let this thread end, and open no other connection for a while."""
        self._refused.add(threading.current_thread())
        self._no_more_before = time.monotonic() + REFUSED_S
        log.warning("%s; continuing with %d connection(s)", _as_ours(error), len(self._connected))

    def _taken(self, limit_s: float) -> list[Job[Any]]:
        """Take the jobs out of the queue that have waited for so many seconds."""
        with self._lock:
            return self._queue.take_late(limit_s)

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
