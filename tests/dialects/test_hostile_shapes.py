"""Bodies that are wrong anywhere: each is a call that every vendor's codec can write, or a refusal."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from floop_gateway_core.dialects.anthropic.parse import parse as parse_anthropic
from floop_gateway_core.dialects.openai.parse import parse as parse_openai
from floop_gateway_core.errors import Refusal
from floop_gateway_core.policy.tokens.estimate import estimate_messages
from floop_gateway_core.providers.anthropic import AnthropicCodec
from floop_gateway_core.providers.base import UpstreamCall
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.providers.options import Options

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OPENAI: Any = {
    "model": "smart", "stream": True, "stream_options": {"include_usage": True}, "stop": ["x"], "user": "u",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}", "detail": "low"}}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"},
             "extra_content": {"google": {"thought_signature": "x"}, "anthropic": {"thinking_blocks": [{"type": "t"}]}}}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "r"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": True,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "reasoning_effort": "low",
}  # fmt: skip
ANTHROPIC: Any = {
    "model": "smart", "max_tokens": 5, "system": [{"type": "text", "text": "s"}], "stop_sequences": ["x"],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "a"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
            {"type": "document", "source": {"type": "text", "data": "x"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "redacted_thinking", "data": "d"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": [
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]}]},
        {"role": "system", "content": "z"}],
    "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": {}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000}, "context_management": {"edits": []},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
}  # fmt: skip
JUNK: Any = (
    None, True, 0, -1, 1.5, 10**30, "", "x", "\0", [], {}, [None], {"type": "text"}, {"type": []}, [{"type": {}}],
    "https://a b", "data:image/png;base64,!!!", "a" * 300, {"a": {"b": []}},
)  # fmt: skip
CODECS = (
    OpenAICodec(),
    OpenAICodec(Options(system_role="user", merge_turns=True)),
    AnthropicCodec(Options(thinking_tokens=2048)),
    AnthropicCodec(Options(thinking="high")),
    GeminiCodec(Options(thinking_tokens=2048)),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def spoilt(body: Any, chance: random.Random) -> Any:
    body = copy.deepcopy(body)
    for _ in range(chance.choice((1, 1, 2, 3))):
        if not (found := list(places(body))):
            return body
        *way, last = chance.choice(found)
        holder = body
        for key in way:
            holder = holder[key]
        if chance.random() < 0.8:
            holder[last] = copy.deepcopy(chance.choice(JUNK))
        else:
            del holder[last]
    return body


@pytest.mark.parametrize(("body", "parse"), [(OPENAI, parse_openai), (ANTHROPIC, parse_anthropic)])
def test_a_body_that_is_wrong_anywhere_is_refused_or_can_be_sent(body: Any, parse: Any) -> None:
    chance, calls = random.Random(1), 0
    for _ in range(1500):
        call = parse(json.dumps(spoilt(body, chance)).encode())
        if isinstance(call, Refusal):
            assert 400 == call.status
            assert call.body
            continue
        calls += 1
        assert estimate_messages(call.messages, call.system).upper > 0
        for codec in CODECS:
            asked = UpstreamCall("m", call.messages, call.system, 4000, sampling=call.sampling, shape=call.shape)
            assert json.loads(codec.encode(asked, base_url=None, api_key="k").body)
    assert 100 < calls < 1400
