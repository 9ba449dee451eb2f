"""What an upstream's error means, when to come back, and what JSON is tolerated."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.providers import reading
from floop_gateway_core.providers.base import FaultKind
from floop_gateway_core.providers.faults import http_fault, retry_after_s, stream_error_fault
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.providers.reading import loads
from floop_gateway_core.wire.sse import SSEDecoder
from tests.providers.decoding import data, outcome


def fault_of(status: int, error: object = None, headers: Mapping[str, str] | None = None) -> FaultKind:
    body = json.dumps(error).encode() if error is not None else b""
    return http_fault(status, headers or {}, body, 0.0).fault


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        *((status, FaultKind.TRANSIENT) for status in (408, 425, 499, 500, 501, 502, 503, 504, 520, 529, 599)),
        (429, FaultKind.RATE_LIMITED),
        *((status, FaultKind.UNUSABLE) for status in (401, 402, 403, 404, 405, 410)),
        *((status, FaultKind.REJECTED) for status in (400, 406, 409, 413, 415, 422, 431, 451)),
        *((status, FaultKind.UNUSABLE) for status in (301, 302, 307, 308)),
        *((status, FaultKind.TRANSIENT) for status in (200, 204)),
    ],
)
def test_a_status_is_read_by_the_contracts_table(status: int, fault: FaultKind) -> None:
    assert fault_of(status) is fault


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}},
        {"error": {"message": "You exceeded your current quota, please check your plan and billing details."}},
        {"type": "error", "error": {"type": "billing_error", "message": "?"}},
        {"error": {"code": "billing_hard_limit_reached"}},
        {"error": {"type": "exceeded_current_quota_error"}},
        [
            {
                "error": {
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"violations": [{"quotaId": "RequestsPerDay-Free"}]}],
                }
            }
        ],
        {"error": {"status": "RESOURCE_EXHAUSTED", "message": "Your prepayment credits are depleted."}},
    ],
)
def test_an_exhausted_quota_among_the_429s_is_unusable(error: object) -> None:
    assert fault_of(429, error) is FaultKind.UNUSABLE


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"code": "rate_limit_exceeded", "message": "Rate limit reached for requests per minute"}},
        {"type": "error", "error": {"type": "rate_limit_error", "message": "?"}},
        {"error": {"status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota, please check"}},
        {"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"violations": [{"quotaId": "RequestsPerMinute"}]}]}},
        {"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"violations": 7}, 7, {"violations": [7]}]}},
        "words",
        [],
        7,
    ],
)
def test_any_other_429_is_a_rate_limit(error: object) -> None:
    assert fault_of(429, error) is FaultKind.RATE_LIMITED


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"code": "context_length_exceeded"}},
        {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": 400}},
        {"error": {"message": "You passed 9 input tokens. However, the model's context length is only 4 tokens"}},
        {"error": {"type": "exceed_context_size_error", "message": "the request exceeds the available context size"}},
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 4"}},
        {"error": {"message": "input length and `max_tokens` exceed context limit: 9 + 9 > 10"}},
        {
            "error": {
                "status": "INVALID_ARGUMENT",
                "message": "The input token count (9) exceeds the maximum number of tokens allowed (4).",
            }
        },
        {"error": "the input length exceeds the context length"},
        {"object": "error", "message": "This model's maximum context length is 4 tokens", "code": 400},
    ],
)
def test_a_context_length_400_is_told_apart(error: object) -> None:
    assert fault_of(400, error) is FaultKind.CONTEXT_LENGTH
    assert fault_of(413, error) is FaultKind.CONTEXT_LENGTH, "the words go before the status"
    assert fault_of(500, error) is FaultKind.CONTEXT_LENGTH


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}},
        {"error": {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}},
    ],
)
def test_a_400_about_money_or_a_key_is_the_deployments_fault_and_not_the_requests(error: object) -> None:
    assert fault_of(400, error) is FaultKind.UNUSABLE


def test_a_409_is_retried_only_where_the_provider_says_so() -> None:
    assert fault_of(409, headers={"X-Should-Retry": "true"}) is FaultKind.TRANSIENT
    assert fault_of(409, {"error": {"status": "ABORTED"}}) is FaultKind.TRANSIENT
    assert fault_of(409, headers={"x-should-retry": "false"}) is FaultKind.REJECTED


@pytest.mark.parametrize(("said", "again"), [("true", True), ("false", False), ("maybe", None), (None, None)])
def test_what_the_upstream_said_about_a_retry_is_kept(said: str | None, again: bool | None) -> None:
    headers = {} if said is None else {"x-should-retry": said}
    assert http_fault(503, headers, b"", 0.0).again is again


def test_an_error_with_status_200_means_what_its_own_status_would() -> None:
    assert fault_of(200, {"error": {"type": "rate_limit_error"}}) is FaultKind.RATE_LIMITED
    assert fault_of(200, {"error": {"message": "boom"}}) is FaultKind.TRANSIENT
    assert fault_of(200, {"choices": []}) is FaultKind.TRANSIENT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Thu, 99 Jan 1970 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now=100.0) == seconds


def test_header_names_are_read_in_any_case() -> None:
    assert http_fault(429, {"Retry-After": "7"}, b"", 0.0).retry_after_s == 7.0


@pytest.mark.parametrize(("delay", "seconds"), [("47s", 47.0), ("1.5s", 1.5), ("0s", 0.0), ("x", None), (7, None)])
def test_googles_retry_delay_stands_in_for_the_header(delay: object, seconds: float | None) -> None:
    body = json.dumps({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": delay}]}})
    assert http_fault(429, {}, body.encode(), 0.0).retry_after_s == seconds
    assert http_fault(429, {"retry-after": "3"}, body.encode(), 0.0).retry_after_s == 3.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "status", "details", "violations", "quotaId", "reason"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values, st.integers(100, 599))
def test_no_body_whatever_its_shape_makes_reading_it_fail(value: object, status: int) -> None:
    fault = http_fault(status, {}, json.dumps(value).encode(), 0.0)
    assert fault.reason.startswith((f"status {status}", "an error came with status 200"))
    assert stream_error_fault(value).reason.startswith("in-band error, treated as status")


@given(st.binary(max_size=200), st.text(max_size=40))
def test_no_bytes_make_reading_fail_and_none_are_quoted(body: bytes, header: str) -> None:
    fault = http_fault(400, {"retry-after": header, "x-should-retry": header}, b'{"error": "sk-secret' + body, 0.0)
    assert "secret" not in f"{fault!r}{fault.__context__!r}"


def test_a_body_that_is_too_long_or_nested_beyond_reason_counts_by_its_status() -> None:
    long = json.dumps({"error": {"code": "insufficient_quota", "message": "x" * 100_000}}).encode()
    assert http_fault(429, {}, long, 0.0).fault is FaultKind.RATE_LIMITED
    assert http_fault(429, {}, b"[" * 60_000, 0.0).fault is FaultKind.RATE_LIMITED
    assert loads(b'{"a": "\\ud83d"}') == {"a": "\ud83d"}
    assert loads(b"\xff") is None


def test_an_event_nested_beyond_reason_is_malformed() -> None:
    deep = b'{"error": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert outcome(OpenAICodec(), [data(deep)]).fault is FaultKind.TRANSIENT


def test_an_event_longer_than_the_gateway_holds_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    short = lambda: SSEDecoder(max_event_bytes=100)  # noqa: E731
    monkeypatch.setattr("floop_gateway_core.providers.reading.SSEDecoder", short)
    assert outcome(OpenAICodec(), [b"data: " + b"x" * 200]).fault is FaultKind.TRANSIENT


def test_a_whole_answer_beyond_measure_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WHOLE_MAX_BYTES", 100)
    read = outcome(OpenAICodec(), [b'{"choices": [{"message": {"content": "', b"x" * 200, b'"}}]}'])
    assert (FaultKind.TRANSIENT, "the answer is longer than the gateway can buffer") == (read.fault, read.reason)


@pytest.mark.parametrize("cut", [b"[", b'[{"candidates": [', b'[{"candidates": []}, {]'])
def test_an_array_that_is_cut_is_a_fault(cut: bytes) -> None:
    assert outcome(GeminiCodec(), [cut]).fault is FaultKind.TRANSIENT


def test_an_array_of_chunks_is_an_answer() -> None:
    chunks = [
        {"candidates": [{"content": {"parts": [{"text": "Hel"}]}}]},
        {"candidates": [{"content": {"parts": [{"text": "lo"}]}, "finishReason": "STOP"}]},
    ]
    read = outcome(GeminiCodec(), [json.dumps(chunks).encode()])
    assert (("Hel", "lo"), "end_turn") == (read.texts, read.finish)


def test_heartbeats_sent_as_data_are_skipped() -> None:
    ping, done = b"data: \n\ndata: : keepalive\n\ndata: 2026-01-01T00:00:00Z\n\n", b"data: [DONE]\n\n"
    text = b'data: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\n'
    read = outcome(OpenAICodec(), [ping + text + ping + done])
    assert (("Hi",), "end_turn") == (read.texts, read.finish)
