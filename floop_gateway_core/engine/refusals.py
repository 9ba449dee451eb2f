"""The refusals that the engine itself makes: of calls that a route cannot serve, and of those that have failed."""

import math

from floop_gateway_core.errors import NO_RETRY, ErrorCode, FieldError, Refusal
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.providers.base import UpstreamFault

__all__ = [
    "COMPATIBLE",
    "INTERNAL_ERROR",
    "STOPPING",
    "STORE_UNAVAILABLE",
    "cannot",
    "cooling_down",
    "refusal_of",
]

COMPATIBLE = frozenset({"openai", "anthropic"})
"""Vendor dialects. Their clients use the vendor's model names and expect the vendor's errors for their own mistakes."""
UNAVAILABLE_RETRY_AFTER_S = 60
STORE_RETRY_AFTER_S = 5
"""What clients are told while the store does not answer."""
STORE_UNAVAILABLE = Refusal(
    ErrorCode.SERVICE_UNAVAILABLE,
    f"The gateway's store is unavailable. Retry after {STORE_RETRY_AFTER_S} s.",
    retry_after_s=STORE_RETRY_AFTER_S,
)
STOPPING = Refusal(
    ErrorCode.SERVICE_UNAVAILABLE,
    f"The server is stopping. Retry after {STORE_RETRY_AFTER_S} s.",
    retry_after_s=STORE_RETRY_AFTER_S,
)
INTERNAL_ERROR = Refusal(
    ErrorCode.INTERNAL_ERROR, "Internal error. Retry later; if it persists, report the X-Request-Id."
)


def cannot(error: FieldError) -> Refusal:
    """Return the refusal of a call that no deployment of its route can serve."""
    return Refusal(ErrorCode.VALIDATION_ERROR, f"{error.path} {error.message}.", fields=(error,))


def cooling_down(left_s: float) -> Refusal:
    """Return the refusal of a call whose deployments are all cooling down, the first for another `left_s` seconds."""
    retry_after_s = max(UNAVAILABLE_RETRY_AFTER_S, math.ceil(left_s))
    message = f"Every deployment of this route is cooling down after failures. Retry after {retry_after_s} s."
    return Refusal(ErrorCode.SERVICE_UNAVAILABLE, message, retry_after_s=retry_after_s)


def refusal_of(fault: UpstreamFault, dialect: str) -> Refusal:
    """Return the refusal for the fault that ended the last attempt, for a client that has received no output."""
    if fault.fault is FaultKind.CONTEXT_LENGTH:
        message = (
            "The input and max_tokens together exceed the context length of the model that serves this route. "
            "Send a shorter input or a smaller max_tokens."
        )
        return Refusal(ErrorCode.INPUT_TOO_LARGE, message)
    if fault.fault is FaultKind.REJECTED:
        return _rejected(fault, dialect)
    if fault.fault is FaultKind.UNUSABLE:
        message = "No provider of this route accepts requests. The operator must check its key, model and quota."
        return Refusal(ErrorCode.PROVIDER_ERROR, message)
    return Refusal(ErrorCode.PROVIDER_ERROR, "Every attempt at a provider failed. Retry later.")


def _rejected(fault: UpstreamFault, dialect: str) -> Refusal:
    """Return the refusal of a call that the model's server rejected; compatible dialects report a client error."""
    if fault.refused_call and dialect in COMPATIBLE:
        named = "" if fault.subject is None else f" ({fault.subject})"
        return Refusal(ErrorCode.VALIDATION_ERROR, f"The model's server refused the request{named}.")
    message = "The provider rejected the request; a retry would fail again."
    return Refusal(ErrorCode.PROVIDER_ERROR, message, extra_headers=NO_RETRY)
