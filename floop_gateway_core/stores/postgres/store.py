"""Everything in PostgreSQL, for many processes on many machines.

Each call is one transaction. Transactions that touch the same account, window or project take turns, using a lock that
the server releases with the transaction; others do not wait for them. Commits are durable, except for rate windows: if
the server crashes, their last moments may be lost.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar, cast

import anyio.to_thread

from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.stores.base import HoldRequest, KeyAdmitted, Settled, Settlement, rate_limit
from floop_gateway_core.stores.postgres import calls
from floop_gateway_core.stores.postgres.calls import ServerCall
from floop_gateway_core.stores.postgres.jobs import Job
from floop_gateway_core.stores.postgres.migrations import migrate
from floop_gateway_core.stores.postgres.session import Session
from floop_gateway_core.stores.postgres.urls import without_our_parameters
from floop_gateway_core.stores.postgres.workers import Workers
from floop_gateway_core.stores.sql import ledger, windows
from floop_gateway_core.stores.sql.connection import Connection
from floop_gateway_core.stores.sql.store import SQLStore, hold_locks, settlement_locks, window_lock
from floop_gateway_core.types import Project, ProjectId

__all__ = ["PostgresStore"]

T = TypeVar("T")
KEY_SEEN_S = 1.0
"""How long a key is cached; the contract allows the same delay for changes."""
MAX_KEYS_SEEN = 10_000


class PostgresStore(SQLStore):
    """`url` is a libpq URL (`postgresql://…`) with one additional parameter: `pgbouncer=true`, for transaction poolers.

    `timeout_s` is how long a call may take; `connections` is how many there are at most in each process.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0, connections: int = 4) -> None:
        super().__init__()
        self._conninfo, pooled = without_our_parameters(url)
        self._timeout_s = timeout_s
        self._ready = False
        self._pooled = pooled
        self._workers = Workers(self._connect, connections, timeout_s)
        self._keys: dict[str, tuple[float, Project]] = {}

    def _connect(self) -> Session:
        if not self._ready:
            migrate(self._conninfo, self._timeout_s)
            self._ready = True
        return Session(self._conninfo, self._timeout_s, pooled=self._pooled)

    async def _read(self, work: Callable[[Connection], T], *, consistent: bool = False) -> T:
        return cast(T, await self._workers.run(Job(partial(_at_once, work) if consistent else work)))

    async def _write(self, work: Callable[[Connection], T], *locks: str, short: bool = False) -> T:
        durable = not locks[0].startswith(("window ", "every "))
        if locks[0].startswith(("project ", "name ")):
            self._keys.clear()
        return cast(T, await self._workers.run(Job(work, locks, durable)))

    async def setup(self) -> None:
        """See `Store.setup`."""
        await self._read(lambda _: None)

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        await anyio.to_thread.run_sync(self._workers.stop)

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        """See `Store.acquire`."""
        work = partial(windows.acquire, project=project, limit=limit, now=now)
        return await self._call(work, (window_lock(project),), calls.spend(project, limit, now), durable=False)

    async def hold(self, request: HoldRequest) -> Held | HoldRefused:
        """See `LedgerStore.hold`."""
        return await self._call(partial(ledger.hold, request=request), hold_locks(request), calls.hold(request))

    async def settle(self, settlement: Settlement) -> Settled:
        """See `LedgerStore.settle`."""
        work = partial(ledger.settle, settlement=settlement)
        return await self._call(work, settlement_locks(settlement), calls.settle(settlement))

    async def _call(
        self,
        work: Callable[[Connection], T],
        locks: tuple[str, ...],
        call: ServerCall[T] | None,
        *,
        durable: bool = True,
    ) -> T:
        return cast(T, await self._workers.run(Job(work, locks, durable, call)))

    async def authenticate_and_acquire(self, digest: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        """See `Store.authenticate_and_acquire`; a key that was seen a moment ago is not looked up again."""
        if (project := await self._seen(digest, now)) is None:
            return None
        if project.suspension is not None:
            return KeyAdmitted(project, None)
        return KeyAdmitted(project, await self.acquire(project.id, rate_limit(project, limits), now))

    async def _seen(self, digest: str, now: float) -> Project | None:
        if (seen := self._keys.get(digest)) is not None and time.monotonic() < seen[0]:
            return seen[1]
        if (project := await self.authenticate(digest, now)) is not None:
            if len(self._keys) >= MAX_KEYS_SEEN:
                self._keys.clear()
            self._keys[digest] = time.monotonic() + KEY_SEEN_S, project
        return project


def _at_once(work: Callable[[Connection], T], connection: Connection) -> T:
    """Read from one snapshot."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    return work(connection)
