"""Google's Gemini, read and written."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.providers.base import FaultKind, UpstreamFault
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.options import Options
from floop_gateway_core.types import Message, Part, TextPart, ToolCallPart, ToolResultPart, Usage
from tests.providers.decoding import CALL, assert_same_for_every_split, body_of, data, outcome, places

CODEC = GeminiCodec()


def chunk(*parts: object, finish: str | None = None, usage: dict[str, object] | None = None) -> dict[str, object]:
    made = [{"text": part} if isinstance(part, str) else part for part in parts]
    candidate: dict[str, object] = {"content": {"role": "model", "parts": made}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **({"usageMetadata": usage} if usage is not None else {})}


def used(prompt: object = 9, candidates: object = 4, **more: object) -> dict[str, object]:
    return {"promptTokenCount": prompt, "candidatesTokenCount": candidates, **more}


ANSWER = data(
    chunk("Sunn", usage={"promptTokenCount": 9}),
    chunk("y ", usage=used(9, 2)),
    chunk("", finish="STOP", usage=used(9, 4)),
)


def test_an_answer_gives_its_texts_its_usage_and_its_finish_at_the_end_of_the_body() -> None:
    decoder = CODEC.decoder()
    assert decoder.feed(ANSWER).finish is None
    assert decoder.end().finish == "end_turn"
    read = outcome(CODEC, [ANSWER])
    assert (read.texts, read.usage, read.covered, read.finish) == (("Sunn", "y "), Usage(9, 4), True, "end_turn")


def test_usage_may_come_behind_the_finish() -> None:
    late = {"usageMetadata": used(9, 5)}
    assert outcome(CODEC, [data(chunk("a", finish="STOP"), late)]).usage == Usage(9, 5)


def test_early_models_say_stop_with_every_chunk() -> None:
    read = outcome(CODEC, [data(chunk("a", finish="STOP"), chunk("b", finish="STOP"))])
    assert (read.texts, read.finish) == (("a", "b"), "end_turn")


def test_thoughts_stay_out_of_the_text_and_count_as_output() -> None:
    usage = used(9, 4, thoughtsTokenCount=30, cachedContentTokenCount=5, toolUsePromptTokenCount=1)
    parts = ({"text": "hm", "thought": True}, {"text": "a", "thoughtSignature": "zzz"}, {"functionCall": {"name": "f"}})
    read = outcome(CODEC, [data(chunk(*parts, finish="STOP", usage=usage))])
    assert (read.thinking, read.texts) == (("hm",), ("a",))
    assert read.usage == Usage(10, 34, cached_tokens=5, reasoning_tokens=30)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"promptTokenCount": 9}, Usage(9, 0)),
        ({"promptTokenCount": 9, "thoughtsTokenCount": 3}, Usage(9, 3, reasoning_tokens=3)),
        (used(9, None), Usage(9, 0)),
        (used(None, 4), None),
        (used(-1, 4), None),
        (used(9, -4), Usage(9, 0)),
        (used("9", 4), None),
        ({}, None),
        ({"promptTokenCount": 0}, None),
    ],
)
def test_counts_are_read_and_an_absent_one_is_nought(usage: dict[str, object], read: Usage | None) -> None:
    assert outcome(CODEC, [data(chunk(finish="STOP", usage=usage))]).usage == read


def test_a_report_without_candidates_does_not_cover_the_text_before_it() -> None:
    read = outcome(CODEC, [data(chunk("a", usage={"promptTokenCount": 9}), b"nonsense")])
    assert (read.usage, read.covered) == (Usage(9, 0), False)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("STOP", "end_turn"),
        ("MAX_TOKENS", "max_tokens"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("SOMETHING_NEW", "error"),
    ],
)
def test_finish_reasons_are_translated(theirs: str, ours: str) -> None:
    assert outcome(CODEC, [data(chunk(finish=theirs))]).finish == ours


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "LANGUAGE", "OTHER"])
def test_an_answer_that_the_vendor_gave_up_is_a_broken_reply(reason: str) -> None:
    read = outcome(CODEC, [data(chunk("a"), chunk(finish=reason))])
    assert (read.texts, read.fault, read.finish) == (("a",), FaultKind.TRANSIENT, None)


def test_results_are_in_the_order_of_their_calls_by_which_the_vendor_tells_them_apart() -> None:
    calls = tuple(ToolCallPart(id, "f", "{}") for id in ("1", "2"))
    results: tuple[Part, ...] = (TextPart("so:"), *(ToolResultPart(id, (TextPart(f"of {id}"),)) for id in ("2", "1")))
    call = replace(CALL, messages=(Message.of("user", "x"), Message("assistant", calls), Message("user", results)))
    contents: Any = body_of(CODEC, call)["contents"]
    answers = [part["functionResponse"]["response"]["output"] for part in contents[-1]["parts"][:2]]
    assert ["of 1", "of 2"] == answers
    assert {"text": "so:"} == contents[-1]["parts"][2]


def test_a_blocked_prompt_finishes_as_content_filter_without_text() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}
    read = outcome(CODEC, [data(blocked)])
    assert (read.texts, read.finish, read.usage) == ((), "content_filter", Usage(9, 0))


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        data(chunk("a")),
        data(chunk("a", finish="FINISH_REASON_UNSPECIFIED")),
        data({"promptFeedback": {"safetyRatings": []}}),
    ],
)
def test_an_end_without_a_finish_is_no_clean_end(stream: bytes) -> None:
    assert outcome(CODEC, [stream]).fault is FaultKind.TRANSIENT


@pytest.mark.parametrize(
    "event",
    [{}, {"candidates": []}, {"candidates": None}, {"candidates": [{}]}, {"candidates": [{"content": {}}]}, b""],
)
def test_empty_events_of_every_kind_are_preamble(event: object) -> None:
    assert outcome(CODEC, [data(event) + ANSWER]).texts == ("Sunn", "y ")


@pytest.mark.parametrize("event", [b"{", b'[{"candidates":[]}]', b'{"candidates":{}}', b"[DONE]"])
def test_a_malformed_event_is_a_fault_behind_the_text_before_it(event: bytes) -> None:
    read = outcome(CODEC, [data(chunk("a"), event, chunk(finish="STOP"))])
    assert (read.texts, read.fault, read.finish) == (("a",), FaultKind.TRANSIENT, None)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"code": 503, "status": "UNAVAILABLE"}, FaultKind.TRANSIENT),
        ({"code": 500, "status": "INTERNAL"}, FaultKind.TRANSIENT),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, FaultKind.RATE_LIMITED),
        ({"status": "RESOURCE_EXHAUSTED"}, FaultKind.RATE_LIMITED),
        ({"code": 403, "status": "PERMISSION_DENIED"}, FaultKind.UNUSABLE),
        ({"code": 400, "status": "INVALID_ARGUMENT"}, FaultKind.REJECTED),
        ({"status": "SOMETHING_NEW"}, FaultKind.TRANSIENT),
    ],
)
def test_an_error_in_band_means_what_its_code_says(error: object, fault: FaultKind) -> None:
    read = outcome(CODEC, [data(chunk("a"), {"error": error})])
    assert (read.texts, read.fault) == (("a",), fault)


def test_an_error_in_band_tells_when_to_come_back() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}
    with pytest.raises(UpstreamFault) as caught:
        CODEC.decoder().feed(data({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [info]}}))
    assert caught.value.retry_after_s == 1.5


events = st.sampled_from(
    [
        data(chunk("Grüße 👋", usage=used(9, 1))),
        data(chunk("\ud83d"), chunk("\ude00")),
        data(chunk({"text": "hm", "thought": True}, usage={"promptTokenCount": 9})),
        data(chunk(finish="MAX_TOKENS", usage=used())),
        data({"promptFeedback": {"blockReason": "OTHER"}}),
        data({"error": {"code": 503}}),
        data(b"nonsense"),
        b": ping\r\n\r\n",
    ]
)


@given(st.lists(events, max_size=8).map(b"".join), places())
def test_the_outcome_is_the_same_for_every_split(stream: bytes, at: list[int]) -> None:
    assert_same_for_every_split(CODEC, stream, at)


def test_a_request_has_its_place_its_headers_and_its_body() -> None:
    messages = (Message.of("user", "a"), Message.of("assistant", "b"), Message.of("user", "c"), Message.of("user", "d"))
    call = replace(CALL, system="Be brief.", temperature=3.0, messages=messages)
    request = CODEC.encode(call, base_url=None, api_key="key-1")
    assert request.url == (
        "https://generativelanguage.googleapis.com/v1beta/models/model-a:streamGenerateContent?alt=sse"
    )
    assert dict(request.headers)["x-goog-api-key"] == "key-1"
    assert "x-goog-api-key" not in dict(CODEC.encode(call, base_url=None, api_key=None).headers)
    assert json.loads(request.body) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "a"}]},
            {"role": "model", "parts": [{"text": "b"}]},
            {"role": "user", "parts": [{"text": "c\n\nd"}]},
        ],
        "generationConfig": {"maxOutputTokens": 100, "temperature": 2},
    }


@pytest.mark.parametrize(
    ("model", "path"),
    [("tunedModels/x", "tunedModels/x"), ("models/x", "models/x"), ("a b/../?key=", "models/a%20b/../%3Fkey%3D")],
)
def test_a_models_name_stays_in_the_path(model: str, path: str) -> None:
    url = CODEC.encode(replace(CALL, model=model), base_url="http://h/", api_key=None).url
    assert url == f"http://h/v1beta/{path}:streamGenerateContent?alt=sse"


def test_thinking_is_a_budget_or_a_level_and_never_both() -> None:
    def generation(**thinking: object) -> object:
        return body_of(GeminiCodec(Options(**thinking)), CALL)["generationConfig"]  # type: ignore[arg-type]

    assert generation(thinking_tokens=512) == {
        "maxOutputTokens": 612,
        "thinkingConfig": {"thinkingBudget": 512},
    }
    assert generation(thinking="low", thinking_allowance_tokens=1000) == {
        "maxOutputTokens": 1100,
        "thinkingConfig": {"thinkingLevel": "low"},
    }


def test_the_hosts_extra_body_joins_the_configuration_and_never_wins() -> None:
    extra = {"generationConfig": {"topK": 5, "maxOutputTokens": 10**6}, "safetySettings": [], "generation_config": {}}
    body = body_of(GeminiCodec(Options(extra_body=extra)), CALL)
    assert "generation_config" not in body
    assert (body["generationConfig"], body["safetySettings"]) == ({"topK": 5, "maxOutputTokens": 100}, [])
