"""Projects and the usage log: values that outlive a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from floop_gateway_core.errors import AttemptRecord, ErrorCode
from floop_gateway_core.types.amounts import ZERO_CREDITS, Microcredits, ProjectId, RequestId
from floop_gateway_core.types.answers import FinishReason
from floop_gateway_core.types.calls import Endpoint

__all__ = [
    "RECORD_FIELDS",
    "AttemptRecord",
    "AuditLine",
    "Ending",
    "Entry",
    "EntryKind",
    "Project",
    "ProjectSettings",
    "Suspension",
    "UsageFilter",
    "UsageRecord",
]

Ending = Literal["complete", "upstream_error", "client_gone", "refused", "internal_error", "lost", "replayed"]


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """A project's own settings; None means that the plan decides."""

    plan: str = "default"
    requests_per_minute: int | None = None
    daily_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Suspension:
    """A project whose requests are refused since `at`. `by_operator` is whether an operator of all projects did it."""

    at: float
    by_operator: bool = True


@dataclass(frozen=True, slots=True)
class Project:
    """A project as a store keeps it. Times are epoch seconds.

    Everything that belongs to a project refers to its id, so that a later project of the same name inherits nothing.
    """

    id: ProjectId
    name: str
    owner: str
    settings: ProjectSettings
    key_prefix: str
    created_at: float
    key_created_at: float
    suspension: Suspension | None = None


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One authenticated request, from its admission to its ending (contract: Usage log).

    It is written at admission and once more when settled. `ending` is None while the request runs. `started_at` and
    `settled_at` are epoch seconds.
    """

    request_id: RequestId
    project_id: ProjectId
    project: str
    key_prefix: str | None
    endpoint: Endpoint
    started_at: float
    alias: str | None = None
    resolved_alias: str | None = None
    deployment: str | None = None
    status: int | None = None
    code: ErrorCode | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    microcredits: Microcredits = ZERO_CREDITS
    attempts: int = 0
    first_text_ms: int | None = None
    total_ms: int | None = None
    streamed: bool = False
    dialect: str = "native"
    tags: tuple[tuple[str, str], ...] = ()
    repeats: int = 1
    replay_of: RequestId | None = None
    settled_at: float | None = None
    attempt_list: tuple[AttemptRecord, ...] = ()
    ending: Ending | None = None
    finish_reason: FinishReason | None = None
    auto_reasons: tuple[tuple[str, float], ...] | None = None

    def as_json(self) -> dict[str, object]:
        """Return the record's fields in the contract's order and form."""
        values: dict[str, object] = {name: getattr(self, name) for name in RECORD_FIELDS}
        values["microcredits"] = int(self.microcredits)
        reasons = self.auto_reasons
        values["auto_reasons"] = None if reasons is None else [list(reason) for reason in reasons]
        values["tags"] = dict(self.tags)
        values["settled_at"] = None if self.settled_at is None else _rfc3339(self.settled_at)
        values["started_at"] = _rfc3339(self.started_at)
        return values


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


EntryKind = Literal["grant", "debit", "refund", "capture", "overrun", "written_off", "closed", "carried"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of money of an account, in the order of `number`.

    The sign of `amount` shows how it changes the posted balance. Write-offs do not change it; there, `amount` is what
    nobody pays. `posted_after` is None for entries made before this field existed. `id` is chosen by the caller of a
    grant, debit or refund.
    """

    number: int
    at: float
    owner: str
    kind: EntryKind
    amount: Microcredits
    posted_after: Microcredits | None = None
    id: str | None = None
    request_id: RequestId | None = None
    project_id: ProjectId | None = None
    by: str | None = None
    note: str | None = None

    @property
    def moved(self) -> int:
        """Return by how much the entry moved what is posted: nothing if it was written off."""
        return 0 if self.kind == "written_off" else self.amount


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One change by an operator: who, what, when and from where. `details` are JSON's own types."""

    at: float
    by: str
    what: str
    project_id: ProjectId | None = None
    project: str | None = None
    account: str | None = None
    origin: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which records of the log to return; None means any. Times are epoch seconds, `since` <= started < `until`.

    `tag` is a name and a value; a value of None matches any.
    """

    projects: frozenset[ProjectId] | None = None
    since: float | None = None
    until: float | None = None
    status: int | None = None
    code: str | None = None
    alias: str | None = None
    deployment: str | None = None
    dialect: str | None = None
    tag: tuple[str, str | None] | None = None

    def matches(self, record: UsageRecord) -> bool:
        """Return whether a record is wanted."""
        equal = ((self.status, record.status), (self.code, record.code), (self.alias, record.alias),
                 (self.deployment, record.deployment), (self.dialect, record.dialect))  # fmt: skip
        return (
            (self.projects is None or record.project_id in self.projects)
            and (self.since is None or record.started_at >= self.since)
            and (self.until is None or record.started_at < self.until)
            and all(wanted is None or wanted == found for wanted, found in equal)
            and (self.tag is None or any(self._tagged(name, value) for name, value in record.tags))
        )

    def _tagged(self, name: str, value: str) -> bool:
        return self.tag is not None and name == self.tag[0] and self.tag[1] in (None, value)


RECORD_FIELDS = (
    "request_id", "project", "key_prefix", "endpoint", "alias", "resolved_alias", "deployment", "status", "code",
    "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "estimated", "microcredits", "attempts",
    "first_text_ms", "total_ms", "streamed", "dialect", "tags", "repeats", "replay_of", "settled_at", "ending",
    "finish_reason", "auto_reasons", "started_at",
)  # fmt: skip
"""As `floop-gateway usage --json` prints them."""
