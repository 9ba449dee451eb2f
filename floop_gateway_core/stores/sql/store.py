"""A store over SQL: every method, as a read or as a transaction of the row functions.

Each database defines how those run (`_read`, `_write`). A transaction names what it locks, so that a database with
several writers can serialize transactions that touch the same account, window or project; one with a single writer
ignores it.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TypeVar

from floop_gateway_core.errors import NoSuchProject, StoreUnavailable
from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.idempotency import KeptAnswer
from floop_gateway_core.policy.ledger import Account, Command, Outcome
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.policy.summary import GROUP, SummaryRow
from floop_gateway_core.stores.base import (
    DayUsage,
    HoldRequest,
    Posted,
    Posting,
    PostingRefused,
    Settled,
    Settlement,
    WindowLimit,
)
from floop_gateway_core.stores.sql import answers as answer_rows
from floop_gateway_core.stores.sql import audit as audit_rows
from floop_gateway_core.stores.sql import books as book_rows
from floop_gateway_core.stores.sql import ledger as ledger_rows
from floop_gateway_core.stores.sql import named_holds as named_hold_rows
from floop_gateway_core.stores.sql import projects as project_rows
from floop_gateway_core.stores.sql import rollups as rollup_rows
from floop_gateway_core.stores.sql import usage as usage_rows
from floop_gateway_core.stores.sql import windows as window_rows
from floop_gateway_core.stores.sql.connection import Connection
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
from floop_gateway_core.types.amounts import OWN_ACCOUNT, ZERO_CREDITS

__all__ = ["SQLStore"]

T = TypeVar("T")


class SQLStore(ABC):
    """Everything that a store does, except for opening and closing."""

    def __init__(self) -> None:
        self._swept: dict[float, float] = {}

    @abstractmethod
    async def _read(self, work: Callable[[Connection], T], *, consistent: bool = False) -> T:
        """Return the result of a function that only reads; if `consistent`, all its statements see the same state."""

    @abstractmethod
    async def _write(self, work: Callable[[Connection], T], *locks: str, short: bool = False) -> T:
        """Return the result of a function that runs in one transaction, alone among those that share a lock.

        `short` says that it takes microseconds.
        """

    # -- projects and keys -----------------------------------------------------------------------------------------

    async def create_project(
        self,
        project: Project,
        *,
        digest: str,
        credits: Microcredits = ZERO_CREDITS,
        by: str | None = None,
        line: AuditLine | None = None,
    ) -> Project:
        def create(connection: Connection) -> Project:
            project_rows.create(connection, project, digest)
            ledger_rows.grant_credits(
                connection, project.owner, credits, project.created_at, by=by, project_id=project.id
            )
            return project

        return await self._change(create, line, _named(project.name), _account(project.owner))

    async def project(self, name: str) -> Project | None:
        return await self._read(lambda connection: project_rows.by_name(connection, name))

    async def projects(self, *, deleted: bool = False) -> list[Project]:
        return await self._read(partial(project_rows.every, deleted=deleted))

    async def set_project(self, id: ProjectId, settings: ProjectSettings, *, line: AuditLine | None = None) -> Project:
        return await self._change(lambda connection: project_rows.change(connection, id, settings), line, _of(id))

    async def rotate_key(
        self,
        id: ProjectId,
        *,
        digest: str,
        key_prefix: str,
        now: float,
        grace_until: float | None = None,
        line: AuditLine | None = None,
    ) -> Project:
        rotate = partial(project_rows.rotate, id=id, digest=digest, prefix=key_prefix, now=now, grace_until=grace_until)
        return await self._change(rotate, line, _of(id))

    async def suspend(self, id: ProjectId, suspension: Suspension | None, *, line: AuditLine | None = None) -> Project:
        return await self._change(lambda connection: project_rows.suspend(connection, id, suspension), line, _of(id))

    async def delete_project(
        self, id: ProjectId, *, now: float, erase: bool = False, line: AuditLine | None = None
    ) -> None:
        if (project := await self.project(id)) is None:
            raise NoSuchProject(id)
        delete = partial(project_rows.delete, id=id, now=now, erase=erase)
        locks = _of(id), _named(project.name), _account(project.owner), _account(OWN_ACCOUNT + id)
        await self._change(delete, line, *locks)

    async def _change(self, work: Callable[[Connection], T], line: AuditLine | None, *locks: str) -> T:
        """Write with an audit line, which comes first, so that erasing a project finds it."""

        def change(connection: Connection) -> T:
            if line is not None:
                audit_rows.add(connection, line)
            return work(connection)

        return await self._write(change, *locks)

    async def authenticate(self, digest: str, now: float) -> Project | None:
        return await self._read(partial(project_rows.by_digest, digest, now))

    async def audit(self, line: AuditLine) -> None:
        await self._write(lambda connection: audit_rows.add(connection, line), "audit")

    async def audit_lines(
        self, *, before: int | None = None, projects: frozenset[ProjectId] | None = None, limit: int = 100
    ) -> list[AuditLine]:
        return await self._read(partial(audit_rows.lines, before, projects, limit))

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        return await self._write(
            lambda connection: window_rows.acquire(connection, project, limit, now), window_lock(project)
        )

    async def acquire_windows(self, windows: Sequence[WindowLimit], now: float) -> Sequence[RateDecision]:
        def spend(connection: Connection) -> Sequence[RateDecision]:
            for window_s in {window.window_s for window in windows}:
                if abs(now - self._swept.get(window_s, 0.0)) >= window_s:  # once a window, in each process
                    window_rows.sweep(connection, window_s, now)
                    self._swept[window_s] = now
            return window_rows.acquire_windows(connection, windows, now)

        return await self._write(spend, *{window_lock(f"every {window.window_s}") for window in windows})

    # -- both holds of a request -----------------------------------------------------------------------------------

    async def kept_answer(self, project: ProjectId, key: str, now: float) -> KeptAnswer | None:
        return await self._read(partial(answer_rows.kept, project, key, now))

    async def hold(self, request: HoldRequest) -> Held | HoldRefused:
        return await self._write(partial(ledger_rows.hold, request=request), *hold_locks(request), short=True)

    async def settle(self, settlement: Settlement) -> Settled:
        settle = partial(ledger_rows.settle, settlement=settlement)
        return await self._write(settle, *settlement_locks(settlement), short=True)

    async def log(self, record: UsageRecord) -> None:
        def save(connection: Connection) -> None:
            rollup_rows.take_out(connection, record.request_id)
            usage_rows.save_record(connection, record)

        await self._write(save, f"request {record.request_id}")

    async def expire(self, now: float) -> int:
        expired = 0
        for owner in await self._read(partial(ledger_rows.payers_of_expired, now)):
            expired += await self._write(partial(ledger_rows.expire, owner=owner, now=now), _account(owner))
        return expired

    async def prune(self, *, before: float, day: int, now: float, limit: int) -> int:
        def prune(connection: Connection) -> int:
            rollup_rows.roll_up(before + rollup_rows.SETTLE_S, limit, connection)  # only what is added up is deleted
            return ledger_rows.prune(connection, before, day, now, limit)

        return await self._write(prune, "sums")

    # -- named holds -----------------------------------------------------------------------------------------------

    async def apply_named_hold(
        self, id: str, owner: str | None, command: Command, *, now: float, expires_at: float
    ) -> Outcome:
        account = owner if owner is not None else await self._read(partial(named_hold_rows.payer_of, id))

        def apply(connection: Connection) -> Outcome:
            if owner is None and named_hold_rows.payer_of(id, connection) != account:
                raise StoreUnavailable("the hold's account was renamed during the call; try again")
            return named_hold_rows.apply(connection, id, owner, command, now=now, expires_at=expires_at)

        return await self._write(apply, f"hold {id}", *(() if account is None else (_account(account),)))

    async def expire_named_holds(self, now: float) -> int:
        expired = 0
        for owner in await self._read(partial(named_hold_rows.payers_of_expired, now)):
            expired += await self._write(partial(named_hold_rows.expire, owner=owner, now=now), _account(owner))
        return expired

    # -- accounts and the log --------------------------------------------------------------------------------------

    async def grant_credits(self, owner: str, amount: Microcredits, now: float) -> Account:
        grant = partial(ledger_rows.grant_credits, owner=owner, amount=amount, now=now)
        return await self._write(grant, _account(owner))

    async def post(self, posting: Posting) -> Posted | PostingRefused:
        return await self._write(lambda connection: book_rows.post(connection, posting), _account(posting.owner))

    async def payer(self, request_id: RequestId) -> str | None:
        return await self._read(partial(book_rows.payer, request_id))

    async def entries(
        self, owner: str, *, after: int = 0, since: float | None = None, until: float | None = None, limit: int = 1000
    ) -> list[Entry]:
        return await self._read(partial(book_rows.entries, owner, after, since, until, limit))

    async def carry(self, *, before: float, limit: int) -> int:
        carried = await self._write(partial(rollup_rows.prune, before=before, limit=limit), "sums")
        for owner in await self._read(partial(book_rows.owners_with_entries_before, before)):
            if carried < limit:
                carry = partial(book_rows.carry, owner=owner, before=before, limit=limit - carried)
                carried += await self._write(carry, _account(owner))
        return carried

    async def accounts(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, Account]]:
        return await self._read(partial(book_rows.accounts, after, limit))

    async def record(self, request_id: RequestId) -> UsageRecord | None:
        return await self._read(partial(usage_rows.record, request_id))

    async def roll_up(self, now: float, *, limit: int) -> int:
        return await self._write(partial(rollup_rows.roll_up, now, limit), "sums")

    async def summary(self, wanted: UsageFilter, span: int, by: Sequence[str] = GROUP) -> list[SummaryRow]:
        return await self._read(partial(rollup_rows.summary, wanted, span, by), consistent=True)

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


def _account(owner: str) -> str:
    return f"account {owner}"


def _days(project: ProjectId) -> str:
    return f"days {project}"


def _of(project: ProjectId) -> str:
    return f"project {project}"


def _named(name: str) -> str:
    return f"name {name}"


def window_lock(key: str) -> str:
    """Return the lock of a window."""
    return f"window {key}"


def hold_locks(request: HoldRequest) -> tuple[str, ...]:
    """Return the locks of both holds of a request."""
    return _account(request.owner), _days(request.record.project_id)


def settlement_locks(settlement: Settlement) -> tuple[str, ...]:
    """Return the locks of a settlement. If the project is deleted meanwhile, its own account goes by its id."""
    project_id, owner = settlement.record.project_id, settlement.owner
    owners = {owner, OWN_ACCOUNT + project_id if owner.startswith(OWN_ACCOUNT) else owner}
    return (*map(_account, sorted(owners)), _days(project_id))
