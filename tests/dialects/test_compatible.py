"""What the compatible dialects read, without a server: turns, system texts, and each refusal with its path."""

import json
from typing import Any

import pytest

from floop_gateway_core.dialects.anthropic.parse import parse as parse_anthropic
from floop_gateway_core.dialects.compatible import model_list
from floop_gateway_core.dialects.openai.parse import parse as parse_openai
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call, ImagePart, Message

USER = {"role": "user", "content": "Hi"}


def openai(*messages: Any, **more: Any) -> Call | Refusal:
    return parse_openai(json.dumps({"messages": list(messages), **more}).encode())


def anthropic(*messages: Any, **more: Any) -> Call | Refusal:
    return parse_anthropic(json.dumps({"messages": list(messages), **more}).encode())


def turns(call: Call | Refusal) -> tuple[str | None, list[tuple[str, str]]]:
    assert isinstance(call, Call), call
    return call.system, [(message.role, message.text) for message in call.messages]


def test_openais_roles_become_a_system_text_and_turns() -> None:
    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = openai(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": text},
        USER,
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]},
        {"role": "assistant"},
        {"role": "user", "content": text},
    )
    assert turns(call) == (
        "Be brief.\n\nab",
        [("user", "Hi"), ("assistant", "No."), ("assistant", "Never."), ("assistant", ""), ("user", "ab")],
    )


def test_anthropics_system_may_stand_anywhere() -> None:
    call = anthropic(USER, {"role": "system", "content": "Late."}, system=[{"type": "text", "text": "Early."}])
    assert turns(call) == ("Early.", [("user", "Hi"), ("system", "Late.")])


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (openai("Hi"), "messages[0]"),
        (openai({"role": "user"}), "messages[0].content"),
        (openai({"role": "user", "content": 7}), "messages[0].content"),
        (openai({"role": "user", "content": ["Hi"]}), "messages[0].content[0]"),
        (openai({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text"),
        (openai({"role": "assistant", "tool_calls": [{}]}, USER), "messages[0].tool_calls[0]"),
        (openai({"role": "assistant", "content": "x"}), "messages"),
        (openai(*[USER] * 4097), "messages"),
        (openai({"role": "user", "content": [{"type": "text", "text": "x"}] * 16_385}), "messages"),
        (parse_openai(b'{"messages": 7}'), "messages"),
        (parse_openai(b"{}"), "messages"),
        (openai(USER, stream_options=7), "stream_options"),
        (openai(USER, stream_options={"include_usage": 1}), "stream_options"),
        (openai(USER, stop=[""]), "stop"),
        (openai(USER, stop=7), "stop"),
        (openai(USER, seed=1.5), "seed"),
        (openai(USER, max_tokens=0), "max_tokens"),
        (openai(USER, top_p=2), "top_p"),
        (openai(USER, user=7), "user"),
        (openai(USER, metadata=[]), "metadata"),
        (openai(USER, metadata={"a": 1}), "metadata"),
        (openai(USER, metadata={str(n): "x" for n in range(17)}), "metadata"),
        (openai(USER, stream="yes"), "stream"),
        (openai(USER, model=7), "model"),
        (anthropic({"role": "tool", "content": "x"}), "messages[0].role"),
        (anthropic({"role": "assistant", "content": "x"}), "messages"),
        (anthropic(*[{"role": "user", "content": 7}] * 3), "messages[0].content"),
        (anthropic(USER, metadata=7), "metadata"),
        (anthropic(USER, metadata={"user_id": 7}), "user"),
        (anthropic(USER, system=7), "system"),
        (anthropic(USER, tool_choice={"type": "any"}), "tool_choice"),
    ],
)
def test_a_refusal_names_its_field(answer: Call | Refusal, path: str) -> None:
    assert isinstance(answer, Refusal)
    assert answer.fields[0].path == path


def test_what_anthropics_clients_send_beside_a_call_is_named_and_not_refused() -> None:
    call = anthropic(
        USER, thinking={"type": "adaptive"}, output_config={"effort": "low"}, tool_choice={"type": "auto"},
        context_management={}, cache_control={"type": "ephemeral"},
    )  # fmt: skip
    assert isinstance(call, Call)
    assert call.ignored == ()
    assert [name for _, name in call.shape.wishes] == ["context_management", "cache_control", "thinking", "effort"]
    quiet = anthropic(USER, thinking={"type": "disabled"})
    assert isinstance(quiet, Call)
    assert (quiet.ignored, quiet.shape.wishes) == ((), (("no_thinking", "thinking"),))


def test_whatever_is_not_read_is_named_wherever_it_stands() -> None:
    call = openai(
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "x", "cache_control": {}}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}", "odd": 1}}]},
        {"role": "tool", "tool_call_id": "1", "content": "y"},
        temperature=1.5, store=True, service_tier="flex",
        stream_options={"include_usage": None, "include_obfuscation": True},
        tools=[{"type": "function", "function": {"name": "f", "extra": 1}}],
    )  # fmt: skip
    assert isinstance(call, Call)
    wanted = ("cache_control", "extra", "include_obfuscation", "name", "odd", "service_tier", "store")
    assert wanted == call.ignored
    assert ("temperature", "temperature") in call.shape.wishes
    quiet = openai(USER, store=False, service_tier="auto")
    assert isinstance(quiet, Call)
    assert () == quiet.ignored
    marked = anthropic(
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}, "odd": 1}]},
        tools=[{"name": "f", "input_schema": {}, "eager_input_streaming": True}], temperature=1.0,
    )  # fmt: skip
    assert isinstance(marked, Call)
    assert (("odd",), {"cache_control", "eager_input_streaming", "temperature"}) == (
        marked.ignored, {name for _, name in marked.shape.wishes},
    )  # fmt: skip


def test_a_schema_is_heard_under_its_other_names() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    for call in (
        openai(USER, response_format={"type": "json_object", "schema": schema}),
        anthropic(USER, output_format={"type": "json_schema", "schema": schema}),
    ):
        assert isinstance(call, Call)
        assert call.shape.response_format is not None
        assert schema == json.loads(call.shape.response_format.schema or "")


def test_instructions_alone_are_a_conversation_for_openais_clients() -> None:
    call = openai({"role": "system", "content": "x"}, {"role": "developer", "content": "y"})
    assert isinstance(call, Call)
    assert (None, (Message.of("user", "x\n\ny"),)) == (call.system, call.messages)


def test_an_inline_image_may_have_parameters() -> None:
    url = "data:image/png;name=a.png;charset=utf-8;base64,AAAA"
    call = openai({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    assert isinstance(call, Call)
    assert (ImagePart(None, "image/png", "AAAA"),) == call.messages[0].content


def test_a_list_of_no_models_is_a_list() -> None:
    answer = model_list("/v1/models", [])
    assert not isinstance(answer, Refusal)
    assert json.loads(answer[1]) == {"object": "list", "data": [], "has_more": False}


def test_a_model_may_be_called_models() -> None:
    answer = model_list("/v1/models/models", ["models"])
    assert not isinstance(answer, Refusal)
    assert json.loads(answer[1])["id"] == "models"
