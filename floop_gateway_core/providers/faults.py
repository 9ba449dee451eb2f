"""What an upstream's error means: its `FaultKind`, how long to wait, and whether to retry.

It decides by the contract's table (Providers) from the status, and reads the body only if the table asks for it: an
exhausted quota among the 429s, an input beyond the model's context among the 400s. An error that comes in band (an
event of a stream, or the body of a 200) has no HTTP status: its code, status or type names the status that the
vendor would have sent, and the same table holds.

Two 400s are not the request's fault, so another deployment may succeed; they are read as the 401 and 402 that other
vendors send: an exhausted prepaid balance (Anthropic) and a key that is not valid (Gemini).

It must never pass the upstream's words on: a reason is a status and our own words.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeGuard

from floop_gateway_core.providers.base import FaultKind, UpstreamFault
from floop_gateway_core.providers.reading import loads

__all__ = ["error_of", "http_fault", "retry_after_s", "stream_error_fault"]

_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,100}")
_BODY_MAX = 64 * 1024
"""An error body longer than this is not read: its status alone counts."""

_EXHAUSTED_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "insufficient_balance",
        "exceeded_current_quota_error",
    }
)
_EXHAUSTED_WORDS = re.compile(
    r"credit balance is too low|exceeded your current quota|insufficient (?:balance|credits|funds)"
    r"|credits are depleted|spending (?:cap|limit)|usage limits?\b.*\bregain access",
    re.IGNORECASE | re.DOTALL,
)
# Google says "exceeded your current quota" for the minute's and the day's alike: only the quota's name distinguishes them.
_GOOGLE_EXHAUSTED_WORDS = re.compile(r"credits are depleted|spending cap", re.IGNORECASE)
_GOOGLE_DAILY = re.compile(r"per_?day", re.IGNORECASE)

_TOO_LONG_CODES = frozenset(
    {
        "context_length_exceeded",
        "exceed_context_size_error",
        "context_window_exceeded",
        "1261",
        "string_above_max_length",
    }
)
_TOO_LONG_WORDS = re.compile(
    r"maximum context length|maximum prompt length|prompt (?:is )?too long|prompt exceeds max length"
    r"|exceeds? (?:the )?(?:max(?:imum)? )?context (?:limit|window|length)"
    r"|exceed(?:s|ed)? (?:the )?(?:available|max|maximum|model'?s?) (?:context|token limit|length|model length)"
    r"|context length (?:is only|of only)|context (?:length|window|size) (?:is |was |has been )?exceeded"
    r"|exceed(?:s|ed)? (?:the )?model token limit|longer than the (?:model'?s|maximum) (?:context|model)"
    r"|too many (?:input )?tokens in (?:the )?(?:prompt|input)|exceeds the maximum number of tokens|input tokens exceed"
    r"|range of input length should be|input (?:is|was) too long|input length .{0,80}exceeds"
    r"|(?:does not|doesn't) fit in(?:to)? (?:the )?context|context (?:length|window|size) only supports"
    r"|greater than the context length|reduce the length of (?:the|your) (?:messages|prompt|input)",
    re.IGNORECASE,
)
_RATE_CODES = frozenset(
    {"rate_limit_exceeded", "rate_limit_error", "too_many_requests", "throttlingexception", "throttling"}
)
_RATE_WORDS = re.compile(
    r"rate limit|tokens per (?:minute|day)|requests per (?:minute|day)|too many requests|throttl|wait before trying again",
    re.IGNORECASE,
)
_FLAGGED_WORDS = re.compile(
    r"\bflagged\b|requires moderation|content (?:management )?policy|moderation (?:block|fail|reject)|safety system"
    r"|inappropriate content",
    re.IGNORECASE,
)
_FLAGGED_CODES = frozenset(
    {"content_policy_violation", "content_filter", "moderation_blocked", "data_inspection_failed"}
)

_STATUS_OF = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "out_of_range": 400,
    "request_too_large": 413,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "insufficient_balance": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "insufficient_quota": 429,
    "timeout_error": 408,
    "overloaded_error": 529,
}
_STATUS_OF.update(dict.fromkeys(_EXHAUSTED_CODES - _STATUS_OF.keys(), 429))
_STATUS_OF.update(dict.fromkeys(_TOO_LONG_CODES, 400))
_STATUS_UNKNOWN = 500


@dataclass(frozen=True, slots=True)
class _Error:
    """The facts of an error body, in lower case except for the message: type and code, or Google's status."""

    names: frozenset[str] = frozenset()
    number: int | None = None
    message: str = ""
    google: bool = False
    daily: bool = False
    retry_delay_s: float | None = None
    subject: str | None = None
    """A member or a code that the error names, safe to show."""


def http_fault(status: int, headers: Mapping[str, str], body: bytes, now: float) -> UpstreamFault:
    """Return what a non-200 answer means. `now` is in epoch seconds; header names may have any case."""
    fields = {name.lower(): value for name, value in headers.items()}
    parsed = loads(body) if len(body) <= _BODY_MAX else None
    error = _read_error(error_of(parsed), parsed)
    wait_s = retry_after_s(fields, now)
    if wait_s is None:
        wait_s = error.retry_delay_s
    again = {"true": True, "false": False}.get(fields.get("x-should-retry", "").strip().lower())
    if status == 200 and error != _Error():
        return _fault(_implied_status(error), error, "an error came with status 200", wait_s, again)
    return _fault(status, error, f"status {status}", wait_s, again)


def stream_error_fault(error: object) -> UpstreamFault:
    """Return what the `error` member of an event means. It may be an object or just the message."""
    facts = _read_error(error, None)
    status = _implied_status(facts)
    return _fault(status, facts, f"in-band error, treated as status {status}", facts.retry_delay_s, None)


def retry_after_s(fields: Mapping[str, str], now: float) -> float | None:
    """Read `retry-after-ms`, else `retry-after` (seconds, fractions, an HTTP date); None if neither makes sense.

    >>> retry_after_s({"retry-after": "1.5"}, now=0.0), retry_after_s({"retry-after-ms": "250"}, now=0.0)
    (1.5, 0.25)
    >>> retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=45.0)
    15.0
    """
    millis = _seconds(fields.get("retry-after-ms", ""))
    if millis is not None:
        return millis / 1000
    value = fields.get("retry-after", "").strip()
    seconds = _seconds(value)
    if seconds is not None or not value:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _seconds(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _fault(status: int, error: _Error, reason: str, wait_s: float | None, again: bool | None) -> UpstreamFault:
    fault, why = _judge(status, error, again)
    return UpstreamFault(
        fault,
        f"{reason}: {why}" if why else reason,
        retry_after_s=wait_s,
        again=again,
        request_suspected=fault is FaultKind.UNUSABLE and status in (403, 404),
        refused_call=fault is FaultKind.REJECTED and status in (400, 413, 422),
        subject=error.subject,
    )


def _judge(status: int, error: _Error, again: bool | None) -> tuple[FaultKind, str]:
    """The contract's table, and what it leaves open: other 4xx are the request's fault, redirects the deployment's."""
    # The error body takes precedence over the status.
    if status >= 400 and (found := _by_words(status, error)) is not None:
        return found
    match status:
        case 429:
            return (FaultKind.UNUSABLE, "the quota is exhausted") if _exhausted(error) else (FaultKind.RATE_LIMITED, "")
        case 400 if "api_key_invalid" in error.names:
            return FaultKind.UNUSABLE, "the key is not valid"
        case 401 | 402 | 403 | 404 | 405 | 410:
            return FaultKind.UNUSABLE, ""
        case 408 | 425 | 499:
            return FaultKind.TRANSIENT, ""
        case 409 if again or "aborted" in error.names:
            return FaultKind.TRANSIENT, ""
        case _ if 400 <= status < 500:
            return FaultKind.REJECTED, ""
        case _ if 300 <= status < 400:
            return FaultKind.UNUSABLE, "a redirect is not followed"
        case _:
            return FaultKind.TRANSIENT, ""


def _by_words(status: int, error: _Error) -> tuple[FaultKind, str] | None:
    """Return what the body means regardless of the status; None if it contains no known error."""
    if status != 429 and _exhausted(error):
        return FaultKind.UNUSABLE, "the quota is exhausted"
    if status != 429 and (
        not error.names.isdisjoint(_RATE_CODES)
        or (status in (400, 413, 422, 503) and _RATE_WORDS.search(error.message))
    ):
        return FaultKind.RATE_LIMITED, "the rate is limited"
    if status != 429 and _too_long(error):
        return FaultKind.CONTEXT_LENGTH, "the input is too long for the model"
    if not error.names.isdisjoint(_FLAGGED_CODES) or (status < 500 and _FLAGGED_WORDS.search(error.message)):
        return FaultKind.REJECTED, "the input was flagged"
    return None


def _exhausted(error: _Error) -> bool:
    if error.google:
        return error.daily or _GOOGLE_EXHAUSTED_WORDS.search(error.message) is not None
    return not error.names.isdisjoint(_EXHAUSTED_CODES) or _EXHAUSTED_WORDS.search(error.message) is not None


def _too_long(error: _Error) -> bool:
    return not error.names.isdisjoint(_TOO_LONG_CODES) or _TOO_LONG_WORDS.search(error.message) is not None


def _implied_status(error: _Error) -> int:
    if error.number is not None and 400 <= error.number <= 599:
        return error.number
    # The most telling name wins: OpenAI's type is `invalid_request_error` beside codes of every kind.
    statuses = [_STATUS_OF[name] for name in error.names if name in _STATUS_OF]
    return max(statuses, key=lambda status: (status != 400, status)) if statuses else _STATUS_UNKNOWN


def error_of(parsed: object) -> object:
    """Find the error of a body: under `error`, in a list of one (Google), or the body itself."""
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if isinstance(parsed, dict):
        return parsed.get("error") or parsed
    return None


def _read_error(error: object, parsed: object) -> _Error:
    if isinstance(error, str):
        return _Error(message=error[:_BODY_MAX])
    if not isinstance(error, dict) or (error is parsed and not error.keys() & {"message", "detail", "code"}):
        return _Error()
    code, message = error.get("code"), _message(error)
    wrapped = _wrapped(error)
    details = list(_details(error.get("details")))
    said = (code, error.get("type"), error.get("status"))
    names = {str(value).lower() for value in said if isinstance(value, str) or (isinstance(value, int) and value > 999)}
    names |= {reason.lower() for detail in details if isinstance(reason := detail.get("reason"), str)}
    number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) == 3 else code
    return _Error(
        names=frozenset(names) | wrapped.names,
        number=number if type(number) is int else None,
        message=f"{message} {wrapped.message}".strip(),
        google=isinstance(error.get("status"), str),
        daily=any(_is_daily(detail) for detail in details),
        retry_delay_s=next((wait for detail in details if (wait := _retry_delay(detail)) is not None), None),
        subject=next((one for one in (error.get("param"), *said) if _is_name(one)), None),
    )


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _message(error: Mapping[str, object]) -> str:
    found = error.get("message") or error.get("detail") or error.get("msg")
    if isinstance(found, str):
        return found
    return json.dumps(found)[:_BODY_MAX] if isinstance(found, dict | list) else ""


def _wrapped(error: Mapping[str, object]) -> _Error:
    """Read the error that a router passes on as text (OpenRouter's `metadata.raw`)."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if not isinstance(raw, str):
        return _Error()
    parsed = loads(raw) if len(raw) <= _BODY_MAX else None
    inner = error_of(parsed)
    if not isinstance(inner, dict) or "metadata" in inner:
        return _Error(message=raw[:_BODY_MAX])
    return _read_error(inner, None)


def _details(details: object) -> Iterator[dict[str, object]]:
    if isinstance(details, list):
        yield from (detail for detail in details[:32] if isinstance(detail, dict))


def _is_daily(detail: Mapping[str, object]) -> bool:
    violations = detail.get("violations")
    if not isinstance(violations, list):
        return False
    names = (violation.get("quotaId") for violation in violations if isinstance(violation, dict))
    return any(isinstance(name, str) and _GOOGLE_DAILY.search(name) for name in names)


def _retry_delay(detail: Mapping[str, object]) -> float | None:
    """Read google.rpc.RetryInfo's delay, a protobuf duration: `47s`, `1.5s`."""
    delay = detail.get("retryDelay")
    return _seconds(delay.removesuffix("s")) if isinstance(delay, str) else None
