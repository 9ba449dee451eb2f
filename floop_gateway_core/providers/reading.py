"""What the codecs share when they read an answer: the loop over events, tolerant JSON, and token counts.

It decides in which order a chunk's events and its fault reach the engine. Theory: a decoder is the same for every split
of the bytes. An event that is malformed, or an error that came in band, ends the answer; what stood before it in the
same chunk is still delivered, and the fault is raised by the next call (`feed` or `end`). After the terminal event
nothing is read. So the texts, the usage and the ending depend on the bytes alone, never on how they were cut.

JSON is read with msgspec structs that name only the needed fields. msgspec refuses half a surrogate pair, which some
servers send where a character falls between two deltas; the standard library keeps it, and the engine joins the halves.

It must never let an upstream's words into an exception, not even as its `__context__`.
"""

import json
from typing import Protocol, TypeVar

import msgspec

from floop_gateway_core.providers.base import Delta, FaultKind, UpstreamFault
from floop_gateway_core.types import Usage
from floop_gateway_core.wire.sse import SSEDecoder, SSEOverflow

__all__ = ["COUNT_MAX", "StreamDecoder", "count", "loads", "malformed_reply", "read", "report"]

T = TypeVar("T")

COUNT_MAX = 10**9
"""No answer has more tokens than this: a counter beyond it is garbage, and so is one below zero."""


def malformed_reply(reason: str) -> UpstreamFault:
    """Give the fault of a reply that cannot be read to its end (contract: Providers, "broken or truncated replies")."""
    return UpstreamFault(FaultKind.TRANSIENT, reason)


def loads(data: str | bytes) -> object:
    """Read any JSON into plain values; None where it is none. Never raises."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def read(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T | None:
    """Read one event; None where it is malformed, so that the caller raises outside of any `except`."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    text = data.decode("utf-8", "replace")  # as the format's own decoder has it
    if "\ufffd" not in text and "\\u" not in text and "\\U" not in text:
        return None  # only an escape can be a lone surrogate: whatever else msgspec refuses is malformed
    try:
        return msgspec.convert(json.loads(text), decoder.type)
    except (ValueError, RecursionError):
        return None


def count(value: object) -> int | None:
    """Give a token count, or None for one that is absent or makes no sense. Never raises.

    >>> count(7), count(0), count(None), count(-1), count(1.5), count(True), count("7")
    (7, 0, None, None, None, None, None)
    """
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return value
    return None


def report(input_tokens: int, output_tokens: int, cached: int | None, reasoning: int | None) -> Usage | None:
    """Give a report, or None for one of nothing at all: servers that do not count say 0 and 0.

    Cached tokens are never more than the input, reasoning tokens never more than the output.
    """
    if input_tokens == 0 and output_tokens == 0:
        return None
    return Usage(input_tokens, output_tokens, min(cached or 0, input_tokens), min(reasoning or 0, output_tokens))


class Reader(Protocol):
    """One vendor's state of one answer."""

    def event(self, data: bytes, delta: Delta) -> None:
        """Add the data of one event to the delta; set `finish` for the terminal one. Raises `UpstreamFault`."""

    def end(self, delta: Delta) -> None:
        """Set `finish` where the end of the body is the terminal event; it stays None where that is missing."""


class StreamDecoder:
    """A `Decoder` over server-sent events; the vendor's `Reader` says what an event means."""

    def __init__(self, reader: Reader) -> None:
        self._sse = SSEDecoder()
        self._reader = reader
        self._fault: UpstreamFault | None = None
        self._finished = False

    def feed(self, chunk: bytes) -> Delta:
        delta = Delta()
        if self._finished:
            return delta
        if self._fault is not None:
            raise self._fault
        try:
            events = self._sse.feed_data(chunk)
        except SSEOverflow:
            events = None
        if events is None:
            self._fault = malformed_reply("an event is longer than the gateway holds")
            raise self._fault
        take = self._reader.event
        try:
            for data in events:
                delta.events += 1
                take(data, delta)
                if delta.finish is not None:
                    self._finished = True
                    break
        except UpstreamFault as fault:
            self._fault = fault
            delta.events -= 1
            if delta.events == 0:  # nothing stood before it in this chunk
                raise
        return delta

    def end(self) -> Delta:
        delta = Delta()
        if self._finished:
            return delta
        if self._fault is not None:
            raise self._fault
        self._reader.end(delta)
        if delta.finish is None:
            raise malformed_reply("the stream ended without its terminal event")
        self._finished = True
        return delta
