"""Anthropic's Messages API, read and written."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.providers.anthropic import AnthropicCodec
from floop_gateway_core.providers.base import FaultKind
from floop_gateway_core.providers.options import Options
from floop_gateway_core.types import ImagePart, Message, TextPart, ToolCallPart, ToolResultPart, Usage
from tests.providers.decoding import CALL, assert_same_for_every_split, body_of, outcome, places

CODEC = AnthropicCodec()


def event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\n".encode() + b"data: " + json.dumps({"type": kind, **members}).encode() + b"\n\n"


def start(**usage: object) -> bytes:
    return event("message_start", message={"id": "m", "role": "assistant", "content": [], "usage": usage or None})


def text(words: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": words})


def thought(words: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": words})


def stop(reason: str | None = "end_turn", **usage: object) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=delta, **({"usage": usage} if usage else {})) + STOP


PING = event("ping")
STOP = event("message_stop")
ANSWER = (
    start(input_tokens=9, output_tokens=1)
    + event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + PING
    + text("Sunn")
    + PING
    + text("y ")
    + event("content_block_stop", index=0)
    + stop("end_turn", output_tokens=4)
)


def test_an_answer_gives_its_texts_its_usage_and_its_finish() -> None:
    read = outcome(CODEC, [ANSWER])
    assert (read.texts, read.usage, read.covered, read.finish) == (("Sunn", "y "), Usage(9, 4), True, "end_turn")


def test_thinking_stays_out_of_the_text_and_signatures_are_skipped() -> None:
    signature = event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "zzz"})
    redacted = event("content_block_start", index=1, content_block={"type": "redacted_thinking", "data": "zzz"})
    read = outcome(CODEC, [start(input_tokens=9), thought("hm"), signature, redacted, text("a"), stop()])
    assert (read.thinking, read.texts) == (("hm",), ("a",))


def test_text_that_comes_with_the_start_of_its_block_is_text() -> None:
    block = event("content_block_start", index=0, content_block={"type": "text", "text": "early "})
    assert outcome(CODEC, [block, text("late"), stop()]).texts == ("early ", "late")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("stop_sequence", "stop_sequence"),
        ("refusal", "refusal"),
        ("pause_turn", "end_turn"),
        ("tool_use", "end_turn"),
        ("something_new", "end_turn"),
    ],
)
def test_stop_reasons_are_translated(theirs: str, ours: str) -> None:
    assert outcome(CODEC, [stop(theirs)]).finish == ours


@pytest.mark.parametrize(
    ("first", "last", "read"),
    [
        ({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": 4}, Usage(9, 4)),
        (
            {"input_tokens": 9, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 1},
            {"output_tokens": 4},
            Usage(59, 4, cached_tokens=30, cache_written_tokens=20),
        ),
        (
            {"input_tokens": 9, "cache_read_input_tokens": 30},
            {"input_tokens": 9, "cache_read_input_tokens": 30, "output_tokens": 4},
            Usage(39, 4, cached_tokens=30),
        ),
        ({"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 9, "output_tokens": 4}, Usage(9, 4)),
        ({"input_tokens": 9}, {"input_tokens": 0, "output_tokens": 4}, Usage(9, 4)),
        ({"input_tokens": 9, "cache_read_input_tokens": None}, {"output_tokens": 4}, Usage(9, 4)),
        ({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": None}, Usage(9, 1)),
        ({"input_tokens": -9, "output_tokens": 1}, {"output_tokens": 4}, None),
        ({"input_tokens": "9"}, {"output_tokens": 4}, None),
        ({}, {"output_tokens": 4}, None),
        ({}, {}, None),
    ],
)
def test_usage_is_cumulative_and_every_kind_of_input_counts(
    first: dict[str, object], last: dict[str, object], read: Usage | None
) -> None:
    assert outcome(CODEC, [start(**first), text("a"), stop("end_turn", **last)]).usage == read


def test_a_report_without_output_does_not_cover_what_came_since() -> None:
    opening = start(input_tokens=9, output_tokens=1)
    assert outcome(CODEC, [opening]).covered
    assert not outcome(CODEC, [opening, text("a")]).covered
    assert not outcome(CODEC, [opening, text("a"), stop("end_turn", input_tokens=9)]).covered


@pytest.mark.parametrize("rest", [b"", STOP, stop(None)])
def test_without_a_reason_there_is_no_clean_end(rest: bytes) -> None:
    read = outcome(CODEC, [text("a") + rest])
    assert (read.texts, read.fault) == (("a",), FaultKind.TRANSIENT)


def test_a_reason_is_an_end_if_the_body_ends_cleanly() -> None:
    read = outcome(CODEC, [text("a") + event("message_delta", delta={"stop_reason": "end_turn"})])
    assert (read.texts, read.finish) == (("a",), "end_turn")


def test_events_that_are_not_known_are_skipped_whatever_they_hold() -> None:
    odd = event("brand_new", delta="no object", usage=[1]) + event("ping", delta=7) + event("new", error=None)
    assert outcome(CODEC, [odd + ANSWER]).texts == ("Sunn", "y ")


@pytest.mark.parametrize(
    "odd", [b"data: {\n\n", b'data: {"type": 7}\n\n', event("content_block_delta", delta="no object")]
)
def test_a_malformed_event_is_a_fault_behind_the_text_before_it(odd: bytes) -> None:
    read = outcome(CODEC, [text("a") + odd + stop()])
    assert (read.texts, read.fault, read.finish) == (("a",), FaultKind.TRANSIENT, None)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("overloaded_error", FaultKind.TRANSIENT),
        ("api_error", FaultKind.TRANSIENT),
        ("timeout_error", FaultKind.TRANSIENT),
        ("rate_limit_error", FaultKind.RATE_LIMITED),
        ("authentication_error", FaultKind.UNUSABLE),
        ("permission_error", FaultKind.UNUSABLE),
        ("not_found_error", FaultKind.UNUSABLE),
        ("billing_error", FaultKind.UNUSABLE),
        ("invalid_request_error", FaultKind.REJECTED),
        ("request_too_large", FaultKind.REJECTED),
        ("something_new", FaultKind.TRANSIENT),
    ],
)
def test_an_error_event_means_what_its_status_would(kind: str, fault: FaultKind) -> None:
    read = outcome(CODEC, [text("a") + event("error", error={"type": kind, "message": "sk-secret"})])
    assert (read.texts, read.fault) == (("a",), fault)
    assert "secret" not in read.reason


def test_an_error_event_without_an_error_is_one_all_the_same() -> None:
    assert outcome(CODEC, [event("error")]).fault is FaultKind.TRANSIENT


def test_a_prompt_that_is_too_long_is_told_apart() -> None:
    error = {"type": "invalid_request_error", "message": "prompt is too long: 213462 tokens > 200000 maximum"}
    assert outcome(CODEC, [event("error", error=error)]).fault is FaultKind.CONTEXT_LENGTH


events = st.sampled_from(
    [
        start(input_tokens=9, output_tokens=1),
        PING,
        text("Grüße 👋"),
        text("\ud83d"),
        text("\ude00"),
        thought("hm"),
        event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 3}),
        event("message_delta", delta={}, usage={"input_tokens": 9}),
        STOP,
        event("error", error={"type": "overloaded_error"}),
        event("brand_new", delta=1),
        b"data: nonsense\r\n\r\n",
    ]
)


@given(st.lists(events, max_size=8).map(b"".join), places())
def test_the_outcome_is_the_same_for_every_split(stream: bytes, at: list[int]) -> None:
    assert_same_for_every_split(CODEC, stream, at)


def test_a_request_has_its_place_its_headers_and_its_body() -> None:
    call = replace(CALL, system="Be brief.", temperature=1.5)
    request = CODEC.encode(call, base_url="https://llm.example/", api_key="sk-1")
    assert request.url == "https://llm.example/v1/messages"
    assert CODEC.encode(call, base_url=None, api_key=None).url == "https://api.anthropic.com/v1/messages"
    headers = dict(request.headers)
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-1", "2023-06-01")
    assert "x-api-key" not in dict(CODEC.encode(call, base_url=None, api_key="").headers)
    assert json.loads(request.body) == {
        "model": "model-a",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "max_tokens": 100,
        "temperature": 1,
    }


@pytest.mark.parametrize(
    ("turns", "sent"),
    [
        ([("user", "a"), ("user", "b")], [("user", "a\n\nb")]),
        ([("assistant", "a"), ("user", "b")], [("user", "."), ("assistant", "a"), ("user", "b")]),
        ([("user", "a"), ("assistant", " b \n")], [("user", "a"), ("assistant", " b")]),
        ([("user", "a"), ("assistant", ""), ("user", "b")], [("user", "a\n\nb")]),
        ([("user", " ")], [("user", ".")]),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], [("user", "a"), ("assistant", "b\n\nc")]),
    ],
)
def test_turns_alternate_begin_with_the_user_and_are_never_empty(
    turns: list[tuple[str, str]], sent: list[tuple[str, str]]
) -> None:
    messages = tuple(Message.of(role, words) for role, words in turns)  # type: ignore[arg-type]
    body = body_of(CODEC, replace(CALL, messages=messages))
    assert body["messages"] == [{"role": role, "content": words} for role, words in sent]


def test_a_system_turn_is_sent_in_its_place() -> None:
    messages = (Message.of("system", "Two."), Message.of("user", "a"))
    body = body_of(CODEC, replace(CALL, system="One.", messages=messages))
    assert (body["system"], body["messages"]) == (
        "One.", [{"role": "system", "content": "Two."}, {"role": "user", "content": "a"}],
    )  # fmt: skip


def test_a_thinking_budget_comes_on_top_and_leaves_no_room_for_a_temperature() -> None:
    codec = AnthropicCodec(
        Options(thinking_tokens=4096, extra_body={"temperature": 0.7, "thinking": {"budget_tokens": 9}})
    )
    body = body_of(codec, replace(CALL, temperature=0.5))
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 4096}
    assert body["max_tokens"] == 4196
    assert "temperature" not in body


def test_an_effort_is_sent_in_the_adaptive_form() -> None:
    body = body_of(AnthropicCodec(Options(thinking="high")), replace(CALL, temperature=0.5))
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
    assert (body["max_tokens"], "temperature" in body) == (16_484, False)


@pytest.mark.parametrize(("granted", "budget", "sent"), [(2000, 10, 1024), (500, 500, None)])
def test_a_budget_below_the_vendors_minimum_is_raised_where_it_fits(
    granted: int, budget: int, sent: int | None
) -> None:
    body = body_of(AnthropicCodec(Options(thinking_tokens=budget)), replace(CALL, max_tokens=granted))
    assert body.get("thinking") == (None if sent is None else {"type": "enabled", "budget_tokens": sent})
    assert body["max_tokens"] == granted + budget


def test_one_json_message_in_place_of_a_stream_is_an_answer() -> None:
    whole = {
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    read = outcome(CODEC, [json.dumps(whole).encode()])
    assert (("Hi",), ("hm",), Usage(9, 4), "max_tokens") == (read.texts, read.thinking, read.usage, read.finish)


def test_one_json_error_in_place_of_a_stream_is_a_fault() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert outcome(CODEC, [json.dumps(error).encode()]).fault is FaultKind.TRANSIENT


def test_a_result_without_a_text_has_no_empty_block() -> None:
    calls = tuple(ToolCallPart(id, "f", "{}") for id in ("1", "2", "3"))
    results = (
        ToolResultPart("1", (TextPart(""),)),
        ToolResultPart("2", (TextPart(" "),), is_error=True),
        ToolResultPart("3", (TextPart(""), ImagePart("https://a.example/b.png"))),
    )
    call = replace(CALL, messages=(Message.of("user", "x"), Message("assistant", calls), Message("user", results)))
    sent: Any = body_of(CODEC, call)["messages"][-1]["content"]  # type: ignore[index]
    assert [None, ["text"], ["image"]] == [
        [one["type"] for one in block["content"]] if "content" in block else None for block in sent
    ]
    assert sent[1]["is_error"] is True


def test_marks_for_the_cache_go_with_calls_and_images_too() -> None:
    mark = '{"type": "ephemeral"}'
    image = ImagePart("https://a.example/b.png", cache=mark)
    call = ToolCallPart("1", "f", "{}", cache=mark)
    result = ToolResultPart("1", (image,), cache=mark)
    messages = (Message("user", (image,)), Message("assistant", (call,)), Message("user", (result,)))
    sent = json.dumps(body_of(CODEC, replace(CALL, messages=messages))["messages"])
    assert 4 == sent.count(f'"cache_control": {mark}')
