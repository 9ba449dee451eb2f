"""OpenAI's Chat Completions, and the many servers that speak it: bytes ↔ values, no I/O.

The terminal event is `[DONE]`, or a `finish_reason` after which the body ends cleanly; usage comes between the two
(`choices: []`), with any chunk, or not at all. `[DONE]` after a text is a finish by itself; a body that ends without
either is a broken reply.

Tolerated, because some server does it: `usage: null`, `choices: null`, `delta: null`, an empty `finish_reason`, content
as a list of parts, thinking as `reasoning_content` or `reasoning`, reasoning tokens counted beside the completion's, an
`error` that is only a string. Unknown members (`obfuscation`, `logprobs`, `tool_calls`) are skipped unread.
"""

import re
from urllib.parse import urlsplit

import msgspec

from floop_gateway_core.providers.base import Delta, Thinking, UpstreamCall, UpstreamRequest
from floop_gateway_core.providers.codec import JsonEventCodec
from floop_gateway_core.providers.encoding import (
    ceiling,
    clamped,
    endpoint,
    present,
    request,
    system_text,
    text_of,
    turns,
)
from floop_gateway_core.providers.faults import error_of, stream_error_fault
from floop_gateway_core.providers.finish import finish_reason, is_failure
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.reading import count, loads, malformed_reply, read, report
from floop_gateway_core.types import FinishReason, Usage

__all__ = ["OpenAICodec"]

_BASE_URL = "https://api.openai.com/v1"
_MAX_TOKENS_FIELDS = frozenset({"max_tokens", "max_completion_tokens"})
_TEMPERATURE_MAX = 2.0
_REFUSAL = rb"(?:extra|unknown|unrecognized|unexpected|unsupported|not (?:supported|permitted|allowed)|forbidden)"
_REFUSES_STREAM_OPTIONS = re.compile(
    rb"%b.{0,80}stream_options|stream_options.{0,80}%b" % (_REFUSAL, _REFUSAL), re.IGNORECASE | re.DOTALL
)
_REFUSES_SYSTEM_ROLE = re.compile(
    rb"system role (?:is )?not supported|(?:does not|doesn't) support (?:the )?system|only user and assistant roles"
    rb"|roles must alternate",
    re.IGNORECASE,
)


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: "list[_Part] | str | None" = None


class _Delta(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: object = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: object = None


class _Usage(msgspec.Struct):
    """A usage report, with all the names that servers use for a count."""

    prompt_tokens: object = None
    input_tokens: object = None
    completion_tokens: object = None
    output_tokens: object = None
    total_tokens: object = None
    prompt_tokens_details: _InputDetails | None = None
    input_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: object = None
    cached_tokens: object = None
    num_cached_tokens: object = None
    cache_read_input_tokens: object = None
    reasoning_tokens: object = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None


class _Groq(msgspec.Struct):
    usage: _Usage | None = None
    error: object = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    x_groq: _Groq | None = None
    error: object = None


_CHUNK = msgspec.json.Decoder(_Chunk)


def _messages(call: UpstreamCall, options: Options) -> list[dict[str, str]]:
    """Return the messages, with the system text in the role that the server knows."""
    system = system_text(call)
    said = [(m.role, text_of(m)) for m in call.messages if m.role != "system"]
    if options.merge_turns:
        said = turns(call)  # type: ignore[assignment]
    if not system:
        return [{"role": role, "content": text} for role, text in said]
    if options.system_role != "user":
        return [
            {"role": options.system_role, "content": system},
            *({"role": role, "content": text} for role, text in said),
        ]
    for index, (role, text) in enumerate(said):
        if role == "user":
            said[index] = ("user", f"{system}\n\n{text}")
            break
    return [{"role": role, "content": text} for role, text in said]


def _ceiling_field(options: Options, base_url: str | None) -> str:
    """Return the name of the ceiling: OpenAI's own, or the one that every compatible server knows."""
    return options.max_tokens_field or ("max_tokens" if base_url else "max_completion_tokens")


_AZURE = (".azure.com", ".azure.us", ".azure.cn", ".azure-api.net", ".azure-api.us", ".azure-api.cn")


def _auth(base_url: str, api_key: str | None, header: str | None) -> tuple[tuple[str, str], ...]:
    """Return the header with the key. Azure reads `Authorization` as an Entra token, so its keys go into `api-key`."""
    key = (api_key or "").strip()
    if not key:
        return ()
    if header is None and (urlsplit(base_url).hostname or "").endswith(_AZURE):
        header = "api-key"
    if header is None or header.lower() == "authorization":
        return (("Authorization", f"Bearer {key}"),)
    return ((header, key),)


class _Reader:
    """The state of one answer: how it finished, once that is known."""

    __slots__ = ("_finish", "_refused", "_written")

    def __init__(self) -> None:
        self._finish: FinishReason | None = None
        self._refused = False
        self._written = False

    def event(self, data: bytes, delta: Delta) -> None:
        chunk = read(_CHUNK, data)
        if chunk is None:
            return self._mark(data.strip(), delta)
        if chunk.error:
            raise stream_error_fault(chunk.error)
        choice = chunk.choices[0] if chunk.choices else None
        if choice is not None:
            self._choice(choice, delta)
        if chunk.usage is not None or chunk.x_groq is not None or (choice is not None and choice.usage is not None):
            self._reported(chunk, choice, delta)
        return None

    def _mark(self, data: bytes, delta: Delta) -> None:
        """Read an event that is not JSON: the end mark, or a heartbeat."""
        if data == b"[DONE]":
            if self._finish is None and self._written:
                self._finish = "end_turn"
            if self._finish is None:
                raise malformed_reply("the stream was done before it began")
            self.end(delta)
        elif data:
            raise malformed_reply("an event is malformed")

    @staticmethod
    def _reported(chunk: _Chunk, choice: _Choice | None, delta: Delta) -> None:
        """Read usage from wherever servers put it; the first report that counts something wins."""
        if chunk.x_groq is not None and chunk.x_groq.error:
            raise stream_error_fault(chunk.x_groq.error)
        for reporting in (chunk, choice, chunk.x_groq):
            if reporting is not None and reporting.usage is not None:
                usage = _usage(reporting.usage)
                if usage is not None:
                    delta.usage, delta.usage_is_complete = usage, True
                    break

    def _choice(self, choice: _Choice, delta: Delta) -> None:
        if choice.finish_reason:
            if is_failure(choice.finish_reason):
                raise malformed_reply("the upstream gave up on its answer")
            self._finish = finish_reason(choice.finish_reason)
        added = choice.delta or choice.message
        if added is None:
            return
        thought = added.reasoning_content or added.reasoning  # never both: some servers send one text under both names
        if thought:
            delta.items.append(Thinking(thought))
        content = added.content
        if content:
            self._written = True
            if type(content) is str:
                delta.items.append(content)
            else:
                _parts(content, delta)
        if added.refusal:
            self._written = self._refused = True
            delta.items.append(added.refusal)
        if thought or content or added.refusal:
            delta.usage_is_complete = False

    def whole(self, data: bytes, delta: Delta) -> None:
        """Read an answer that is one object."""
        self.event(data, delta)
        if not self._written and self._finish is None:
            raise stream_error_fault(error_of(loads(data)))
        self._finish = self._finish or "end_turn"

    def end(self, delta: Delta) -> None:
        """The end of the body ends an answer that has finished."""
        refused = self._refused and self._finish == "end_turn"
        delta.finish = "refusal" if refused else self._finish


def _parts(parts: "list[_Part] | str", delta: Delta) -> None:
    """Add content in parts, as Mistral's reasoning models send it."""
    for part in parts:
        if not isinstance(part, _Part):
            continue
        if part.text:
            delta.items.append(part.text)
        if isinstance(part.thinking, str):
            delta.items.append(Thinking(part.thinking))
        elif part.thinking:
            delta.items.extend(Thinking(thought.text) for thought in part.thinking if thought.text)


def _usage(usage: _Usage) -> Usage | None:
    """Read a usage report, each count by itself. A missing count follows from the total, else it is 0.

    Reasoning counts as output: a total that is larger than the sum holds reasoning that was counted beside it.
    """
    given = _first(usage.prompt_tokens, usage.input_tokens)
    produced = _first(usage.completion_tokens, usage.output_tokens)
    total = count(usage.total_tokens)
    if given is None and produced is None:
        return None
    reasoning = _first(
        *(
            details.reasoning_tokens
            for details in (usage.completion_tokens_details, usage.output_tokens_details)
            if details
        ),
        usage.reasoning_tokens,
    )
    if total is not None and given is not None and given + (produced or 0) < total and given:
        beside = total - given - (produced or 0)
        produced = total - given
        reasoning = max(reasoning or 0, beside) if reasoning is not None else None
    elif total is not None and given is None and produced is not None:
        given = max(0, total - produced)
    cached = _first(
        *(details.cached_tokens for details in (usage.prompt_tokens_details, usage.input_tokens_details) if details),
        usage.prompt_cache_hit_tokens,
        usage.cached_tokens,
        usage.num_cached_tokens,
        usage.cache_read_input_tokens,
    )
    return report(given or 0, produced or 0, cached, reasoning)


def _first(*values: object) -> int | None:
    """Return the first count that makes sense, one that is not 0 before one that is."""
    counts = [found for value in values if (found := count(value)) is not None]
    return next((one for one in counts if one), counts[0] if counts else None)


class OpenAICodec(JsonEventCodec):
    """OpenAI's Chat Completions."""

    reader = _Reader

    def encode(self, call: UpstreamCall, *, base_url: str | None, api_key: str | None) -> UpstreamRequest:
        """Return the request."""
        messages = _messages(call, self.options)
        body: dict[str, object] = {
            "model": call.model,
            "messages": messages,
            "stream": True,
            _ceiling_field(self.options, base_url): ceiling(call, self.options),
        }
        if self.options.stream_usage:
            body["stream_options"] = {"include_usage": True}
        if self.options.thinking is not None:
            body["reasoning_effort"] = self.options.thinking
        if call.temperature is not None and self.options.send_temperature:
            body["temperature"] = clamped(call.temperature, _TEMPERATURE_MAX)
        sampling = call.sampling
        body |= present(
            top_p=sampling.top_p,
            stop=list(sampling.stop) or None,
            seed=sampling.seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
        )
        base = base_url or _BASE_URL
        # The ceiling has two names; `extra_body` may not raise it under the other one.
        return request(
            endpoint(base, "/chat/completions"),
            _auth(base, api_key, self.options.api_key_header),
            body,
            self.options.extra_body,
            _MAX_TOKENS_FIELDS,
        )

    def without_refused(self, body: bytes) -> "OpenAICodec | None":
        """Return a codec that leaves out what a refusal names, if that can be left out and is not yet."""
        changes: dict[str, object] = {}
        if _REFUSES_STREAM_OPTIONS.search(body):
            changes["stream_usage"] = False
        if _REFUSES_SYSTEM_ROLE.search(body):
            changes |= {"system_role": "user", "merge_turns": True}
        if all(getattr(self.options, name) == value for name, value in changes.items()):
            return None
        return OpenAICodec(self.options.model_copy(update=changes))
