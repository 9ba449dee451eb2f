"""The jobs that wait for a connection to PostgreSQL, and which of them may be done together."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from floop_gateway_core.concurrency.replies import Reply
from floop_gateway_core.stores.postgres.calls import ServerCall
from floop_gateway_core.stores.sql.connection import Connection

__all__ = ["Batch", "Job", "JobQueue"]

T = TypeVar("T")
MAX_BATCH = 32
"""The maximum number of jobs in a transaction, so that the first does not wait long for the last."""


@dataclass(slots=True, eq=False)
class Job(Reply[T]):
    """`work` runs in a transaction that holds `locks`; without any it only reads, in a transaction of its own.

    `call` may do the same in one round trip, or say that it cannot.
    """

    work: Callable[[Connection], T]
    locks: tuple[str, ...] = ()
    durable: bool = True
    call: ServerCall[T] | None = None
    since: float = field(default_factory=time.monotonic)

    def do(self, connection: Connection) -> None:
        """Keep the result of the work."""
        self.answer = self.work(connection)

    def waits_for(self, limit_s: float) -> bool:
        """Return whether the caller has waited for so many seconds."""
        return time.monotonic() - self.since >= limit_s


Batch: TypeAlias = list[list[Job[Any]]]
"""Groups of jobs; those of a group have the same locks."""


class JobQueue:
    """Waiting jobs by their locks, and the locks of the jobs that are being done. One thread at a time may use it."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, ...], deque[Job[Any]]] = {}
        self._locked: set[str] = set()
        self._passed_over: set[tuple[str, ...]] = set()

    def __bool__(self) -> bool:
        """Return whether a job waits."""
        return bool(self._waiting)

    @property
    def has_ready(self) -> bool:
        """Return whether a job waits whose locks nobody holds."""
        return any(self._locked.isdisjoint(locks) for locks in self._waiting)

    def add(self, job: Job[Any]) -> bool:
        """Append a job; return whether its locks are free. If not, the thread that holds them will look for the job."""
        self._waiting.setdefault(job.locks, deque()).append(job)
        return self._locked.isdisjoint(job.locks)

    def take(self) -> Batch:
        """Take jobs whose locks nobody holds, and hold them."""
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

    def release(self, batch: Batch, undone: list[Job[Any]]) -> None:
        """Release the locks of a batch.

        Those of its jobs that were not done are the next ones of their queue, alone, so that they wait for their locks.
        """
        for group in batch:
            self._locked.difference_update(group[0].locks)
        for job in reversed(undone):
            self._passed_over.add(job.locks)
            self._waiting.setdefault(job.locks, deque()).appendleft(job)

    def take_late(self, limit_s: float) -> list[Job[Any]]:
        """Take the jobs that have waited for so many seconds."""
        late: list[Job[Any]] = []
        for locks, queue in list(self._waiting.items()):
            while queue and queue[0].waits_for(limit_s):
                late.append(queue.popleft())
            if not queue:
                del self._waiting[locks]
                self._passed_over.discard(locks)
        return late
