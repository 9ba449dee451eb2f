"""Anthropic's Messages API, and the servers that speak it: bytes ↔ values, no I/O.

The terminal event is `message_stop` after a `message_delta` with a `stop_reason`. Usage comes twice: `message_start`
knows the input, `message_delta` the output so far (cumulative); merely compatible servers may report an input of
0 first and the correct count at the end. Input is the sum of tokens sent, read from a cache and written to one.

The `type` inside an event names it (the `event:` line repeats it). Unknown types are skipped
whatever they hold, because the vendor adds some without a new version; a known type that cannot be read is a broken reply.
"""

import msgspec

from floop_gateway_core.providers.base import Delta
from floop_gateway_core.providers.faults import error_of, stream_error_fault
from floop_gateway_core.providers.finish import finish_reason
from floop_gateway_core.providers.reading import count, loads, malformed_reply, read, report
from floop_gateway_core.providers.tool_calls import CallPieces
from floop_gateway_core.types import FinishReason, Thought

__all__ = ["Reader"]

_KNOWN = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)


class _Usage(msgspec.Struct):
    input_tokens: object = None
    output_tokens: object = None
    cache_creation_input_tokens: object = None
    cache_read_input_tokens: object = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    """A block as it starts, or what an event adds to it; or, of a `message_delta`, why the message stopped."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: object = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = None
    delta: _Block | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None
    error: object = None


class _Named(msgspec.Struct):
    type: str


class _Whole(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


_WHOLE = msgspec.json.Decoder(_Whole)
_EVENT = msgspec.json.Decoder(_Event)
_NAMED = msgspec.json.Decoder(_Named)


class Reader:
    """The state of one answer: the counts as last reported, and why it stopped, once that is known."""

    __slots__ = (
        "_cache_read",
        "_cache_written",
        "_calls",
        "_finish",
        "_input",
        "_inputs",
        "_output",
        "_thought",
        "_thoughts",
        "_uncounted",
    )  # fmt: skip

    def __init__(self) -> None:
        self._input = self._cache_written = self._cache_read = self._output = 0
        self._uncounted = False  # text or thinking has come since the output was last reported
        self._finish: FinishReason | None = None
        self._calls = CallPieces()
        self._inputs: dict[object, str] = {}
        """Arguments that came whole with the start of a call, for servers that send no pieces."""
        self._thought: dict[str, str] | None = None
        self._thoughts: list[dict[str, str]] = []
        """The blocks of thinking before the next call, which go back with it."""

    def event(self, data: bytes, delta: Delta) -> None:
        """Read one event."""
        if not data.strip():
            return
        read_event = read(_EVENT, data)
        if read_event is None:
            named = read(_NAMED, data)
            if named is None or named.type in _KNOWN:
                raise malformed_reply("an event is malformed")
            return
        kind = read_event.type
        if kind == "content_block_delta":
            self._add(read_event.delta, delta, read_event.index)
        elif read_event.error or kind == "error":
            raise stream_error_fault(read_event.error)
        elif kind == "content_block_start":
            self._start(read_event.content_block, delta, read_event.index)
        elif kind == "content_block_stop":
            self._stop(delta, read_event.index)
        elif kind == "message_start":
            if read_event.message is not None:
                self._count(read_event.message.usage, delta)
        elif kind == "message_delta":
            if read_event.delta is not None and read_event.delta.stop_reason:
                self._finish = finish_reason(read_event.delta.stop_reason)
            self._count(read_event.usage, delta)
        elif kind == "message_stop":
            if self._finish is None:
                raise malformed_reply("the message stopped without a reason")
            self.end(delta)

    def _count(self, usage: _Usage | None, delta: Delta) -> None:
        """Update the counts. A count that is absent stays as it was; an input of 0 overall counts as no report."""
        if usage is None:
            return
        fresh, written, cached = (
            count(usage.input_tokens),
            count(usage.cache_creation_input_tokens),
            count(usage.cache_read_input_tokens),
        )
        if fresh or written or cached:
            self._input = fresh if fresh is not None else self._input
            self._cache_written = written if written is not None else self._cache_written
            self._cache_read = cached if cached is not None else self._cache_read
        produced = count(usage.output_tokens)
        if produced is not None:
            self._output, self._uncounted = produced, False
        given = self._input + self._cache_written + self._cache_read
        if given:
            delta.usage = report(given, self._output, self._cache_read, None, self._cache_written)
            delta.usage_is_complete = not self._uncounted

    def _start(self, block: _Block | None, delta: Delta, index: int | None) -> None:
        if block is None:
            return
        if block.type == "tool_use":
            self._stop(delta, index)  # some servers give every block the same index
            self._calls.forget(index)
            thoughts = msgspec.json.encode(self._thoughts).decode() if self._thoughts else None
            self._thoughts = []
            self._calls.add(delta, index, id=block.id, name=block.name, thoughts=thoughts)
            if isinstance(block.input, dict) and block.input:
                self._inputs[index] = msgspec.json.encode(block.input).decode()
            self._written(delta)
        elif block.type == "redacted_thinking":
            self._thoughts.append({"type": "redacted_thinking", "data": block.data or ""})
            delta.items.append(Thought(redacted=block.data or ""))
        else:
            self._add(block, delta, index)

    def _add(self, block: _Block | None, delta: Delta, index: int | None) -> None:
        if block is None:
            return
        if block.text:
            delta.items.append(block.text)
        if block.thinking or block.signature:
            self._think(block, delta)
        if block.partial_json:
            self._inputs.pop(index, None)
            self._calls.add(delta, index, arguments=block.partial_json)
        if block.text or block.thinking or block.partial_json:
            self._written(delta)

    def _written(self, delta: Delta) -> None:
        self._uncounted = True
        delta.usage_is_complete = False

    def _think(self, block: _Block, delta: Delta) -> None:
        if self._thought is None:
            self._thought = {"type": "thinking", "thinking": "", "signature": ""}
            self._thoughts.append(self._thought)
        self._thought["thinking"] += block.thinking or ""
        self._thought["signature"] += block.signature or ""
        delta.items.append(Thought(block.thinking or "", block.signature))

    def _stop(self, delta: Delta, index: int | None) -> None:
        self._thought = None
        if (whole := self._inputs.pop(index, None)) is not None:
            self._calls.add(delta, index, arguments=whole)
        if self._calls.knows(index):
            self._calls.end(delta, index)

    def whole(self, data: bytes, delta: Delta) -> None:
        """Read an answer that is one object."""
        message = read(_WHOLE, data)
        if message is None or (message.content is None and message.stop_reason is None):
            raise stream_error_fault(error_of(loads(data)))
        for index, block in enumerate(message.content or ()):
            self._start(block, delta, index)
            self._stop(delta, index)
        self._count(message.usage, delta)
        self._finish = finish_reason(message.stop_reason or "end_turn")

    def end(self, delta: Delta) -> None:
        """Finish the message if a stop reason has arrived."""
        self._calls.end(delta)
        finish = self._finish
        if finish in ("end_turn", "tool_use"):
            finish = "tool_use" if self._calls else "end_turn"
        delta.finish = finish
