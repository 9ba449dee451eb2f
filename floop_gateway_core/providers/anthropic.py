"""Anthropic's Messages API, and the servers that speak it: bytes ↔ values, no I/O.

The terminal event is `message_stop` after a `message_delta` with a `stop_reason`. Usage comes twice: `message_start`
knows the input, `message_delta` the output so far (cumulative); servers that are only compatible may say the input as
0 first and right at the end. Input is what was sent, read from a cache or written to one.

The `type` inside an event names it (the `event:` line repeats it). Unknown types are skipped
whatever they hold, because the vendor adds some without a new version; a known type that cannot be read is a broken reply.
"""

import msgspec

from floop_gateway_core.providers.base import Delta, Thinking, UpstreamCall, UpstreamRequest
from floop_gateway_core.providers.codec import JsonEventCodec
from floop_gateway_core.providers.encoding import (
    auth_header,
    ceiling,
    clamped,
    endpoint,
    present,
    request,
    system_text,
    turns,
)
from floop_gateway_core.providers.faults import error_of, stream_error_fault
from floop_gateway_core.providers.finish import finish_reason
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.reading import count, loads, malformed_reply, read, report
from floop_gateway_core.types import FinishReason

__all__ = ["AnthropicCodec"]

_BASE_URL = "https://api.anthropic.com"
_VERSION = "2023-06-01"
_TEMPERATURE_MAX = 1.0
_BUDGET_MIN = 1024
"""The vendor's smallest thinking budget."""


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

    text: str | None = None
    thinking: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
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


def _thinking(options: Options, most: int) -> dict[str, object]:
    """Return the members that turn thinking on, or none.

    The budget is part of `max_tokens`, so raising it to the vendor's minimum costs nothing that was not held. If
    the two do not fit, the vendor would refuse the request, so the answer comes without thinking.
    """
    if options.thinking is not None:
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": options.thinking}}
    if not options.thinking_tokens or most <= _BUDGET_MIN:
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": max(options.thinking_tokens, _BUDGET_MIN)}}


class _Reader:
    """The state of one answer: the counts as last reported, and why it stopped, once that is known."""

    __slots__ = ("_cache_read", "_cache_written", "_finish", "_input", "_output", "_uncounted")

    def __init__(self) -> None:
        self._input = self._cache_written = self._cache_read = self._output = 0
        self._uncounted = False  # text or thinking has come since the output was last reported
        self._finish: FinishReason | None = None

    def event(self, data: bytes, delta: Delta) -> None:
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
            self._add(read_event.delta, delta)
        elif read_event.error or kind == "error":
            raise stream_error_fault(read_event.error)
        elif kind == "content_block_start":
            self._add(read_event.content_block, delta)
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
            delta.finish = self._finish

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
            delta.usage = report(given, self._output, self._cache_read, None)
            delta.usage_is_complete = not self._uncounted

    def _add(self, block: _Block | None, delta: Delta) -> None:
        if block is None:
            return
        if block.text:
            delta.items.append(block.text)
        if block.thinking:
            delta.items.append(Thinking(block.thinking))
        if block.text or block.thinking:
            self._uncounted = True
            delta.usage_is_complete = False

    def whole(self, data: bytes, delta: Delta) -> None:
        """Read an answer that is one object."""
        message = read(_WHOLE, data)
        if message is None or (message.content is None and message.stop_reason is None):
            raise stream_error_fault(error_of(loads(data)))
        for block in message.content or ():
            self._add(block, delta)
        self._count(message.usage, delta)
        self._finish = finish_reason(message.stop_reason or "end_turn")

    def end(self, delta: Delta) -> None:
        """The end of the body ends a message that has a reason to stop."""
        delta.finish = self._finish


class AnthropicCodec(JsonEventCodec):
    """Anthropic's Messages API."""

    reader = _Reader

    def encode(self, call: UpstreamCall, *, base_url: str | None, api_key: str | None) -> UpstreamRequest:
        """Return the request. A thinking budget is raised to the vendor's minimum."""
        most = ceiling(call, self.options)
        body: dict[str, object] = {
            "model": call.model,
            "max_tokens": most,
            "stream": True,
            "messages": [{"role": role, "content": text} for role, text in turns(call)],
        }
        system = system_text(call)
        if system:
            body["system"] = system
        thinking = _thinking(self.options, most)
        body |= thinking
        if call.temperature is not None and self.options.send_temperature and not thinking:
            body["temperature"] = clamped(call.temperature, _TEMPERATURE_MAX)
        sampling = call.sampling
        body |= present(stop_sequences=list(sampling.stop) or None)
        if not thinking:  # the vendor refuses the two together
            body |= present(top_p=sampling.top_p, top_k=sampling.top_k)
        key = (api_key or "").strip()
        auth = (("anthropic-version", _VERSION), *auth_header(key, self.options.api_key_header or "x-api-key"))
        # No temperature beside thinking, not the host's either: the vendor refuses the two together.
        withheld = ("temperature",) if thinking else ()
        return request(endpoint(base_url or _BASE_URL, "/v1/messages"), auth, body, self.options.extra_body, withheld)
