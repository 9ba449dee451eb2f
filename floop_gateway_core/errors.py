"""The error catalogue: every code that a client can get, its status, its headers and its envelope.

A refusal is a value, returned up to the renderer; `GatewayError` carries one when it must be raised (calls
within the process). A message says what is wrong, the limit and the way out. It must never hold a key, a prompt, an
upstream's body or a stack trace: messages are written here or by the policy that refuses, never passed through.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

__all__ = [
    "CATALOGUE",
    "AdminError",
    "AttemptRecord",
    "BudgetExceededError",
    "Conflict",
    "ErrorCode",
    "ErrorSpec",
    "FieldError",
    "Forbidden",
    "GatewayError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "NoSuchAccount",
    "NoSuchProject",
    "NoSuchRequest",
    "ProjectExists",
    "ProviderError",
    "RateLimitedError",
    "Refusal",
    "StoreUnavailable",
    "UnauthorizedError",
    "UnavailableError",
]


class ErrorCode(StrEnum):
    """Every code that a client can get (contract: Errors)."""

    INVALID_BODY = "INVALID_BODY"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
    INVALID_MODEL = "INVALID_MODEL"
    UNAUTHORIZED = "UNAUTHORIZED"
    INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
    FORBIDDEN = "FORBIDDEN"
    PROJECT_SUSPENDED = "PROJECT_SUSPENDED"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    CONFLICT = "CONFLICT"
    IDEMPOTENCY_IN_PROGRESS = "IDEMPOTENCY_IN_PROGRESS"
    IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"
    RATE_LIMITED = "RATE_LIMITED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    PROVIDER_ERROR = "PROVIDER_ERROR"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt of a request. `fault` and `reason` are None unless it failed."""

    deployment: str
    fault: str | None
    reason: str | None
    ms: int


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """What the contract defines for a code; a refusal's own headers override `headers` of the same name."""

    status: int
    meaning: str
    headers: tuple[tuple[str, str], ...] = ()


NO_RETRY = (("x-should-retry", "false"),)
"""The vendors' SDKs obey it: sending the same request again would fail again."""

CATALOGUE: Mapping[ErrorCode, ErrorSpec] = MappingProxyType(
    {
        ErrorCode.INVALID_BODY: ErrorSpec(400, "the body is not a JSON object in UTF-8, or was late", NO_RETRY),
        ErrorCode.VALIDATION_ERROR: ErrorSpec(400, "a field is missing, of the wrong type, or out of range", NO_RETRY),
        ErrorCode.INPUT_TOO_LARGE: ErrorSpec(400, "the input exceeds the plan's tokens, or the body its cap", NO_RETRY),
        ErrorCode.INVALID_MODEL: ErrorSpec(400, "the alias or deployment does not exist", NO_RETRY),
        ErrorCode.UNAUTHORIZED: ErrorSpec(401, "key missing or not valid", (("WWW-Authenticate", "Bearer"), *NO_RETRY)),
        ErrorCode.INSUFFICIENT_CREDITS: ErrorSpec(402, "the account cannot pay for this request", NO_RETRY),
        ErrorCode.FORBIDDEN: ErrorSpec(403, "the operator may not do this", NO_RETRY),
        ErrorCode.PROJECT_SUSPENDED: ErrorSpec(403, "the project's owner or operator has suspended it", NO_RETRY),
        ErrorCode.NOT_FOUND: ErrorSpec(404, "the path does not exist", NO_RETRY),
        ErrorCode.METHOD_NOT_ALLOWED: ErrorSpec(405, "the path is known, the method is not", NO_RETRY),
        ErrorCode.CONFLICT: ErrorSpec(409, "what is there already forbids it", NO_RETRY),
        ErrorCode.IDEMPOTENCY_IN_PROGRESS: ErrorSpec(409, "a request with this Idempotency-Key is still running"),
        ErrorCode.IDEMPOTENCY_MISMATCH: ErrorSpec(422, "this Idempotency-Key was used with another body", NO_RETRY),
        ErrorCode.RATE_LIMITED: ErrorSpec(429, "the key's requests per minute are used up"),
        ErrorCode.BUDGET_EXCEEDED: ErrorSpec(429, "the day's token budget is used up", NO_RETRY),
        ErrorCode.INTERNAL_ERROR: ErrorSpec(500, "a bug in the gateway"),
        ErrorCode.NOT_IMPLEMENTED: ErrorSpec(501, "reserved", NO_RETRY),
        ErrorCode.PROVIDER_ERROR: ErrorSpec(502, "every attempt failed; retry later"),
        ErrorCode.SERVICE_UNAVAILABLE: ErrorSpec(503, "nothing can serve now", (("Retry-After", "60"),)),
    }
)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One validation error; `path` is written as a client would index it: `messages[0].role`."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than a completion: code, status, headers and JSON envelope, ready to send.

    >>> refusal = Refusal(ErrorCode.RATE_LIMITED, "10 requests per minute are used up.", retry_after_s=7)
    >>> refusal.status, refusal.headers
    (429, (('Retry-After', '7'),))
    >>> refusal.body
    b'{"error": {"code": "RATE_LIMITED", "message": "10 requests per minute are used up."}}'
    """

    code: ErrorCode
    message: str
    retry_after_s: int | None = None
    fields: tuple[FieldError, ...] = ()
    extra_headers: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> int:
        """Return the HTTP status of the code."""
        return CATALOGUE[self.code].status

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The catalogue's headers for the code, overridden by the refusal's own; without `Content-Type`."""
        own = self.extra_headers
        if self.retry_after_s is not None:
            own = (("Retry-After", str(self.retry_after_s)), *own)
        names = {name for name, _ in own}
        return (*(pair for pair in CATALOGUE[self.code].headers if pair[0] not in names), *own)

    @property
    def body(self) -> bytes:
        """Return the catalogue's JSON envelope."""
        error: dict[str, object] = {"code": self.code.value, "message": self.message}
        if self.fields:
            error["fields"] = [{"path": field.path, "message": field.message} for field in self.fields]
        return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


class GatewayError(Exception):
    """A refusal as an exception, for calls within the process.

    Each group of codes has a subclass. `credits_used` is what a stream cost before it failed, in micro-credits;
    `request_id` names the record in the usage log, if there is one; `attempts` are those that were made at providers, with
    the reason of each failure. Instances can be copied and pickled.

    >>> error = GatewayError.from_refusal(Refusal(ErrorCode.RATE_LIMITED, "Too many.", retry_after_s=7))
    >>> type(error).__name__, error.code, error.retry_after_s
    ('RateLimitedError', <ErrorCode.RATE_LIMITED: 'RATE_LIMITED'>, 7)
    """

    def __init__(
        self,
        refusal: Refusal,
        credits_used: int = 0,
        request_id: str | None = None,
        attempts: tuple[AttemptRecord, ...] = (),
    ) -> None:
        super().__init__(refusal, credits_used, request_id, attempts)
        self.refusal = refusal
        self.code = refusal.code
        self.retry_after_s = refusal.retry_after_s
        self.fields = refusal.fields
        self.credits_used = credits_used
        self.request_id = request_id
        self.attempts = attempts

    def __str__(self) -> str:
        failed = "; ".join(f"{one.deployment}: {one.reason}" for one in self.attempts if one.reason is not None)
        return f"{self.code}: {self.refusal.message}" + (f" ({failed})" if failed else "")

    @staticmethod
    def from_refusal(
        refusal: Refusal,
        credits_used: int = 0,
        request_id: str | None = None,
        attempts: tuple[AttemptRecord, ...] = (),
    ) -> "GatewayError":
        """Return the exception of a refusal's code."""
        return _ERROR_OF.get(refusal.code, GatewayError)(refusal, credits_used, request_id, attempts)


class InvalidRequestError(GatewayError):
    """The call itself is invalid: its fields, its alias or its size."""


class UnauthorizedError(GatewayError):
    """The key is not valid."""


class InsufficientCreditsError(GatewayError):
    """The account cannot pay for the call."""


class RateLimitedError(GatewayError):
    """The requests per minute are used up; retry after `retry_after_s`."""


class BudgetExceededError(GatewayError):
    """The day's tokens are used up."""


class ProviderError(GatewayError):
    """Every attempt failed, or the answer broke off in the middle."""


class UnavailableError(GatewayError):
    """Every breaker on the route is open, or the store is unavailable."""


_ERROR_OF: Mapping[ErrorCode, type[GatewayError]] = {
    ErrorCode.INVALID_BODY: InvalidRequestError,
    ErrorCode.VALIDATION_ERROR: InvalidRequestError,
    ErrorCode.INPUT_TOO_LARGE: InvalidRequestError,
    ErrorCode.INVALID_MODEL: InvalidRequestError,
    ErrorCode.UNAUTHORIZED: UnauthorizedError,
    ErrorCode.INSUFFICIENT_CREDITS: InsufficientCreditsError,
    ErrorCode.RATE_LIMITED: RateLimitedError,
    ErrorCode.BUDGET_EXCEEDED: BudgetExceededError,
    ErrorCode.PROVIDER_ERROR: ProviderError,
    ErrorCode.SERVICE_UNAVAILABLE: UnavailableError,
}


class AdminError(ValueError):
    """An administrative request cannot be carried out; the message says why. Nothing was changed."""


class ProjectExists(AdminError):
    """A project of this name exists already."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"project {self.name!r} already exists; nothing was changed"


class NoSuchProject(AdminError):
    """There is no project of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no project {self.name!r}"


class NoSuchAccount(AdminError):
    """There is no account of this owner."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner

    def __str__(self) -> str:
        return f"there is no account {self.owner!r}; an account is created with its first project"


class NoSuchRequest(AdminError):
    """There is no finished request of this id in the log."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id

    def __str__(self) -> str:
        return f"there is no finished request {self.request_id!r} in the log"


class Conflict(AdminError):
    """The change conflicts with the current state: an id that is taken, a balance that is too small."""


class Forbidden(AdminError):
    """The operator may not do this."""


class StoreUnavailable(Exception):
    """The store is unavailable, and nothing is known to have changed. The message contains no connection secrets."""
