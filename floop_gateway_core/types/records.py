"""Projects and the usage log: values that outlive a request."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from floop_gateway_core.errors import AttemptRecord, ErrorCode
from floop_gateway_core.types.amounts import ZERO_CREDITS, Microcredits, ProjectId, RequestId
from floop_gateway_core.types.answers import FinishReason
from floop_gateway_core.types.calls import Endpoint

__all__ = ["RECORD_FIELDS", "AttemptRecord", "Ending", "Project", "ProjectSettings", "UsageRecord"]

Ending = Literal["complete", "upstream_error", "client_gone", "refused", "internal_error", "lost", "replayed"]


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """A project's own settings; None means that the plan decides."""

    plan: str = "default"
    requests_per_minute: int | None = None
    daily_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A project as a store keeps it. Times are epoch seconds.

    Everything that belongs to a project goes by its id, so that a later project of the same name inherits nothing.
    """

    id: ProjectId
    name: str
    owner: str
    settings: ProjectSettings
    key_prefix: str
    created_at: float
    key_created_at: float


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One authenticated request, from its admission to its ending (contract: Usage log).

    It is written at admission and once more when settled. `ending` is None while the request runs. `started_at` and
    `settled_at` are epoch seconds.
    """

    request_id: RequestId
    project_id: ProjectId
    project: str
    key_prefix: str
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
        reasons = self.auto_reasons
        values["auto_reasons"] = None if reasons is None else [list(reason) for reason in reasons]
        values["tags"] = dict(self.tags)
        values["settled_at"] = None if self.settled_at is None else _rfc3339(self.settled_at)
        values["started_at"] = _rfc3339(self.started_at)
        return values


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


RECORD_FIELDS = (
    "request_id", "project", "key_prefix", "endpoint", "alias", "resolved_alias", "deployment", "status", "code",
    "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "estimated", "microcredits", "attempts",
    "first_text_ms", "total_ms", "streamed", "dialect", "tags", "repeats", "replay_of", "settled_at", "ending",
    "finish_reason", "auto_reasons", "started_at",
)  # fmt: skip
"""As `floop-gateway usage --json` prints them."""
