"""What can go wrong, as exceptions. No message holds a key or a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = [
    "BudgetExceededError",
    "ConnectionFailed",
    "FloopError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "NotImplementedByGateway",
    "ProviderError",
    "RateLimitedError",
    "StreamCut",
    "UnauthorizedError",
    "UnavailableError",
    "from_response",
]


class FloopError(Exception):
    """A call failed. `code` is the gateway's (`RATE_LIMITED`, say), `status` the HTTP status, or 0 without an answer.

    `request_id` names the request in the gateway's log. `retry_after_ms` is how long to wait before another try, if the
    gateway says so.
    """

    def __init__(
        self,
        message: str,
        code: str = "UNKNOWN",
        status: int = 0,
        request_id: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message, code, status, request_id, retry_after_ms)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        about = f" ({self.request_id})" if self.request_id else ""
        return f"{self.code}: {self.message}{about}"


class InvalidRequestError(FloopError):
    """The call itself is invalid: its fields, its model or its size."""


class UnauthorizedError(FloopError):
    """The key is missing or not valid, or the project is suspended."""


class InsufficientCreditsError(FloopError):
    """The account cannot pay for this call."""


class RateLimitedError(FloopError):
    """The project's requests per minute are used up."""


class BudgetExceededError(FloopError):
    """The project's tokens of the day are used up."""


class ProviderError(FloopError):
    """Every attempt at a provider failed, or one failed in the middle of a stream."""


class UnavailableError(FloopError):
    """The service is temporarily unavailable."""


class NotImplementedByGateway(FloopError):
    """The endpoint is reserved for later."""


class ConnectionFailed(FloopError):
    """The gateway could not be reached, or did not answer in time."""


class StreamCut(FloopError):
    """A stream ended before it was complete."""


_CLASSES: Mapping[str, type[FloopError]] = {
    "INVALID_BODY": InvalidRequestError,
    "VALIDATION_ERROR": InvalidRequestError,
    "INPUT_TOO_LARGE": InvalidRequestError,
    "INVALID_MODEL": InvalidRequestError,
    "UNAUTHORIZED": UnauthorizedError,
    "PROJECT_SUSPENDED": UnauthorizedError,
    "INSUFFICIENT_CREDITS": InsufficientCreditsError,
    "RATE_LIMITED": RateLimitedError,
    "BUDGET_EXCEEDED": BudgetExceededError,
    "PROVIDER_ERROR": ProviderError,
    "SERVICE_UNAVAILABLE": UnavailableError,
    "NOT_IMPLEMENTED": NotImplementedByGateway,
}


def of_code(
    code: str, message: str, status: int, request_id: str | None, retry_after_ms: int | None = None
) -> FloopError:
    """Return the error of a code."""
    return _CLASSES.get(code, FloopError)(message, code, status, request_id, retry_after_ms)


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> FloopError:
    """Return the error of an answer that is not a 200. A proxy's own pages become `UNKNOWN`."""
    code, message = "UNKNOWN", f"the server answered with status {status}"
    try:
        error: Any = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        pass
    return of_code(code, message, status, headers.get("x-request-id"), retry_after_ms(headers))


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """Return the wait that a server asks for, or None."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return round(seconds * 1000) if 0 <= seconds < 10**9 else None
