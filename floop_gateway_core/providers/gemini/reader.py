"""Google's Gemini, `streamGenerateContent?alt=sse`: bytes ↔ values, no I/O.

The only terminal event is the end of the body after a `finishReason` (or after a `promptFeedback` that blocked
the prompt): usage may come with that chunk or after it, and early models said `STOP` with every chunk. A body that
ends without either is a broken reply.

Usage comes with every chunk and is cumulative: the last one counts. Output is candidates and thoughts. A counter that
is 0 is left out of the JSON (protobuf), so an absent one is 0, except for the prompt's.
"""

import msgspec

from floop_gateway_core.providers.base import Delta
from floop_gateway_core.providers.faults import error_of, stream_error_fault
from floop_gateway_core.providers.finish import finish_reason
from floop_gateway_core.providers.reading import count, elements, loads, malformed_reply, read, report
from floop_gateway_core.providers.tool_calls import CallPieces
from floop_gateway_core.types import FinishReason, Thought, Usage

__all__ = ["Reader"]


class _FunctionCall(msgspec.Struct):
    name: str | None = None
    id: str | None = None
    args: object = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    function_call: _FunctionCall | None = None
    thought_signature: str | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: object = None
    candidates_token_count: object = None
    thoughts_token_count: object = None
    tool_use_prompt_token_count: object = None
    cached_content_token_count: object = None


class _PromptFeedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Chunk(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    prompt_feedback: _PromptFeedback | None = None
    error: object = None


_FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE", "LANGUAGE", "OTHER",
    }
)  # fmt: skip
"""Finish reasons of answers that failed: a broken reply, not a finish."""
_CHUNK = msgspec.json.Decoder(_Chunk)


class Reader:
    """The state of one answer: how it finished, once that is known."""

    __slots__ = ("_calls", "_finish", "_written")

    def __init__(self) -> None:
        self._finish: FinishReason | None = None
        self._written = False  # a text or a call has come
        self._calls = CallPieces()

    def event(self, data: bytes, delta: Delta) -> None:
        """Read one event."""
        if not data.strip():
            return
        chunk = read(_CHUNK, data)
        if chunk is None:
            raise malformed_reply("an event is malformed")
        if chunk.error:
            raise stream_error_fault(chunk.error)
        if chunk.candidates:
            self._candidate(chunk.candidates[0], delta)
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason not in (None, "", "BLOCK_REASON_UNSPECIFIED"):
            self._finish = "content_filter"
        if chunk.usage_metadata is not None:
            self._usage(chunk.usage_metadata, delta)

    def _candidate(self, candidate: _Candidate, delta: Delta) -> None:
        reason = candidate.finish_reason
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            if reason in _FAILED:
                raise malformed_reply("the upstream gave up on its answer")
            self._finish = finish_reason(reason, unknown="error")
        if candidate.content is None or not candidate.content.parts:
            return
        for part in candidate.content.parts:
            if part.function_call is not None and part.function_call.name:
                self._called(part.function_call, part.thought_signature, delta)
            if part.text:
                if part.thought:
                    delta.items.append(Thought(part.text))
                else:
                    delta.items.append(part.text)
                    self._written = True
                delta.usage_is_complete = False

    def _called(self, call: _FunctionCall, signature: str | None, delta: Delta) -> None:
        """Calls come whole; the vendor gives most of them no id."""
        key = object()
        arguments = msgspec.json.encode(call.args if isinstance(call.args, dict) else {}).decode()
        self._calls.add(delta, key, id=call.id, name=call.name, arguments=arguments, signature=signature)
        self._calls.end(delta, key)
        self._written = True
        delta.usage_is_complete = False

    def _usage(self, usage: _Usage, delta: Delta) -> None:
        """Update the usage. Some reports in mid-stream count no candidates although text has come: they are incomplete."""
        made = _report(usage)
        if made is not None:
            delta.usage = made
            delta.usage_is_complete = not (self._written and count(usage.candidates_token_count) is None)

    def whole(self, data: bytes, delta: Delta) -> None:
        """Read an answer that is one object, or an array of chunks."""
        for one in elements(data):
            self.event(one, delta)
        if self._finish is None and not self._written:
            raise stream_error_fault(error_of(loads(data)))

    def end(self, delta: Delta) -> None:
        """Finish the answer if a finish reason has arrived."""
        delta.finish = "tool_use" if self._calls and self._finish == "end_turn" else self._finish


def _report(usage: _Usage) -> Usage | None:
    prompt = count(usage.prompt_token_count)
    if prompt is None:
        return None
    thoughts = count(usage.thoughts_token_count) or 0
    return report(
        prompt + (count(usage.tool_use_prompt_token_count) or 0),
        (count(usage.candidates_token_count) or 0) + thoughts,
        count(usage.cached_content_token_count),
        thoughts,
    )
