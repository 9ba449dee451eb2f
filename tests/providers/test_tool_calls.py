"""Calls of tools as servers send them: in pieces, interleaved, whole, without ids or indexes, in the old form."""

import json
from typing import Any

import pytest

from floop_gateway_core.providers.anthropic import AnthropicCodec
from floop_gateway_core.providers.base import Codec
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.types import Piece, Thought, ToolEnd, ToolPiece


def decoded(codec: Codec, body: bytes, size: int) -> tuple[list[str | Piece], str | None]:
    """Feed a body in chunks of a size; return its items and its finish."""
    decoder, items, finish = codec.decoder(), list[str | Piece](), None
    for at in range(0, len(body), size):
        delta = decoder.feed(body[at : at + size])
        items += delta.items
        finish = finish or delta.finish
        if finish:
            break
    if not finish:
        delta = decoder.end()
        items += delta.items
        finish = delta.finish
    return items, finish


def calls(items: list[str | Piece]) -> list[tuple[str, str]]:
    """Return (name, arguments) of each call, all of which have ended."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    ended = set()
    for item in items:
        if isinstance(item, ToolPiece):
            if item.id:
                assert item.index not in names
                names[item.index] = item.name
            arguments[item.index] = arguments.get(item.index, "") + item.arguments
        elif isinstance(item, ToolEnd):
            ended.add(item.index)
    assert ended == names.keys()
    return [(names[index], arguments[index]) for index in names]


def openai_body(*tool_calls: Any, finish: str | None = "tool_calls", **delta: Any) -> bytes:
    chunks: list[Any] = [{"choices": [{"delta": {"tool_calls": one}}]} for one in tool_calls]
    if delta:
        chunks.append({"choices": [{"delta": delta}]})
    if finish is not None:
        chunks.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + b"data: [DONE]\n\n"


def call(arguments: Any, *, index: int | None = 0, id: str | None = None, name: str | None = None) -> Any:
    found: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        found["index"] = index
    if id is not None:
        found["id"] = id
    if name is not None:
        found["function"]["name"] = name
    return found


BOTH = [("f", '{"a": 1}'), ("g", '{"b": 2}')]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (openai_body([call("", id="1", name="f")], [call('{"a"')], [call(": 1}")]), BOTH[:1]),
        (openai_body([call("", id="1", name="f")], [call("", index=1, id="2", name="g")], [call('{"b": 2', index=1)],
                     [call('{"a": 1}')], [call("}", index=1)]), BOTH),
        (openai_body([call('{"a": 1}', id="1", name="f"), call('{"b": 2}', index=1, id="2", name="g")]), BOTH),
        (openai_body([call('{"a": 1}', index=None, id="1", name="f")],
                     [call('{"b": 2}', index=None, id="2", name="g")]), BOTH),
        (openai_body([call('{"a": 1}', id="1", name="f")], [call('{"b": 2}', id="2", name="g")]), BOTH),
        (openai_body([call('{"a": 1}', index=None, name="f")], [call('{"b": 2}', index=None, name="g")]), BOTH),
        (openai_body([call('{"a"', index=None, name="f")], [call(": 1}", index=None)]), BOTH[:1]),
        (openai_body([call({"a": 1}, name="f")]), [("f", '{"a":1}')]),
        (openai_body([call(None, id="1", name="f")]), [("f", "{}")]),
        (openai_body([call('{"a": 1}', id="1")], [call("", name="f")]), BOTH[:1]),
        (openai_body([call('{"a": 1}', id="1", name="f")], finish="stop"), BOTH[:1]),
        (openai_body([call('{"a": 1}', id="1", name="f")], finish=None), BOTH[:1]),
        (openai_body(function_call={"name": "f", "arguments": '{"a": 1}'}, finish="function_call"), BOTH[:1]),
        # all calls at one index: a new id with a name, a name behind complete arguments, or another name begins a call
        (openai_body([call("", id="1", name="f")], [call('{"a": 1}')], [call("", id="2", name="g")],
                     [call('{"b": 2}')]), BOTH),
        (openai_body([call("", id="1", name="f")], [call('{"a"', id="1")], [call("", id="2", name="g")],
                     [call('{"b": 2}', id="2")], [call(": 1}", id="1")]), BOTH),
        (openai_body([call('{"a": 1}', name="f"), call('{"b": 2}', name="g")]), BOTH),
        (openai_body([call('{"a": 1}', id="", name="f")], [call('{"a": 2}', id="", name="f")]),
         [("f", '{"a": 1}'), ("f", '{"a": 2}')]),
        (openai_body([call('{"a": 1}', id="1", name="f")], [call('{"b": 2}', id="1", name="g")]), BOTH),
        (openai_body([call('{"a": 1}', index=None, id="1", name="f")],
                     [call('{"b": 2}', index=None, id="1", name="g")]), BOTH),
        # a name with each piece, a new id with each piece, and arguments that come twice are one call
        (openai_body([call('{"a"', id="1", name="f")], [call(": 1}", id="1", name="f")]), BOTH[:1]),
        (openai_body([call('{"a"', id="1", name="f")], [call(": 1}", id="2")]), BOTH[:1]),
        (openai_body([call('{"a": "}', id="1", name="f")], [call('\\"{"}', name="f")]), [("f", '{"a": "}\\"{"}')]),
        (openai_body([call('{"a": 1}', id="1", name="f")], [call('{"a": 1}')]), BOTH[:1]),
        (openai_body([call('{"x": 1}', id="0")], [call('{"a": 1}', index=1, id="1", name="f")]), BOTH[:1]),
        (openai_body([call('{"a": 1}', id="1", name="f")], [None]), BOTH[:1]),
    ],
)  # fmt: skip
def test_openais_servers_may_send_calls_in_any_form(body: bytes, wanted: Any, size: int) -> None:
    items, finish = decoded(OpenAICodec(), body, size)
    assert (wanted, "tool_use") == (calls(items), finish)
    ids = [item.id for item in items if isinstance(item, ToolPiece) and item.id]
    assert len(set(ids)) == len(wanted)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_whole_message_has_separate_calls_and_behind_deltas_it_repeats_them(size: int) -> None:
    whole = [call('{"a": 1}', id="1", name="f"), call('{"b": 2}', id="1", name="g")]
    body = json.dumps({"choices": [{"message": {"tool_calls": whole}, "finish_reason": "tool_calls"}]}).encode()
    assert BOTH == calls(decoded(OpenAICodec(), body, size)[0])
    assert BOTH == calls(decoded(OpenAICodec(), b"\xef\xbb\xbf" + body, size)[0])
    chunks: list[Any] = [
        {"choices": [{"delta": {"content": "Hi", "tool_calls": whole[:1]}}]},
        {"choices": [{"message": {"content": "Hi", "tool_calls": whole[:1]}, "finish_reason": "stop"}]},
    ]
    items, _ = decoded(OpenAICodec(), b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks), size)
    assert (BOTH[:1], 1) == (calls(items), items.count("Hi"))


def test_a_finish_for_tools_without_a_call_is_an_end() -> None:
    assert "end_turn" == decoded(OpenAICodec(), openai_body(content="Hi", finish="tool_calls"), 10_000)[1]


def anthropic_body(*events: Any) -> bytes:
    stop = [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in [*events, *stop])


def block(index: int, start: Any, *deltas: Any) -> list[Any]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_anthropics_blocks_become_pieces_and_thoughts_go_with_the_call(size: int) -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    whole = {"type": "tool_use", "id": "t2", "name": "g", "input": {"b": 2}}
    body = anthropic_body(
        *block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"},
               {"type": "signature_delta", "signature": "s"}),
        *block(1, {"type": "redacted_thinking", "data": "d"}),
        *block(2, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"}),
        *block(3, tool, {"type": "input_json_delta", "partial_json": '{"a"'},
               {"type": "input_json_delta", "partial_json": ": 1}"}),
        *block(4, whole),
        *block(5, {"type": "tool_use", "id": "t3", "name": "h", "input": {}}),
    )  # fmt: skip
    items, finish = decoded(AnthropicCodec(), body, size)
    assert ([*BOTH[:1], ("g", '{"b":2}'), ("h", "{}")], "tool_use") == (calls(items), finish)
    assert [Thought("hm"), Thought("", "s"), Thought(redacted="d"), "Hi"] == items[:4]
    first = next(item for item in items if isinstance(item, ToolPiece))
    assert [
        {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"},
    ] == json.loads(first.thoughts or "")  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_anthropics_servers_may_give_every_block_the_same_index(size: int) -> None:
    tools = [{"type": "tool_use", "id": id, "name": name, "input": {}} for id, name in (("t1", "f"), ("t2", "g"))]
    body = anthropic_body(
        *block(
            0, {"type": "server_tool_use", "id": "s", "name": "x"}, {"type": "input_json_delta", "partial_json": "{}"}
        ),
        *block(0, tools[0], {"type": "input_json_delta", "partial_json": '{"a": 1}'}),
        *block(0, tools[1], {"type": "input_json_delta", "partial_json": '{"b": 2}'}),
    )
    items, _ = decoded(AnthropicCodec(), body, size)
    assert BOTH == calls(items)
    assert {0, 1} == {item.index for item in items if isinstance(item, ToolPiece)}


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_geminis_calls_get_ids_and_keep_their_signatures(size: int) -> None:
    parts = [
        {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"},
        {"functionCall": {"name": "g"}},
    ]
    chunk = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    items, finish = decoded(GeminiCodec(), b"data: " + json.dumps(chunk).encode() + b"\n\n", size)
    assert ([("f", '{"a":1}'), ("g", "{}")], "tool_use") == (calls(items), finish)
    first, second = (item for item in items if isinstance(item, ToolPiece) and item.id)
    assert ("s", None) == (first.signature, second.signature)
    assert first.id != second.id
