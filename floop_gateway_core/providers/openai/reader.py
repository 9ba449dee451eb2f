"""OpenAI's Chat Completions, and the many servers that speak it: bytes ↔ values, no I/O.

The terminal event is `[DONE]`, or a `finish_reason` after which the body ends cleanly; usage comes between the two
(`choices: []`), with any chunk, or not at all. `[DONE]` after a text is a finish by itself; a body that ends without
either is a broken reply.

Tolerated, because some server does it: `usage: null`, `choices: null`, `delta: null`, an empty `finish_reason`, content
as a list of parts, thinking as `reasoning_content` or `reasoning`, reasoning tokens counted beside the completion's, an
`error` that is only a string; whole calls of tools, calls without ids or indexes, arguments as an object, the old
`function_call`. Unknown members (`obfuscation`, `logprobs`) are skipped unread.
"""

from typing import Any

import msgspec

from floop_gateway_core.providers.base import Delta
from floop_gateway_core.providers.faults import error_of, stream_error_fault
from floop_gateway_core.providers.finish import finish_reason, is_failure
from floop_gateway_core.providers.reading import count, loads, malformed_reply, read, report
from floop_gateway_core.providers.tool_calls import CallPieces
from floop_gateway_core.types import FinishReason, RefusalStart, Thought, Usage

__all__ = ["Reader"]


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: "list[_Part] | str | None" = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: object = None


class _ToolCall(msgspec.Struct):
    index: object = None
    id: object = None
    function: _Function | None = None
    extra_content: object = None


class _Delta(msgspec.Struct):
    content: str | list[_Part | str | None] | None = None
    tool_calls: list[_ToolCall | None] | None = None
    function_call: _Function | None = None
    refusal: str | None = None
    reasoning_content: object = None
    reasoning: object = None


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
    cache_creation_input_tokens: object = None
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
    type: object = None
    name: object = msgspec.field(default=None, name="object")


_CHUNK = msgspec.json.Decoder(_Chunk)


class Reader:
    """The state of one answer: how it finished, once that is known."""

    __slots__ = ("_calls", "_finish", "_refused", "_written")

    def __init__(self) -> None:
        self._finish: FinishReason | None = None
        self._refused = False
        self._written = False
        self._calls: CallPieces | None = None

    def event(self, data: bytes, delta: Delta) -> None:
        """Read one event."""
        chunk = read(_CHUNK, data)
        if chunk is None:
            return self._mark(data.strip(), delta)
        if chunk.error or chunk.name == "error" or chunk.type == "error":
            raise stream_error_fault(error_of(loads(data)))
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
                raise malformed_reply("the stream ended with [DONE] before any content")
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
        added = choice.delta
        if added is None and not self._written:  # behind deltas, a whole message repeats what has come
            added = choice.message
        if added is None:
            return
        thought = added.reasoning_content or added.reasoning  # never both: some servers send one text under both names
        if thought and isinstance(thought, str):
            delta.items.append(Thought(thought))
        content = added.content
        if content:
            self._written = True
            if type(content) is str:
                delta.items.append(content)
            else:
                _parts(content, delta)
        if added.tool_calls or added.function_call:
            self._called(added, delta, is_whole=choice.delta is None)
        if added.refusal:
            if not self._refused:
                delta.items.append(RefusalStart())
            self._written = self._refused = True
            delta.items.append(added.refusal)
        if thought or content or added.refusal or added.tool_calls or added.function_call:
            delta.usage_is_complete = False

    def whole(self, data: bytes, delta: Delta) -> None:
        """Read an answer that is one object."""
        self.event(data, delta)
        if not self._written and self._finish is None:
            raise stream_error_fault(error_of(loads(data)))
        self._finish = self._finish or "end_turn"

    def end(self, delta: Delta) -> None:
        """Finish the answer if a finish reason or `[DONE]` has arrived."""
        finish = self._finish
        if self._calls:
            self._calls.end(delta)
            finish = "tool_use" if finish == "end_turn" else finish
        elif finish == "tool_use":
            finish = "end_turn"
        delta.finish = "refusal" if self._refused and finish == "end_turn" else finish

    def _called(self, added: _Delta, delta: Delta, *, is_whole: bool) -> None:
        """Read pieces of calls, or whole ones; the old form has one call, without an id."""
        if self._calls is None:
            self._calls = CallPieces()
        calls = self._calls
        pieces = added.tool_calls or [_ToolCall(function=added.function_call, index=0)]
        for piece in filter(None, pieces):
            function = piece.function or _Function()
            index = piece.index if isinstance(piece.index, int) else None
            id = piece.id if isinstance(piece.id, str) and piece.id else None
            arguments = _arguments(function.arguments)
            key = object() if is_whole else calls.key_of(index, id, function.name, arguments)
            calls.add(
                delta, key, id=id, name=function.name, arguments=arguments, signature=_signature(piece.extra_content)
            )
        self._written = True


def _parts(parts: "list[_Part | str | None] | str", delta: Delta) -> None:
    """Add content in parts, as Mistral's reasoning models send it."""
    for part in parts:
        if isinstance(part, str):
            delta.items.append(part)
        if not isinstance(part, _Part):
            continue
        if part.text:
            delta.items.append(part.text)
        if isinstance(part.thinking, str):
            delta.items.append(Thought(part.thinking))
        elif part.thinking:
            delta.items.extend(Thought(thought.text) for thought in part.thinking if thought.text)


def _usage(usage: _Usage) -> Usage | None:
    """Read a usage report, each count by itself. A missing count follows from the total, else it is 0.

    Reasoning counts as output: a total larger than the sum includes reasoning that was counted separately, or what was
    read from a cache or written to one.
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
    cached = _first(
        *(details.cached_tokens for details in (usage.prompt_tokens_details, usage.input_tokens_details) if details),
        usage.prompt_cache_hit_tokens,
        usage.cached_tokens,
        usage.num_cached_tokens,
        usage.cache_read_input_tokens,
    )
    written = count(usage.cache_creation_input_tokens) or 0
    beside = 0 if total is None or not given else max(0, total - given - (produced or 0))
    if given and beside and ((cached or 0) > given or beside == (cached or 0) + written):
        given += beside  # Anthropic counts these beside the prompt, and some servers pass that on
    elif beside:
        produced = (produced or 0) + beside
        reasoning = max(reasoning or 0, beside) if reasoning is not None else None
    elif total is not None and given is None and produced is not None:
        given = max(0, total - produced)
    return report(given or 0, produced or 0, cached, reasoning, written)


def _first(*values: object) -> int | None:
    """Return the first valid count, preferring one that is not 0."""
    counts = [found for value in values if (found := count(value)) is not None]
    return next((one for one in counts if one), counts[0] if counts else None)


def _arguments(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _signature(extra: Any) -> str | None:
    """Return the signature of a call by Google's compatible server."""
    google = extra.get("google") if isinstance(extra, dict) else None
    found = google.get("thought_signature") if isinstance(google, dict) else None
    return found if isinstance(found, str) else None
