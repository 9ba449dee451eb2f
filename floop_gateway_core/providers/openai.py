"""OpenAI's Chat Completions, and the many servers that speak it: bytes ↔ values, no I/O.

The terminal event is `[DONE]` behind a `finish_reason`; usage comes between the two (`choices: []`), with any chunk, or
not at all. `[DONE]` without a `finish_reason` is a broken reply, and so is a body that ends without `[DONE]`.

Tolerated, because some server does it: `usage: null`, `choices: null`, `delta: null`, an empty `finish_reason`, content
as a list of parts, thinking as `reasoning_content` or `reasoning`, reasoning tokens counted beside the completion's, an
`error` that is only a string. Unknown members (`obfuscation`, `logprobs`, `tool_calls`) are skipped unread.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from floop_gateway_core.providers.base import Decoder, Delta, UpstreamCall, UpstreamFault, UpstreamRequest
from floop_gateway_core.providers.encoding import ceiling, clamped, endpoint, request, system_text
from floop_gateway_core.providers.faults import http_fault, stream_error_fault
from floop_gateway_core.providers.reading import StreamDecoder, count, malformed_reply, read, report
from floop_gateway_core.types import FinishReason, Usage

__all__ = ["OpenAICodec"]

_BASE_URL = "https://api.openai.com/v1"
_MAX_TOKENS_FIELDS = frozenset({"max_tokens", "max_completion_tokens"})
_TEMPERATURE_MAX = 2.0

_FINISH: Mapping[str, FinishReason] = {
    "length": "max_tokens",
    "model_length": "max_tokens",  # Mistral
    "content_filter": "content_filter",
}  # stop, tool_calls, function_call and whatever comes next: the model ended its turn
_FAILED = frozenset({"error", "abort", "insufficient_system_resource"})
"""What OpenRouter, vLLM and DeepSeek finish with where the answer failed: a broken reply, and no finish."""


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: "list[_Part] | str | None" = None


class _Delta(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: object = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: object = None


class _Usage(msgspec.Struct):
    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: object = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: object = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class OpenAICodec:
    """OpenAI's Chat Completions. Stateless: one serves every deployment and every request."""

    content_type = "text/event-stream"

    def encode(self, call: UpstreamCall, *, base_url: str | None, api_key: str | None) -> UpstreamRequest:
        """Write the request. `thinking_tokens` has no field here: it only raises the ceiling."""
        system = system_text(call)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": m.role, "content": m.text} for m in call.messages if m.role != "system"]
        body: dict[str, object] = {
            "model": call.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            call.max_tokens_field: ceiling(call),
        }
        if call.thinking is not None:
            body["reasoning_effort"] = call.thinking
        if call.temperature is not None and call.send_temperature:
            body["temperature"] = clamped(call.temperature, _TEMPERATURE_MAX)
        base = base_url or _BASE_URL
        # The ceiling has two names; `extra_body` may not raise it under the other one.
        return request(
            endpoint(base, "/chat/completions"), _auth(base, api_key), body, call.extra_body, _MAX_TOKENS_FIELDS
        )

    def decoder(self) -> Decoder:
        return StreamDecoder(_Reader())

    def fault(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> UpstreamFault:
        return http_fault(status, headers, body, now)


def _auth(base_url: str, api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Azure takes a key as `api-key` and reads `Authorization` as an Entra token, so it gets only the former."""
    key = (api_key or "").strip()
    if not key:
        return ()
    if (urlsplit(base_url).hostname or "").endswith(".azure.com"):
        return (("api-key", key),)
    return (("Authorization", f"Bearer {key}"),)


class _Reader:
    """The state of one answer: how it finished, once that is known."""

    __slots__ = ("_finish", "_refused")

    def __init__(self) -> None:
        self._finish: FinishReason | None = None
        self._refused = False

    def event(self, data: bytes, delta: Delta) -> None:
        if data == b"[DONE]":
            if self._finish is None:
                raise malformed_reply("the stream was done before it finished")
            delta.finish = "refusal" if self._refused and self._finish == "end_turn" else self._finish
            return
        chunk = read(_CHUNK, data)
        if chunk is None:
            if not data.strip():
                return  # a heartbeat
            raise malformed_reply("an event is malformed")
        if chunk.error:
            raise stream_error_fault(chunk.error)
        if chunk.choices:
            self._choice(chunk.choices[0], delta)
        if chunk.usage is not None:
            usage = _usage(chunk.usage)
            if usage is not None:
                delta.usage, delta.usage_is_complete = usage, True

    def _choice(self, choice: _Choice, delta: Delta) -> None:
        if choice.finish_reason:
            if choice.finish_reason in _FAILED:
                raise malformed_reply("the upstream gave up on its answer")
            self._finish = _FINISH.get(choice.finish_reason, "end_turn")
        added = choice.delta
        if added is None:
            return
        thought = added.reasoning_content or added.reasoning  # never both: some servers send one text under both names
        if thought:
            delta.thinking.append(thought)
            delta.usage_is_complete = False
        content = added.content
        if content:
            if type(content) is str:
                delta.texts.append(content)
            else:
                _parts(content, delta)
            delta.usage_is_complete = False
        if added.refusal:
            self._refused = True
            delta.texts.append(added.refusal)
            delta.usage_is_complete = False

    def end(self, delta: Delta) -> None:
        """The body's end is never the terminal event."""


def _parts(parts: "list[_Part] | str", delta: Delta) -> None:
    """Add content in parts, as Mistral's reasoning models send it."""
    for part in parts:
        if not isinstance(part, _Part):
            continue
        if part.text:
            delta.texts.append(part.text)
        if isinstance(part.thinking, str):
            delta.thinking.append(part.thinking)
        elif part.thinking:
            delta.thinking.extend(thought.text for thought in part.thinking if thought.text)


def _usage(usage: _Usage) -> Usage | None:
    """Read a report; a count that is missing follows from the total, else there is no report.

    Reasoning counts as output. Servers that count it beside the completion (xAI) show it in their total.
    """
    given, produced, total = count(usage.prompt_tokens), count(usage.completion_tokens), count(usage.total_tokens)
    if total is not None:
        if produced is None and given is not None:
            produced = max(0, total - given)
        elif given is None and produced is not None:
            given = max(0, total - produced)
    if given is None or produced is None:
        return None
    details = usage.completion_tokens_details
    reasoning = count(details.reasoning_tokens) if details is not None else None
    if reasoning and total == given + produced + reasoning:
        produced += reasoning
    cached = count(usage.prompt_tokens_details.cached_tokens) if usage.prompt_tokens_details is not None else None
    if cached is None:
        cached = count(usage.prompt_cache_hit_tokens)  # DeepSeek
    return report(given, produced, cached, reasoning)
