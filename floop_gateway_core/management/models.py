"""Request and response bodies of the administration, from which its OpenAPI document is generated."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from floop_gateway_core.admin.service import NAME
from floop_gateway_core.money import parse_credits
from floop_gateway_core.types import Microcredits

__all__ = ["ChangeProject", "CreateProject", "Deletion", "Empty", "Posting", "RefundRequest", "Rotation"]

MAX_COUNT = 10**12


def _amount(value: object) -> Microcredits:
    """Read credits exactly: JSON's numbers arrive as `int` or `Decimal`."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("must be a number of credits")
    try:
        return parse_credits(value)
    except ValueError:
        raise ValueError("must be from 0 to 1000000000000, with at most six decimal places") from None


Credits = Annotated[
    Any,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 10**12, "multipleOf": 0.000001}),
]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
NewName = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})]
"""A name for something new. The administration refuses others, and says what a name must be."""
Id = Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]
Note = Annotated[str, Field(max_length=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Empty(_Body):
    """Nothing: `{}`, or no body at all."""


class CreateProject(_Body):
    """A new project. A limit of null means the plan's limit."""

    name: NewName
    owner: NewName | None = None
    plan: str = "default"
    requests_per_minute: Count | None = None
    daily_tokens: Count | None = None
    credits: Credits = 0


class ChangeProject(_Body):
    """Changes to a project. Absent fields keep their value; null resets a limit to the plan's."""

    plan: str | None = None
    requests_per_minute: Count | None = None
    daily_tokens: Count | None = None


class Rotation(_Body):
    """How long the old key is still accepted, in seconds."""

    grace_s: Annotated[float, Field(ge=0, le=86_400, strict=False)] = 0.0


class Posting(_Body):
    """A grant or a debit. It is idempotent by `id`, which is unique within an account."""

    credits: Credits
    id: Id | None = None
    note: Note | None = None


class RefundRequest(_Body):
    """A refund of a request: all that it was charged, or `credits` of it."""

    credits: Credits | None = None
    id: Id | None = None
    note: Note | None = None


class Deletion(_Body):
    """Nothing; the query says whether to erase."""


# -- what goes out, for the document -----------------------------------------------------------------------------------


class Limit(BaseModel):
    """A limit: the effective value and the plan's."""

    value: int
    plan: int


class Limits(BaseModel):
    """The limits of a project."""

    requests_per_minute: Limit
    daily_tokens: Limit


class Today(BaseModel):
    """The tokens of the UTC day."""

    used: int
    held: int
    left: int


class AccountBalance(BaseModel):
    """Credits of an account."""

    posted: float
    held: float
    available: float


class Account(AccountBalance):
    """An account."""

    owner: str


class Project(BaseModel):
    """A project."""

    id: str
    name: str
    owner: str
    plan: str
    key_prefix: str
    key_created_at: str
    suspended: bool
    limits: Limits
    today: Today
    account: AccountBalance


class NewKey(BaseModel):
    """A project and its key, shown this once."""

    project: Project
    key: str
    hook_error: str | None = None


class Entry(BaseModel):
    """One movement of money; `credits` has the sign of its effect on the posted balance."""

    at: str
    kind: Literal["grant", "debit", "refund", "capture", "overrun", "written_off", "closed", "carried"]
    credits: float
    posted_after: float | None
    id: str | None
    request_id: str | None
    project: str | None
    by: str | None
    note: str | None


class Posted(BaseModel):
    """The entry that a posting made, and the account after it."""

    entry: Entry
    account: Account


class Statement(BaseModel):
    """The entries of a period, between two balances."""

    opening: float
    entries: list[Entry]
    closing: float


class Attempt(BaseModel):
    """One attempt at a deployment."""

    deployment: str
    fault: str | None
    reason: str | None
    ms: int


class Record(BaseModel):
    """A record of the usage log: one for each authenticated request."""

    request_id: str
    project: str
    key_prefix: str | None
    endpoint: str
    alias: str | None = Field(description="the model that was asked for")
    resolved_alias: str | None = Field(description="the alias that `auto` chose, or that a name stands for")
    deployment: str | None = Field(description="who served it")
    status: int | None = Field(description="the HTTP status that was sent")
    code: str | None = Field(description="the error's code; null on success")
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated: bool = Field(description="whether the provider reported no counts")
    microcredits: int = Field(description="what was charged, in millionths of a credit")
    attempts: int
    first_text_ms: int | None
    total_ms: int | None
    streamed: bool
    dialect: str
    tags: dict[str, str]
    repeats: int = Field(description="how many refusals share this record")
    replay_of: str | None = Field(description="the request whose answer was sent again")
    settled_at: str | None
    ending: str
    finish_reason: str | None
    auto_reasons: list[tuple[str, float]] | None = Field(description="what `auto` found in the text, and its weight")
    started_at: str
    attempt_list: list[Attempt] | None = Field(None, description="only for a single request")


class SummaryRow(BaseModel):
    """The sums of one group, identified by the dimensions requested with `by`."""

    model_config = ConfigDict(extra="allow")

    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    credits: float
    latency_p50_ms: int | None
    latency_p95_ms: int | None
    first_text_p50_ms: int | None
    first_text_p95_ms: int | None


class AuditLine(BaseModel):
    """One change."""

    at: str
    by: str
    what: str
    project: str | None
    account: str | None
    origin: str | None
    details: dict[str, Any]


class Transition(BaseModel):
    """A change of a breaker."""

    at: str
    state: Literal["closed", "open", "half_open"]


class DeploymentHealth(BaseModel):
    """A deployment, and its breaker."""

    deployment: str
    provider: str
    model: str
    breaker: Literal["closed", "open", "half_open"]
    transitions: list[Transition]


class Health(BaseModel):
    """The state of this process and its store."""

    deployments: list[DeploymentHealth]
    store: Literal["ok", "unavailable"]
    pending_settlements: int
    stopping: bool


class TestResult(BaseModel):
    """What a deployment said to one short request."""

    ok: bool
    reason: str | None
