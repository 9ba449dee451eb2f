"""The protocols of a store: commands, each one transaction or one round trip, never CRUD.

A host may pass them separately or as one `Store`:

    ProjectStore   projects, their settings, their keys' digests
    RateStore      the moving window of each project
    BookStore      grants, debits, refunds, statements, and the log as pages
    LedgerStore    daily budgets, accounts, holds, and the usage log, which are settled together

Stores exchange facts: no call runs a caller's code inside a transaction, and no store writes a message for a client. The
decisions are `policy`'s: a store loads, calls `rate_window.decide`, `holds.place` and `ledger.apply`, and saves, all in
one transaction. `floop_gateway_core.testing` ships the suite that every store must pass.

A store that cannot answer raises `StoreUnavailable`, which the client sees as 503; anything else it raises is a 500.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from floop_gateway_core.errors import NoSuchProject, ProjectExists, StoreUnavailable
from floop_gateway_core.policy.admission import Held, HoldEstimate, HoldRefused
from floop_gateway_core.policy.idempotency import Claim, KeptAnswer
from floop_gateway_core.policy.ledger import Account, Command, Hold, Outcome
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.policy.summary import GROUP, SummaryRow
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
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = [
    "BookStore",
    "DayUsage",
    "HoldRequest",
    "KeyAdmitted",
    "LedgerStore",
    "NamedHoldStore",
    "NoSuchProject",
    "Posted",
    "Posting",
    "PostingRefused",
    "ProjectExists",
    "ProjectStore",
    "RateStore",
    "Settled",
    "Settlement",
    "Store",
    "StoreUnavailable",
    "WindowLimit",
    "WindowStore",
    "rate_limit",
]


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Both holds of one request, identified by its id, and its record, which exists from now on.

    `day` is the UTC day key and `budget_tokens` the day's limit at admission. The hold expires at `expires_at` (epoch
    seconds), which no living request reaches; holds on the same account that have expired by `now` are voided first.
    """

    record: UsageRecord
    owner: str
    day: int
    budget_tokens: int
    estimate: HoldEstimate
    now: float
    expires_at: float
    claim: Claim | None = None
    """An idempotency key to claim with the holds."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one request: what both holds are resolved with, and its finished record.

    `charge` is None to void. `tokens` is what the day's budget captures. The store saves the record with
    the amount that was really charged as its `microcredits`.
    """

    record: UsageRecord
    owner: str
    day: int
    now: float
    charge: Microcredits | None = None
    tokens: int = 0
    claim: Claim | None = None
    """The idempotency key that was claimed with the holds."""
    answer: bytes | None = None
    """What is kept for the key; None frees it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The state of the hold after this settlement, or an earlier one with the same id, and the account after it.

    `day_tokens` is what the project has now used of its daily tokens, or None if the store does not report it.
    """

    hold: Hold
    account: Account
    day_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class KeyAdmitted:
    """A known key: its project, and what the project's rate says.

    The decision is None for a suspended project, which spends nothing, or if the rate store is unavailable and requests
    pass uncounted.
    """

    project: Project
    decision: RateDecision | None


class DayUsage(NamedTuple):
    """The tokens of a project's UTC day: captured, and set aside by requests that are running."""

    used: int
    held: int


def rate_limit(project: Project, limits: Mapping[str, int]) -> int:
    """Return the project's requests per minute: its own, else its plan's, else those of the plan `default`."""
    return project.settings.requests_per_minute or limits.get(project.settings.plan) or limits["default"]


class ProjectStore(Protocol):
    """Projects, their settings, and the digests of their keys.

    A change keeps its audit `line` in the same transaction, so neither exists without the other.
    """

    async def create_project(
        self,
        project: Project,
        *,
        digest: str,
        credits: Microcredits = ZERO_CREDITS,
        by: str | None = None,
        line: AuditLine | None = None,
    ) -> Project:
        """Keep a new project with its one active key, and add `credits` to its owner's account; `by` grants them.

        Raises `ProjectExists` if its name is taken.
        """

    async def project(self, name: str) -> Project | None:
        """Return the project of this name, else of this id, or None."""

    async def projects(self, *, deleted: bool = False) -> list[Project]:
        """Return all projects, ordered by name; if `deleted`, those that were deleted too."""

    async def set_project(self, id: ProjectId, settings: ProjectSettings, *, line: AuditLine | None = None) -> Project:
        """Replace the settings; raise `NoSuchProject`."""

    async def suspend(self, id: ProjectId, suspension: Suspension | None, *, line: AuditLine | None = None) -> Project:
        """Suspend a project, or resume it; raise `NoSuchProject`."""

    async def delete_project(
        self, id: ProjectId, *, now: float, erase: bool = False, line: AuditLine | None = None
    ) -> None:
        """Delete a project: its name is free, its keys are dead. Raises `NoSuchProject`.

        Its own account (`project:NAME`) continues as `project:ID` until its last hold ends; an owner's account stays
        open. `erase` also replaces the project's name with the id in its records and audit lines.
        """

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
        """Replace the active key by a new one, in one transaction; raise `NoSuchProject`.

        The old key is accepted until `grace_until`; one that an earlier rotation left in grace is not.
        """

    async def authenticate(self, digest: str, now: float) -> Project | None:
        """Return the project that a key with this digest opens; a change is seen within one second."""

    async def audit(self, line: AuditLine) -> None:
        """Save an audit line of a change that is not the store's; the store assigns its `number`."""

    async def audit_lines(
        self, *, before: int | None = None, projects: frozenset[ProjectId] | None = None, limit: int = 100
    ) -> list[AuditLine]:
        """Return audit lines with numbers below `before`, newest first; those of `projects` alone if that is given."""


class RateStore(Protocol):
    """The moving minute of each project."""

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        """Spend one request of the project's moving minute, or refuse; atomic over all processes on the store."""


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """One of a host's own limits, for one of its callers: `limit` requests in any `window_s` seconds.

    The request at hand counts as `cost` of them.
    """

    key: str
    limit: int
    window_s: float
    cost: int = 1


class WindowStore(Protocol):
    """Any moving windows of a host's own, apart from those of projects."""

    async def acquire_windows(self, windows: Sequence[WindowLimit], now: float) -> Sequence[RateDecision]:
        """Spend one request of every window, or of none if one of them refuses; atomic like `acquire`."""


@dataclass(frozen=True, slots=True)
class Posting:
    """A grant, debit or refund to make. `id` is chosen by the caller; if it is repeated, only the first posting counts.

    `amount` is more than 0 for every kind. A refund names its request; with `takes_rest`, it takes what is left of the
    amount. `line` is kept with the entry.
    """

    kind: Literal["grant", "debit", "refund"]
    owner: str
    amount: Microcredits
    now: float
    id: str | None = None
    request_id: RequestId | None = None
    project_id: ProjectId | None = None
    by: str | None = None
    note: str | None = None
    line: AuditLine | None = None
    takes_rest: bool = False

    def of_rest(self, left: Microcredits) -> "Posting":
        """Return the posting with the amount that it takes if so much is left."""
        return replace(self, amount=min(self.amount, left)) if self.takes_rest and left else self

    def is_repeated_by(self, entry: Entry) -> bool:
        """Return whether an entry with the same id is this posting's."""
        same_amount = self.takes_rest or abs(entry.amount) == self.amount
        return entry.kind == self.kind and same_amount


@dataclass(frozen=True, slots=True)
class Posted:
    """The entry, and the account after it: as they were the first time if the posting was `repeated`."""

    entry: Entry
    account: Account
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class PostingRefused:
    """Nothing changed. `left` is what may still be debited, refunded or granted; None if the id is another posting's."""

    left: Microcredits | None = None


class BookStore(Protocol):
    """The entries of accounts: every movement of money, with who and why."""

    async def post(self, posting: Posting) -> Posted | PostingRefused:
        """Make a posting, in one transaction. A debit takes at most what is available.

        A refund takes at most what the request was charged and was not refunded.
        """

    async def entries(
        self, owner: str, *, after: int = 0, since: float | None = None, until: float | None = None, limit: int = 1000
    ) -> list[Entry]:
        """Return an account's entries with numbers above `after`, oldest first."""

    async def carry(self, *, before: float, limit: int) -> int:
        """Replace about `limit` entries from before a time with one `carried` entry per account that has their sum.

        Sums of the log from before that time are deleted with them. Return how many rows were replaced or deleted. Ids of
        postings stay known.
        """

    async def payer(self, request_id: RequestId) -> str | None:
        """Return the owner of the account that a request was charged to; None if it was charged nothing."""

    async def accounts(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, Account]]:
        """Return owners after a name, with their accounts, ordered by name."""

    async def record(self, request_id: RequestId) -> UsageRecord | None:
        """Return a finished record."""

    async def roll_up(self, now: float, *, limit: int) -> int:
        """Add up to `limit` records that do not change any more to the store's own sums; return how many there were.

        A store that keeps no sums returns 0. Records that were not added are never pruned.
        """

    async def summary(self, wanted: UsageFilter, span: int, by: Sequence[str] = GROUP) -> list[SummaryRow]:
        """Return the sums of the wanted records by some of `policy.summary.GROUP`; their keys are in the order of `by`.

        A `start` is that of a span of at most `span` seconds, which is `HOUR_S` or `DAY_S`. A group may have several rows.
        """

    async def usage_page(
        self, wanted: UsageFilter, *, after: tuple[float, str] | None, newest_first: bool, limit: int
    ) -> list[UsageRecord]:
        """Return the next finished records in the order of (`settled_at`, `request_id`), or against it."""


class LedgerStore(BookStore, Protocol):
    """Budgets, accounts, holds and the usage log."""

    async def hold(self, request: HoldRequest) -> Held | HoldRefused:
        """Place both holds, claim the idempotency key and write the record, or do none of it.

        Repeated, return the first answer. An id that was settled before its hold arrived is `AlreadySettled`.
        """

    async def kept_answer(self, project: ProjectId, key: str, now: float) -> KeptAnswer | None:
        """Return what there is for an idempotency key; None if it is free, or its request has died."""

    async def settle(self, settlement: Settlement) -> Settled:
        """Resolve both holds and finish the record, exactly once; repeated, change nothing.

        A capture after the hold has expired is charged all the same, and its record replaces the one that says `lost`.

        For an unknown id (a refusal before any hold, or a hold that has not arrived yet) it writes the record and a
        mark, so that a late hold is refused.
        """

    async def log(self, record: UsageRecord) -> None:
        """Write a finished record of a request that never had a hold, or replace an earlier version of it."""

    async def expire(self, now: float) -> int:
        """Void the holds that have expired, end their records as `lost`, and return how many there were.

        The idempotency keys that they have claimed are free again.
        """

    async def prune(self, *, before: float, day: int, now: float, limit: int) -> int:
        """Delete up to `limit` records settled before a moment, and holds resolved before a UTC day; return how many.

        Answers whose day is over by `now` are deleted too. What is unfinished is kept. Times are epoch seconds.
        """

    async def grant_credits(self, owner: str, amount: Microcredits, now: float) -> Account:
        """Add to an owner's account, creating it if needed."""

    async def account(self, owner: str) -> Account | None:
        """Return an owner's account, or None."""

    async def day(self, project: ProjectId, day: int) -> DayUsage:
        """Return the tokens used and held of a project's UTC day."""

    def usage(self, project: str | None = None, since: float | None = None) -> AsyncIterator[UsageRecord]:
        """Return the finished records, oldest first. `since` is epoch seconds.

        `project` is an id (`prj_…`), or a name, which several projects may have had one after the other.
        """


class NamedHoldStore(Protocol):
    """Holds that do not belong to a request: other things that a host meters on the same accounts (`toolkit.credits`)."""

    async def apply_named_hold(
        self, id: str, owner: str | None, command: Command, *, now: float, expires_at: float
    ) -> Outcome:
        """Apply a ledger's command to the hold of an id. A hold keeps its owner; `owner` is for a new one.

        Raises ValueError if the id is taken by another account's hold, or by one of another amount.
        """

    async def expire_named_holds(self, now: float) -> int:
        """Void the named holds that have expired, and return how many there were."""


class Store(ProjectStore, RateStore, WindowStore, LedgerStore, NamedHoldStore, Protocol):
    """All protocols in one place, which saves a round trip for each request."""

    async def authenticate_and_acquire(self, digest: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        """Authenticate a key's digest and spend one of its project's requests per minute, in one round trip.

        `limits` are requests per minute by plan, with one for `default`; see `rate_limit`. None: the key is unknown.
        """

    async def setup(self) -> None:
        """Open the store and bring its schema up to date; repeated, do nothing."""

    async def aclose(self) -> None:
        """Close the store; it may be opened again."""
