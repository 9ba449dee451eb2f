"""OpenAI's Chat Completions and its many dialects, read and written."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.providers.base import FaultKind, UpstreamFault
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.providers.options import Options
from floop_gateway_core.types import ImagePart, Message, TextPart, ToolCallPart, ToolResultPart, Usage
from tests.providers.decoding import CALL, assert_same_for_every_split, body_of, data, outcome, places

CODEC = OpenAICodec()
DONE = b"[DONE]"


def chunk(finish: str | None = None, **delta: object) -> dict[str, object]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "obfuscation": "zzz"}


def used(given: object = 9, produced: object = 4, **more: object) -> dict[str, object]:
    return {"choices": [], "usage": {"prompt_tokens": given, "completion_tokens": produced, **more}}


NULL_USAGE = {**chunk(content="y "), "usage": None}
ANSWER = data(chunk(role="assistant", content=""), chunk(content="Sunn"), NULL_USAGE, chunk("stop"), used(), DONE)


def test_an_answer_gives_its_texts_its_usage_and_its_finish() -> None:
    read = outcome(CODEC, [ANSWER])
    assert (read.texts, read.usage, read.covered, read.finish) == (("Sunn", "y "), Usage(9, 4), True, "end_turn")


def test_missing_usage_is_no_report() -> None:
    assert outcome(CODEC, [data(chunk(content="a"), chunk("stop"), DONE)]).usage is None


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_stays_out_of_the_text(name: str) -> None:
    read = outcome(CODEC, [data(chunk(**{name: "hm"}), chunk(content="a"), chunk("stop"), DONE)])
    assert (read.thinking, read.texts) == (("hm",), ("a",))


def test_one_thought_under_both_names_is_one_thought() -> None:
    read = outcome(CODEC, [data(chunk(reasoning="hm", reasoning_content="hm"), chunk("stop"), DONE)])
    assert read.thinking == ("hm",)


def test_content_in_parts_is_told_apart() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]
    read = outcome(CODEC, [data(chunk(content=parts), chunk("stop"), DONE)])
    assert (read.thinking, read.texts) == (("hm",), ("a",))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("model_length", "max_tokens"),
        ("content_filter", "content_filter"),
        ("tool_calls", "end_turn"),
        ("function_call", "end_turn"),
        ("something_new", "end_turn"),
    ],
)
def test_finish_reasons_are_translated(theirs: str, ours: str) -> None:
    assert outcome(CODEC, [data(chunk(theirs), DONE)]).finish == ours


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_a_finish_that_names_a_failure_is_one(reason: str) -> None:
    read = outcome(CODEC, [data(chunk(content="a"), chunk(reason), DONE)])
    assert (read.texts, read.fault, read.finish) == (("a",), FaultKind.TRANSIENT, None)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    "event",
    [
        b'error: {"code": 400, "message": "exceeds the available context size", "type": "invalid_request_error"}\n\n',
        b'data: {"object": "error", "message": "maximum context length is 9 tokens", "code": 400}\n\n',
        b'data: {"type": "error", "message": "maximum context length is 9 tokens", "code": 400}\n\n',
        b'event: error\ndata: {"message": "maximum context length is 9 tokens"}\n\n',
        b'event: error\ndata: {"error": {"message": "maximum context length is 9 tokens"}}\n\n',
        b"event: error\ndata: maximum context length is 9 tokens\n\n",
    ],
)
def test_an_error_may_come_in_any_form(event: bytes, begun: bool) -> None:
    before = data(chunk(content="a")) if begun else b""
    body = before + event + data(DONE)
    assert_same_for_every_split(CODEC, body, [7, 30])
    read = outcome(CODEC, [body])
    assert (read.fault, read.finish) == (FaultKind.CONTEXT_LENGTH, None)
    assert read.texts == (("a",) if begun else ())


def test_members_of_an_odd_type_cost_no_answer() -> None:
    odd: list[dict[str, object]] = [{"content": ["a", {"type": "text", "text": "b"}, None]}, {"reasoning": {"x": 1}}]
    read = outcome(CODEC, [data(*({"choices": [{"delta": one}]} for one in odd), chunk("stop"), DONE)])
    assert (read.texts, read.finish) == (("a", "b"), "end_turn")


def _result(id: str, *content: ImagePart | TextPart) -> Message:
    return Message("user", (ToolResultPart(id, content),))


CALLS = Message("assistant", (ToolCallPart("call_1", "f", "{}"), ToolCallPart("call_2", "f", "{}")))


def test_results_directly_follow_their_calls_and_what_is_said_comes_after_them() -> None:
    shown = _result("call_1", ImagePart("https://a.example/b.png"))
    messages = (Message.of("user", "x"), CALLS, Message.of("system", "s"), shown, _result("call_2", TextPart("y")))
    found: Any = body_of(CODEC, replace(CALL, messages=messages))["messages"]
    assert ["user", "assistant", "tool", "tool", "system", "user"] == [one["role"] for one in found][-6:]


def test_a_server_of_strict_turns_gets_them_with_images_and_tools_too() -> None:
    codec = OpenAICodec(Options(merge_turns=True, system_role="user"))
    image = Message("user", (ImagePart("https://a.example/b.png"),))
    messages = (Message.of("user", "x"), image, Message.of("user", "y"), CALLS, _result("call_1", TextPart("z")))
    found: Any = body_of(codec, replace(CALL, system="be brief", messages=messages))["messages"]
    assert ["user", "assistant", "tool"] == [one["role"] for one in found]
    assert ["text", "text", "image_url", "text"] == [one["type"] for one in found[0]["content"]]
    assert "be brief" in found[0]["content"][0]["text"]
    found = body_of(codec, replace(CALL, system="be brief", messages=messages[3:]))["messages"]
    assert {"role": "user", "content": "be brief"} == found[0]


def test_mistral_gets_ids_of_nine_letters() -> None:
    call = replace(CALL, messages=(CALLS, _result("call_1", TextPart("z"))))
    sent = json.loads(CODEC.encode(call, base_url="https://api.mistral.ai/v1", api_key="k").body)["messages"]
    calls = next(one["tool_calls"] for one in sent if "tool_calls" in one)
    assert len({one["id"] for one in calls}) == 2
    assert {9} == {len(one["id"]) for one in calls}
    assert calls[0]["id"] == sent[-1]["tool_call_id"]


def test_a_refusal_is_text_and_the_finish() -> None:
    read = outcome(CODEC, [data(chunk(refusal="I can't."), chunk("stop"), DONE)])
    assert (read.texts, read.finish) == (("I can't.",), "refusal")


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (used(9, 4, prompt_tokens_details={"cached_tokens": 5}), Usage(9, 4, cached_tokens=5)),
        (used(9, 4, prompt_cache_hit_tokens=5), Usage(9, 4, cached_tokens=5)),
        (used(9, 4, completion_tokens_details={"reasoning_tokens": 3}), Usage(9, 4, reasoning_tokens=3)),
        (used(9, 4, total_tokens=16, completion_tokens_details={"reasoning_tokens": 3}), Usage(9, 7, 0, 3)),
        (used(9, 4, prompt_tokens_details=None, completion_tokens_details=None), Usage(9, 4)),
        (used(9, 4, prompt_tokens_details={"cached_tokens": 50}), Usage(9, 4, cached_tokens=9)),
        (used(9, 4, total_tokens=63, prompt_tokens_details={"cached_tokens": 50}), Usage(59, 4, cached_tokens=50)),
        (used(9, 4, total_tokens=20, cache_read_input_tokens=5, cache_creation_input_tokens=2), Usage(16, 4, 5, 0, 2)),
        (used(9.0, 4.0), Usage(9, 4)),
        (used(9, None, total_tokens=13), Usage(9, 4)),
        (used(None, 4, total_tokens=13), Usage(9, 4)),
        (used(9, None), Usage(9, 0)),
        (used(None, None), None),
        (used(0, 0), None),
        (used(-9, 4), Usage(0, 4)),
        (used(9, 4.5), Usage(9, 0)),
        (used("9", 4), Usage(0, 4)),
        (used(True, 4), Usage(0, 4)),
        (used(9, 10**30), Usage(9, 0)),
    ],
)
def test_counts_are_read_and_nonsense_is_no_report(usage: object, read: Usage | None) -> None:
    assert outcome(CODEC, [data(chunk(content="a"), chunk("stop"), usage, DONE)]).usage == read


def test_usage_with_every_chunk_is_cumulative_and_covers_until_more_text_comes() -> None:
    first = {**chunk(content="a"), "usage": used(9, 1)["usage"]}
    read = outcome(CODEC, [data(first, chunk(content="b"), b"nonsense")])
    assert (read.usage, read.covered) == (Usage(9, 1), False)
    assert outcome(CODEC, [data(first, b"nonsense")]).covered


@pytest.mark.parametrize("event", [{}, {"choices": None}, {"choices": [{"delta": None}]}, {"choices": [{}]}, b"", b" "])
def test_empty_events_of_every_kind_are_preamble(event: object) -> None:
    assert outcome(CODEC, [b": ping\n\n" + data(event) + ANSWER]).texts == ("Sunn", "y ")


def test_an_empty_finish_reason_is_none() -> None:
    assert outcome(CODEC, [data(chunk("", content="a"))]).fault is FaultKind.TRANSIENT


@pytest.mark.parametrize("event", [b"{", b"[]", b'{"choices": 7}', b'{"choices":[{"delta":{"content":1}}]}'])
def test_a_malformed_event_is_a_fault_behind_the_text_before_it(event: bytes) -> None:
    read = outcome(CODEC, [data(chunk(content="a"), event, chunk("stop"), DONE)])
    assert (read.texts, read.fault, read.finish) == (("a",), FaultKind.TRANSIENT, None)


@pytest.mark.parametrize("rest", [data(chunk("stop")), data(DONE), data(chunk("stop"), used()), b"data: [DONE]"])
def test_a_finish_or_done_is_an_end_if_the_body_ends_cleanly(rest: bytes) -> None:
    read = outcome(CODEC, [data(chunk(content="a")) + rest])
    assert (read.texts, read.fault, read.finish) == (("a",), None, "end_turn")


@pytest.mark.parametrize("rest", [b"", b": ping\n\n", b'data: {"choices": [{"fin'])
def test_without_either_the_answer_is_cut(rest: bytes) -> None:
    read = outcome(CODEC, [data(chunk(content="a")) + rest])
    assert (read.texts, read.fault) == (("a",), FaultKind.TRANSIENT)


@pytest.mark.parametrize("beat", [b": keepalive", b"1700000000", b"ping", b"null"])
def test_data_that_is_not_json_is_a_keep_alive(beat: bytes) -> None:
    read = outcome(CODEC, [data(beat, chunk(content="a"), beat, chunk("stop"), DONE)])
    assert (read.texts, read.finish) == (("a",), "end_turn")


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("content_filter: RECITATION", "content_filter"),
        ("SAFETY", "content_filter"),
        ("MAX_TOKENS", "max_tokens"),
        ("eos_token", "end_turn"),
    ],
)
def test_every_vendors_words_are_read_in_any_case_up_to_a_colon(word: str, finish: str) -> None:
    assert outcome(CODEC, [data(chunk(content="a"), chunk(word), DONE)]).finish == finish


def test_one_whole_answer_is_an_answer_to_a_stream() -> None:
    whole = {
        "choices": [{"message": {"content": "Sunny"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    }
    read = outcome(CODEC, [json.dumps(whole).encode()])
    assert (("Sunny",), "end_turn", Usage(9, 4)) == (read.texts, read.finish, read.usage)


@pytest.mark.parametrize("place", ["choice", "x_groq"])
def test_usage_is_found_wherever_servers_put_it(place: str) -> None:
    usage = {"prompt_tokens": 23, "completion_tokens": 19, "total_tokens": 42}
    last: dict[str, object] = dict(chunk("stop"))
    if place == "choice":
        last["choices"] = [{"delta": {}, "finish_reason": "stop", "usage": usage}]
    else:
        last["x_groq"] = {"usage": usage}
    assert Usage(23, 19) == outcome(CODEC, [data(chunk(content="a"), last, DONE)]).usage


def test_a_total_that_is_larger_holds_output_that_was_counted_beside_it() -> None:
    assert (
        Usage(20, 603)
        == outcome(CODEC, [data(chunk(content="a"), chunk("stop"), used(20, 198, total_tokens=623), DONE)]).usage
    )


def test_cached_tokens_at_the_top_level_are_read() -> None:
    report = {"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 4, "cached_tokens": 29}}
    assert (
        Usage(30, 4, cached_tokens=29) == outcome(CODEC, [data(chunk(content="a"), chunk("stop"), report, DONE)]).usage
    )


def test_after_the_terminal_event_nothing_is_read() -> None:
    decoder = CODEC.decoder()
    assert decoder.feed(ANSWER + data(b"nonsense")).finish == "end_turn"
    assert decoder.feed(data(b"nonsense", chunk(content="late"))).texts == []
    assert decoder.end().finish is None


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"type": "server_error"}, FaultKind.TRANSIENT),
        ({"type": "tokens", "code": "rate_limit_exceeded"}, FaultKind.RATE_LIMITED),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, FaultKind.UNUSABLE),
        ({"type": "invalid_request_error"}, FaultKind.REJECTED),
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, FaultKind.UNUSABLE),
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, FaultKind.CONTEXT_LENGTH),
        (
            {"message": "maximum context length is 4096", "type": "BadRequestError", "code": 400},
            FaultKind.CONTEXT_LENGTH,
        ),
        ({"code": "502", "message": "no healthy upstream"}, FaultKind.TRANSIENT),
        ({"new": "shape"}, FaultKind.TRANSIENT),
        ("only words", FaultKind.TRANSIENT),
        (True, FaultKind.TRANSIENT),
        (["odd"], FaultKind.TRANSIENT),
    ],
)
def test_an_error_in_band_means_what_its_status_would(error: object, fault: FaultKind) -> None:
    read = outcome(CODEC, [data(chunk(content="a"), {"error": error}, DONE)])
    assert (read.texts, read.fault) == (("a",), fault)


def test_a_fault_behind_text_waits_for_the_next_call_and_one_alone_does_not() -> None:
    decoder = CODEC.decoder()
    assert decoder.feed(data(chunk(content="a"), {"error": "x"})).texts == ["a"]
    with pytest.raises(UpstreamFault):
        decoder.feed(b"")
    with pytest.raises(UpstreamFault):
        decoder.end()
    with pytest.raises(UpstreamFault):
        CODEC.decoder().feed(data({"error": "x"}))


def test_half_a_surrogate_pair_is_kept_for_the_engine_to_join() -> None:
    halves = [chunk(content="a\ud83d"), chunk(content="\ude00")]
    assert outcome(CODEC, [data(*halves, chunk("stop"), DONE)]).texts == ("a\ud83d", "\ude00")


def test_a_fault_never_holds_the_upstreams_words() -> None:
    for event in (b'{"error": {"message": "sk-secret"}}', b'{"choices": "sk-secret"}', b'{"sk-secret \\ud83d'):
        with pytest.raises(UpstreamFault) as caught:
            CODEC.decoder().feed(data(event))
        assert "secret" not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"


events = st.sampled_from(
    [
        data(chunk(content="Grüße 👋")),
        data(chunk(content="\ud83d"), chunk(content="\ude00")),
        data(chunk(reasoning="hm"), used(7, 2)),
        data(chunk("length")),
        data({"error": {"type": "server_error"}}),
        data(b"nonsense"),
        data(DONE),
        b": ping\r\n\r\n",
        b"\xff\xfe\n",
    ]
)


@given(st.lists(events, max_size=8).map(b"".join), places())
def test_the_outcome_is_the_same_for_every_split(stream: bytes, at: list[int]) -> None:
    assert_same_for_every_split(CODEC, stream, at)


def test_a_request_has_its_place_its_headers_and_its_body() -> None:
    call = replace(CALL, system="Be brief.", temperature=0.5)
    request = CODEC.encode(call, base_url=None, api_key="sk-1\n")
    assert request.url == "https://api.openai.com/v1/chat/completions"
    assert dict(request.headers) == {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Authorization": "Bearer sk-1",
        "Content-Type": "application/json",
    }
    assert json.loads(request.body) == {
        "model": "model-a",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 100,
        "temperature": 0.5,
    }
    assert "sk-1" not in repr(request)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://localhost:8080/v1", "http://localhost:8080/v1/chat/completions"),
        ("http://localhost:8080/v1/", "http://localhost:8080/v1/chat/completions"),
        ("https://x.example/d?api-version=1", "https://x.example/d/chat/completions?api-version=1"),
    ],
)
def test_a_base_url_is_joined_and_keeps_its_query(base: str, url: str) -> None:
    assert CODEC.encode(CALL, base_url=base, api_key=None).url == url


def test_without_a_key_no_header_claims_one_and_azure_gets_its_own() -> None:
    assert "Authorization" not in dict(CODEC.encode(CALL, base_url=None, api_key=None).headers)
    azure = dict(CODEC.encode(CALL, base_url="https://me.openai.azure.com/openai/v1", api_key="k").headers)
    assert azure["api-key"] == "k"
    assert "Authorization" not in azure


def test_a_key_that_no_header_can_hold_is_a_fault_that_does_not_quote_it() -> None:
    with pytest.raises(UpstreamFault, match=r"^unusable: the key cannot be sent in a header$"):
        CODEC.encode(CALL, base_url=None, api_key="sk-\u2026secret")


def test_thinking_raises_the_ceiling_and_sets_the_effort() -> None:
    body = body_of(
        OpenAICodec(Options(thinking="high", thinking_allowance_tokens=5000, max_tokens_field="max_tokens")), CALL
    )
    assert (body["reasoning_effort"], body["max_tokens"]) == ("high", 5100)
    assert "max_completion_tokens" not in body


def test_the_temperature_is_clamped_or_left_out() -> None:
    assert body_of(CODEC, replace(CALL, temperature=3.0))["temperature"] == 2
    assert "temperature" not in body_of(OpenAICodec(Options(send_temperature=False)), replace(CALL, temperature=1.0))


def test_the_hosts_extra_body_never_wins_over_the_gateways_fields() -> None:
    extra = {
        "stream": False,
        "max_tokens": 10**6,
        "max_completion_tokens": 10**6,
        "stream_options": {"include_usage": False, "include_obfuscation": False},
        "seed": 7,
    }
    body = body_of(OpenAICodec(Options(extra_body=extra)), CALL)
    assert (body["stream"], body["max_completion_tokens"], body["seed"]) == (True, 100, 7)
    assert body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "max_tokens" not in body


def test_turns_are_sent_as_they_are() -> None:
    messages = (Message.of("user", "a"), Message.of("user", "b"), Message.of("assistant", "c"))
    sent = body_of(CODEC, replace(CALL, messages=messages))["messages"]
    assert sent == [
        {"role": role, "content": text} for role, text in (("user", "a"), ("user", "b"), ("assistant", "c"))
    ]


# -- requests that compatible servers want otherwise ---------------------------------------------------------------------


def test_the_system_text_goes_into_the_first_user_turn_of_a_model_without_the_role() -> None:
    messages = (Message.of("assistant", "Hello"), Message.of("user", "Hi"), Message.of("user", "again"))
    call = replace(CALL, system="Be brief.", messages=messages)
    sent = body_of(OpenAICodec(Options(system_role="user")), call)["messages"]
    assert sent == [
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Be brief.\n\nHi"},
        {"role": "user", "content": "again"},
    ]


def test_turns_are_merged_for_models_that_want_strict_alternation() -> None:
    messages = (Message.of("user", "a"), Message.of("user", "b"), Message.of("assistant", "c"))
    sent = body_of(OpenAICodec(Options(merge_turns=True)), replace(CALL, messages=messages))["messages"]
    assert sent == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}]


def test_the_system_text_can_go_into_the_developer_role() -> None:
    sent = body_of(OpenAICodec(Options(system_role="developer")), replace(CALL, system="Be brief."))["messages"]
    assert sent == [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_usage_can_be_left_unasked() -> None:
    assert "stream_options" not in body_of(OpenAICodec(Options(stream_usage=False)), CALL)


@pytest.mark.parametrize(
    ("base_url", "header", "sent"),
    [
        ("https://x.openai.azure.com/openai/v1", None, ("api-key", "k")),
        ("https://x.openai.azure.us/openai/v1", None, ("api-key", "k")),
        ("https://azure.com.evil.example/v1", None, ("Authorization", "Bearer k")),
        ("https://x.openai.azure.com/openai/v1", "Authorization", ("Authorization", "Bearer k")),
        ("https://llm.example/v1", "x-api-key", ("x-api-key", "k")),
    ],
)
def test_the_key_goes_into_the_header_that_the_server_reads(
    base_url: str, header: str | None, sent: tuple[str, str]
) -> None:
    request = OpenAICodec(Options(api_key_header=header)).encode(CALL, base_url=base_url, api_key=" k ")
    assert sent in request.headers


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [], "x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 4}}},
        {"choices": [{"delta": {}, "usage": {"prompt_tokens": 9, "completion_tokens": 4}}]},
        {"choices": [], "usage": {"input_tokens": 9, "output_tokens": 4}},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 13}},
        {"choices": [], "usage": {"completion_tokens": 4, "total_tokens": 13}},
    ],
)
def test_usage_is_found_wherever_and_however_it_is_reported(event: dict[str, object]) -> None:
    read = outcome(CODEC, [data(chunk(content="Hi"), chunk("stop"), event, DONE)])
    assert (9, 4) == (read.usage and read.usage.input_tokens, read.usage and read.usage.output_tokens)


def test_an_error_in_a_vendors_own_member_is_a_fault() -> None:
    read = outcome(CODEC, [data(chunk(content="Hi"), {"x_groq": {"error": "over capacity"}})])
    assert read.fault is not None


@pytest.mark.parametrize("reason", ["error", "ERROR: out of memory", "abort"])
def test_a_failure_word_as_finish_reason_is_a_failure(reason: str) -> None:
    assert outcome(CODEC, [data(chunk(content="Hi"), chunk(reason), DONE)]).fault is FaultKind.TRANSIENT


def test_content_and_thinking_in_parts_come_in_order() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hi"}]
    read = outcome(CODEC, [data(chunk(content=parts), chunk(content=[{"thinking": "so"}]), chunk("stop"), DONE)])
    assert (("Hi",), ("hm", "so")) == (read.texts, read.thinking)


def test_a_stream_that_is_done_before_it_began_is_a_fault() -> None:
    assert outcome(CODEC, [data(DONE)]).fault is FaultKind.TRANSIENT


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens_details": []},
        {"completion_tokens_details": 0, "prompt_tokens_details": "none"},
        {"prompt_tokens_details": {"cached_tokens": []}},
        {"completion_tokens_details": {"reasoning_tokens": {}}},
    ],
)
def test_a_detail_of_another_type_spoils_no_answer(usage: dict[str, object]) -> None:
    report = {"prompt_tokens": 9, "completion_tokens": 4, **usage}
    body = data({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": report}, b"[DONE]")
    found = outcome(OpenAICodec(), [body])
    assert (("Hi",), "end_turn", Usage(9, 4)) == (found.texts, found.finish, found.usage)


@pytest.mark.parametrize("usage", [[], 7, "none", [{"prompt_tokens": 1}]])
def test_a_report_that_is_none_is_left_to_the_estimate(usage: object) -> None:
    choice = {"delta": {"content": "Hi"}, "finish_reason": "stop", "usage": usage}
    found = outcome(OpenAICodec(), [data({"choices": [choice], "usage": usage}, b"[DONE]")])
    assert (("Hi",), "end_turn", None) == (found.texts, found.finish, found.usage)


def test_a_call_that_never_gets_a_name_is_no_call() -> None:
    piece = {"index": 0, "id": "call_1", "function": {"arguments": "{}"}}
    chunks = [{"choices": [{"delta": {"content": "Hi", "tool_calls": [piece]}}]}]
    found = outcome(
        OpenAICodec(), [data(*chunks, {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}, b"[DONE]")]
    )
    assert (("Hi",), "end_turn") == (found.texts, found.finish)
