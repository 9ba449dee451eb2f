"""Everything in this process's memory, for tests and single-process use. It is lost at exit; the log is bounded.

It is safe to use from any number of event loops and threads of one process. Several processes would each count
separately, so a process that detects that it is one of several workers logs a warning.
"""

import logging
import math
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import islice

from floop_gateway_core.policy import holds, ledger
from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.budget import DayBudget
from floop_gateway_core.policy.holds import RequestHold, RequestHolds
from floop_gateway_core.policy.idempotency import KeptAnswer
from floop_gateway_core.policy.ledger import Account, Command, Hold, Outcome, Place, Unknown
from floop_gateway_core.policy.rate_window import RateDecision, RateLimiter
from floop_gateway_core.policy.summary import GROUP, SummaryRow, sums_of
from floop_gateway_core.stores.base import (
    DayUsage,
    HoldRequest,
    KeyAdmitted,
    NoSuchProject,
    Posted,
    Posting,
    PostingRefused,
    ProjectExists,
    Settled,
    Settlement,
    WindowLimit,
    rate_limit,
)
from floop_gateway_core.stores.memory_answers import Answers
from floop_gateway_core.stores.memory_books import Books
from floop_gateway_core.stores.worker_detection import is_one_of_several_workers
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

__all__ = ["MemoryStore"]

log = logging.getLogger("floop_gateway")

MAX_RECORDS = 100_000


@dataclass(frozen=True, slots=True)
class _NamedHold:
    owner: str
    hold: Hold
    expires_at: float


@dataclass(frozen=True, slots=True)
class _OpenHold:
    hold: RequestHold
    request: HoldRequest


class MemoryStore:
    """Keeps everything in memory; `max_records` bounds the usage log, whose oldest records are dropped."""

    def __init__(self, *, max_records: int = MAX_RECORDS) -> None:
        self._lock = threading.Lock()
        self._looked_pid: int | None = None
        self._max_records = max_records
        self._projects: dict[ProjectId, Project] = {}
        self._ids: dict[str, ProjectId] = {}  # by name
        self._keys: dict[str, tuple[ProjectId, float]] = {}  # by digest, and until when
        self._limiter = RateLimiter(1)
        self._own_limiters: dict[float, RateLimiter] = {}  # by their windows
        self._books = Books(max_records)
        self._accounts = self._books.accounts
        self._audits = 0
        self._deleted: deque[Project] = deque(maxlen=max_records)
        self._audit: deque[AuditLine] = deque(maxlen=max_records)
        self._days: dict[tuple[ProjectId, int], DayBudget] = {}
        self._open: dict[RequestId, _OpenHold] = {}
        self._expiries: list[tuple[float, RequestId]] = []  # a heap; entries of settled requests are dropped when met
        self._named: dict[str, _NamedHold] = {}
        self._settled: dict[RequestId, tuple[Hold, UsageRecord]] = {}  # in the order of settling
        self._answers = Answers()

    async def setup(self) -> None:
        self._look_for_siblings()

    async def aclose(self) -> None: ...

    async def create_project(
        self,
        project: Project,
        *,
        digest: str,
        credits: Microcredits = ZERO_CREDITS,
        by: str | None = None,
        line: AuditLine | None = None,
    ) -> Project:
        with self._lock:
            if project.name in self._ids:
                raise ProjectExists(project.name)
            self._projects[project.id], self._ids[project.name] = project, project.id
            self._grant(project.owner, credits, project.created_at, by, project.id)
            self._keys[digest] = project.id, math.inf
            self._keep(line)
            return project

    async def project(self, name: str) -> Project | None:
        with self._lock:
            return self._projects.get(self._ids.get(name, ProjectId(name)))

    async def projects(self, *, deleted: bool = False) -> list[Project]:
        with self._lock:
            every = [*self._projects.values(), *(self._deleted if deleted else ())]
            return sorted(every, key=lambda project: (project.name, project.id))

    async def set_project(self, id: ProjectId, settings: ProjectSettings, *, line: AuditLine | None = None) -> Project:
        with self._lock:
            return self._change(id, line, settings=settings)

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
        with self._lock:
            project = self._change(id, line, key_prefix=key_prefix, key_created_at=now)
            for old, (owner, until) in list(self._keys.items()):
                if owner == id and until == math.inf and grace_until is not None:
                    self._keys[old] = id, grace_until
                elif owner == id:
                    del self._keys[old]
            self._keys[digest] = id, math.inf
            return project

    async def suspend(self, id: ProjectId, suspension: Suspension | None, *, line: AuditLine | None = None) -> Project:
        with self._lock:
            return self._change(id, line, suspension=suspension)

    async def delete_project(
        self, id: ProjectId, *, now: float, erase: bool = False, line: AuditLine | None = None
    ) -> None:
        with self._lock:
            if id not in self._projects:
                raise NoSuchProject(id)
            self._keep(line)
            project = self._projects.pop(id)
            del self._ids[project.name]
            own = project.owner == OWN_ACCOUNT + project.name
            gone = replace(
                project, name=id if erase else project.name, key_prefix="", key_created_at=project.created_at
            )
            self._deleted.append(replace(gone, owner=OWN_ACCOUNT + id) if own else gone)
            self._keys = {digest: key for digest, key in self._keys.items() if key[0] != id}
            self._answers.drop(id)
            if erase:
                self._erase(id)
            if own:
                self._rename_account(project.owner, OWN_ACCOUNT + id)
                self._books.close(OWN_ACCOUNT + id, now, id, self._deleted_by(id))

    def _erase(self, id: ProjectId) -> None:
        """Replace a project's name by its id in records and audit lines."""
        for request_id, (hold, record) in self._settled.items():
            if record.project_id == id:
                self._settled[request_id] = hold, replace(record, project=id)
        lines = [replace(line, project=id) if line.project_id == id else line for line in self._audit]
        self._audit = deque(lines, self._audit.maxlen)

    def _rename_account(self, old: str, new: str) -> None:
        """Give an account another owner, for the requests and other holds on it too."""
        self._books.rename(old, new)
        for request_id, one in self._open.items():
            if one.request.owner == old:
                self._open[request_id] = replace(one, request=replace(one.request, owner=new))
        for name, named in self._named.items():
            if named.owner == old:
                self._named[name] = replace(named, owner=new)

    def _change(self, id: ProjectId, line: AuditLine | None, /, **changes: object) -> Project:
        """Replace fields of a project, and keep the line of the change; the caller holds the lock."""
        if id not in self._projects:
            raise NoSuchProject(id)
        self._projects[id] = project = replace(self._projects[id], **changes)  # type: ignore[arg-type]
        self._keep(line)
        return project

    async def authenticate(self, digest: str, now: float) -> Project | None:
        with self._lock:
            id, until = self._keys.get(digest, (None, 0.0))
            return None if id is None or until <= now else self._projects[id]

    async def audit(self, line: AuditLine) -> None:
        with self._lock:
            self._keep(line)

    def _keep(self, line: AuditLine | None) -> None:
        if line is not None:
            self._audits += 1
            self._audit.append(replace(line, number=self._audits))

    def _deleted_by(self, id: ProjectId) -> str | None:
        found = (line.by for line in reversed(self._audit) if line.project_id == id and line.what == "delete")
        return next(found, None)

    async def audit_lines(
        self, *, before: int | None = None, projects: frozenset[ProjectId] | None = None, limit: int = 100
    ) -> list[AuditLine]:
        with self._lock:
            wanted = (
                line
                for line in reversed(self._audit)
                if (before is None or line.number < before) and (projects is None or line.project_id in projects)
            )
            return list(islice(wanted, limit))

    def _look_for_siblings(self) -> None:
        """Once per process, so again in each child of a fork."""
        if self._looked_pid != (pid := os.getpid()):
            self._looked_pid = pid
            if is_one_of_several_workers():
                log.warning(
                    "the store is memory:// and this process is one of several workers: each has projects, limits and "
                    "balances of its own; use sqlite:/// to share them"
                )

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        self._look_for_siblings()
        with self._lock:
            return self._limiter.acquire(project, now, limit=limit)

    async def acquire_windows(self, windows: Sequence[WindowLimit], now: float) -> Sequence[RateDecision]:
        self._look_for_siblings()
        with self._lock:
            decisions = [self._own_window(window, now, spends=False) for window in windows]
            if all(decision.allowed for decision in decisions):
                decisions = [self._own_window(window, now, spends=True) for window in windows]
            return decisions

    def _own_window(self, window: WindowLimit, now: float, *, spends: bool) -> RateDecision:
        limiter = self._own_limiters.setdefault(window.window_s, RateLimiter(1, window.window_s))
        return limiter.acquire(window.key, now, limit=window.limit, spends=spends, cost=window.cost)

    async def authenticate_and_acquire(self, digest: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        project = await self.authenticate(digest, now)
        if project is None:
            return None
        if project.suspension is not None:
            return KeyAdmitted(project, None)
        return KeyAdmitted(project, await self.acquire(project.id, rate_limit(project, limits), now))

    async def hold(self, request: HoldRequest) -> Held | HoldRefused:
        record = request.record
        await self.expire(request.now)
        with self._lock:
            if (taken := self._answers.taken(request)) is not None:
                return taken
            key = record.project_id, request.day
            budget = self._days.get(key, DayBudget(request.budget_tokens))
            if budget.limit != request.budget_tokens:
                budget = replace(budget, limit=request.budget_tokens)
            after, granted = holds.place(
                RequestHolds(self._accounts.get(request.owner, Account()), budget, self._hold_of(record.request_id)),
                request.estimate,
            )
            if isinstance(granted, Held) and after.hold is not None:
                self._accounts[request.owner], self._days[key] = after.account, after.budget
                if record.request_id not in self._open:
                    self._open[record.request_id] = _OpenHold(after.hold, request)
                    heappush(self._expiries, (request.expires_at, record.request_id))
                self._answers.claim(request)
            return granted

    async def kept_answer(self, project: ProjectId, key: str, now: float) -> KeptAnswer | None:
        with self._lock:
            return self._answers.kept(project, key, now)

    def _hold_of(self, request_id: RequestId) -> RequestHold | None:
        if request_id in self._open:
            return self._open[request_id].hold
        return RequestHold(self._settled[request_id][0]) if request_id in self._settled else None

    async def settle(self, settlement: Settlement) -> Settled:
        with self._lock:
            return self._settle(settlement, lambda before: holds.settle(before, settlement.charge, settlement.tokens))

    def _settle(self, settlement: Settlement, resolve: Callable[[RequestHolds], RequestHolds]) -> Settled:
        record = settlement.record
        key = record.project_id, settlement.day
        known = self._open.get(record.request_id)
        # A project that was deleted meanwhile has given its account another name: the hold knows who pays.
        owner = settlement.owner if known is None else known.request.owner
        before = RequestHolds(
            self._accounts.get(owner, Account()),
            self._days.get(key, DayBudget(0)),
            self._hold_of(record.request_id),
        )
        after = resolve(before)
        if after.hold is None:
            raise AssertionError("settling always leaves a hold or its mark")
        if before.hold is None or after.hold.credits != before.hold.credits:
            self._open.pop(record.request_id, None)
            charged = after.hold.credits.charged
            if record.microcredits != charged:
                record = replace(record, microcredits=charged)
            self._settled[record.request_id] = after.hold.credits, record
            self._accounts[owner] = after.account
            self._days[key] = after.budget
            if before.hold is not None:
                self._books.enter_capture(
                    owner, after.hold.credits, settlement.now, record.request_id, record.project_id
                )
            if owner != settlement.owner:
                self._books.close(owner, settlement.now, record.project_id, self._deleted_by(record.project_id))
            self._answers.settle(settlement, Settled(after.hold.credits, after.account))
            self._bound_log()
        return Settled(after.hold.credits, after.account, after.budget.used)

    def _bound_log(self) -> None:
        while len(self._settled) > self._max_records:
            del self._settled[next(iter(self._settled))]

    async def log(self, record: UsageRecord) -> None:
        with self._lock:
            self._settled[record.request_id] = Hold(ledger.ZERO, "voided"), record
            self._bound_log()

    async def expire(self, now: float) -> int:
        with self._lock:
            over: list[HoldRequest] = []
            while self._expiries and (self._expiries[0][0] <= now or self._expiries[0][1] not in self._open):
                _, id = heappop(self._expiries)
                if id in self._open:
                    over.append(self._open[id].request)
            for request in over:
                lost = replace(request.record, ending="lost", settled_at=now)
                self._settle(Settlement(lost, request.owner, request.day, now, claim=request.claim), holds.expire)
            return len(over)

    async def prune(self, *, before: float, day: int, now: float, limit: int) -> int:
        with self._lock:
            self._answers.prune(now)
            old = [id for id, (_, record) in self._settled.items() if (record.settled_at or record.started_at) < before]
            for id in old[:limit]:
                del self._settled[id]
            return len(old[:limit])

    async def apply_named_hold(
        self, id: str, owner: str | None, command: Command, *, now: float, expires_at: float
    ) -> Outcome:
        with self._lock:
            self._expire_named(now)
            known = self._named.get(id)
            if known is None and owner is None:
                return Unknown()
            if (
                known is not None
                and isinstance(command, Place)
                and (owner, command.amount) != (known.owner, known.hold.amount)
            ):
                raise ValueError(f"hold {id!r} already exists for another account or amount")
            payer, until = (owner or "", expires_at) if known is None else (known.owner, known.expires_at)
            before = self._accounts.get(payer, Account())
            after, hold, outcome = ledger.apply(before, None if known is None else known.hold, command)
            if hold is not None and (known is None or hold != known.hold):
                self._accounts[payer], self._named[id] = after, _NamedHold(payer, hold, until)
                self._books.enter_capture(payer, hold, now, None, None)
            return outcome

    async def expire_named_holds(self, now: float) -> int:
        with self._lock:
            return self._expire_named(now)

    def _expire_named(self, now: float) -> int:
        expired = [(id, one) for id, one in self._named.items() if one.hold.state == "open" and one.expires_at <= now]
        for id, one in expired:
            self._accounts[one.owner], hold, _ = ledger.apply(self._accounts[one.owner], one.hold, ledger.Expire())
            if hold is not None:
                self._named[id] = replace(one, hold=hold)
        return len(expired)

    async def grant_credits(self, owner: str, amount: Microcredits, now: float) -> Account:
        with self._lock:
            return self._grant(owner, amount, now)

    def _grant(
        self, owner: str, amount: Microcredits, now: float, by: str | None = None, project: ProjectId | None = None
    ) -> Account:
        before = self._accounts.get(owner, Account())
        self._accounts[owner], _, _ = ledger.apply(before, None, ledger.Grant(amount))
        if amount:
            self._books.enter(owner, "grant", amount, now, by=by, project_id=project)
        return self._accounts[owner]

    async def post(self, posting: Posting) -> Posted | PostingRefused:
        with self._lock:
            posted = self._books.post(posting)
            if isinstance(posted, Posted) and not posted.repeated:
                self._keep(posting.line)
            return posted

    async def payer(self, request_id: RequestId) -> str | None:
        with self._lock:
            return self._books.payer(request_id)

    async def entries(
        self, owner: str, *, after: int = 0, since: float | None = None, until: float | None = None, limit: int = 1000
    ) -> list[Entry]:
        with self._lock:
            return self._books.entries(owner, after, since, until, limit)

    async def carry(self, *, before: float, limit: int) -> int:
        with self._lock:
            return self._books.carry(before, limit)

    async def accounts(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, Account]]:
        with self._lock:
            return [(owner, self._accounts[owner]) for owner in sorted(self._accounts) if owner > after][:limit]

    async def record(self, request_id: RequestId) -> UsageRecord | None:
        with self._lock:
            found = self._settled.get(request_id)
            return None if found is None else found[1]

    async def roll_up(self, now: float, *, limit: int) -> int:
        return 0

    async def summary(self, wanted: UsageFilter, span: int, by: Sequence[str] = GROUP) -> list[SummaryRow]:
        with self._lock:
            records = [record for _, record in self._settled.values() if wanted.matches(record)]
        return sums_of(records, span, by)

    async def usage_page(
        self, wanted: UsageFilter, *, after: tuple[float, str] | None, newest_first: bool, limit: int
    ) -> list[UsageRecord]:
        with self._lock:
            records = [record for _, record in self._settled.values() if wanted.matches(record)]

        def place(record: UsageRecord) -> tuple[float, str]:
            return record.settled_at or 0.0, record.request_id

        records.sort(key=place, reverse=newest_first)
        if after is not None:
            records = [one for one in records if (place(one) < after if newest_first else place(one) > after)]
        return records[:limit]

    async def account(self, owner: str) -> Account | None:
        return self._accounts.get(owner)

    async def day(self, project: ProjectId, day: int) -> DayUsage:
        budget = self._days.get((project, day), DayBudget(0))
        return DayUsage(budget.used, budget.held)

    async def usage(self, project: str | None = None, since: float | None = None) -> AsyncIterator[UsageRecord]:
        with self._lock:
            records = [record for _, record in self._settled.values()]
        for record in sorted(records, key=lambda record: (record.started_at, record.request_id)):
            if project in (None, record.project_id, record.project) and (since is None or record.started_at >= since):
                yield record
