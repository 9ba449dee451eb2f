"""What an upstream's error means, by its words before its status."""

import json

import pytest

from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.providers.faults import http_fault, stream_error_fault


def kind(status: int, error: object) -> FaultKind:
    return http_fault(status, {}, json.dumps({"error": error}).encode(), now=0.0).fault


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (413, {"code": "rate_limit_exceeded", "message": "tokens per minute"}, FaultKind.RATE_LIMITED),
        (400, {"message": "insufficient balance"}, FaultKind.UNUSABLE),
        (500, {"message": "This model's maximum context length is 8192 tokens"}, FaultKind.CONTEXT_LENGTH),
        (500, {"code": "context_length_exceeded"}, FaultKind.CONTEXT_LENGTH),
        (403, {"code": "content_policy_violation", "message": "flagged"}, FaultKind.REJECTED),
        (403, {"message": "no access to this model"}, FaultKind.UNUSABLE),
        (429, {"code": "insufficient_quota"}, FaultKind.UNUSABLE),
        (429, {"message": "slow down"}, FaultKind.RATE_LIMITED),
        (409, {"status": "ABORTED"}, FaultKind.TRANSIENT),
        (409, {"message": "conflict"}, FaultKind.REJECTED),
        (302, {}, FaultKind.UNUSABLE),
        (529, {"type": "overloaded_error"}, FaultKind.TRANSIENT),
    ],
)
def test_words_go_before_the_status(status: int, error: object, expected: FaultKind) -> None:
    assert expected is kind(status, error)


def wrapped(raw: str) -> dict[str, object]:
    return {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw, "provider_name": "x"}}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (json.dumps({"error": {"code": "context_length_exceeded"}}), FaultKind.CONTEXT_LENGTH),
        (json.dumps({"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}), FaultKind.CONTEXT_LENGTH),
        ("Your credit balance is too low", FaultKind.UNUSABLE),
        (json.dumps({"error": {"metadata": {"raw": "x"}}}), FaultKind.REJECTED),
        ("plain text", FaultKind.REJECTED),
    ],
)
def test_the_error_that_a_router_wraps_is_read(raw: str, expected: FaultKind) -> None:
    assert expected is kind(400, wrapped(raw))


@pytest.mark.parametrize(
    "error", ["out of memory", {"code": 500}, {"code": "503", "message": "busy"}, {"status": "UNAVAILABLE"}, None, []]
)
def test_an_error_in_band_without_more_is_passing(error: object) -> None:
    assert FaultKind.TRANSIENT is stream_error_fault(error).fault


def test_googles_delay_is_a_wait() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]
    fault = http_fault(429, {}, json.dumps({"error": {"code": 429, "details": details}}).encode(), now=0.0)
    assert 1.5 == fault.retry_after_s


def test_an_upstreams_words_never_leave() -> None:
    fault = http_fault(400, {}, json.dumps({"error": {"message": "secret prompt sk-123"}}).encode(), now=0.0)
    assert "status 400" == fault.reason
