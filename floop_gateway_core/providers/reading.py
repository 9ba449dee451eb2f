"""What the codecs share for answers: the loop over events, tolerant JSON, and token counts.

It decides in which order a chunk's events and its fault reach the engine. Theory: a decoder is the same for every split
of the bytes. An event that is malformed, or an error that came in band, ends the answer; what stood before it in the
same chunk is still delivered, and the fault is raised by the next call (`feed` or `end`). After the terminal event
nothing is read. So the texts, the usage and the ending depend on the bytes alone, never on how they were cut.

JSON is read with msgspec structs that name only the needed fields. msgspec refuses half a surrogate pair, which some
servers send when a character is split between two deltas; the standard library keeps it, and the engine joins the halves.

It must never let an upstream's words into an exception, not even as its `__context__`.
"""

import json
import re
from codecs import BOM_UTF8
from typing import Protocol, TypeVar

import msgspec

from floop_gateway_core.providers.base import Delta, FaultKind, UpstreamFault
from floop_gateway_core.types import Usage
from floop_gateway_core.wire.sse import ServerSentEvent, SSEDecoder, SSEOverflow

__all__ = ["COUNT_MAX", "Reader", "StreamDecoder", "count", "elements", "loads", "malformed_reply", "read", "report"]

T = TypeVar("T")

_JSON_BEGINS = (b"{", b"[")
WHOLE_MAX_BYTES = 16 * 1024 * 1024
"""The most bytes of an answer that comes as one JSON object, which is buffered."""
COUNT_MAX = 10**9
"""No answer has more tokens than this: a counter beyond it is garbage, and so is one below zero."""


def malformed_reply(reason: str) -> UpstreamFault:
    """Return the fault for a reply that cannot be read to its end (contract: Providers, "broken or truncated replies")."""
    return UpstreamFault(FaultKind.TRANSIENT, reason)


MAX_ODD_COUNTS = 8
"""How many members of a report may be of an odd type before it counts as malformed."""
_ODD_COUNT = re.compile(
    r"at `\$\.((?:[A-Za-z_]+(?:\[(?:\.\.\.|\d+)\])?\.)*(?:usage|x_groq|usageMetadata|usage_metadata)[A-Za-z_.]*)`$"
)


def loads(data: str | bytes) -> object:
    """Parse JSON into plain values; return None if it is not JSON. Never raises."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def read(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T | None:
    """Parse one event; return None if it is malformed, so that the caller raises outside of any `except`.

    Members of a usage report that are of another type than the vendor's are left out: their counts are then estimated.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        return _without_odd_counts(decoder, data, str(error))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    text = data.decode("utf-8", "replace")  # as the format's own decoder has it
    if "\ufffd" not in text and "\\u" not in text and "\\U" not in text:
        return None  # only an escape can be a lone surrogate: anything else that msgspec refuses is malformed
    try:
        return msgspec.convert(json.loads(text), decoder.type)
    except (ValueError, RecursionError):
        return None


def _without_odd_counts(decoder: "msgspec.json.Decoder[T]", data: bytes, error: str) -> T | None:
    value = loads(data)
    for _ in range(MAX_ODD_COUNTS):
        named = _ODD_COUNT.search(error)
        if named is None:
            return None
        _drop(value, named[1].split("."))
        try:
            return msgspec.convert(value, decoder.type)
        except msgspec.ValidationError as again:
            error = str(again)
    return None


def _drop(value: object, path: list[str]) -> None:
    """Delete a member, in every element where the path says `name[...]`."""
    name, *rest = path
    name, brackets, _ = name.partition("[")
    if not isinstance(value, dict):
        return
    if not rest:
        value.pop(name, None)
        return
    below = value.get(name)
    for one in below if brackets and isinstance(below, list) else [below]:
        _drop(one, rest)


def count(value: object) -> int | None:
    """Return a token count, or None if it is absent or makes no sense. Never raises.

    >>> count(7), count(7.0), count(0), count(None), count(-1), count(1.5), count(True), count("7")
    (7, 7, 0, None, None, None, None, None)
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return value
    return None


def report(
    input_tokens: int, output_tokens: int, cached: int | None, reasoning: int | None, written: int = 0
) -> Usage | None:
    """Return the usage, or None if all counts are 0, as servers that do not count report.

    Cached tokens are never more than the input, reasoning tokens never more than the output.
    """
    if input_tokens == 0 and output_tokens == 0:
        return None
    cached = min(cached or 0, input_tokens)
    written = min(written, input_tokens - cached)
    return Usage(input_tokens, output_tokens, cached, min(reasoning or 0, output_tokens), written)


class Reader(Protocol):
    """One vendor's state of one answer."""

    def event(self, data: bytes, delta: Delta) -> None:
        """Add the data of one event to the delta; set `finish` for the terminal one. Raises `UpstreamFault`."""

    def whole(self, data: bytes, delta: Delta) -> None:
        """Add an answer that came as one JSON object, although a stream was asked for. Raises `UpstreamFault`."""

    def end(self, delta: Delta) -> None:
        """Set `finish` if the end of the body ends the answer; leave it None if the answer is not complete."""


class _Events(SSEDecoder):
    """Events of an upstream, whose errors come as events of that name, or in a field of that name (llama.cpp)."""

    def _field(self, line: bytes) -> None:
        if line.startswith(b"error:"):
            self._event = "error"
            line = b"data" + line[5:]
        super()._field(line)

    def _bare(self, event: ServerSentEvent) -> bytes:
        data = super()._bare(event)
        if event.event != "error":
            return data
        error = loads(data)
        named = isinstance(error, dict) and ("error" in error or error.get("type") == "error")
        return data if named else msgspec.json.encode({"error": event.data if error is None else error})


class StreamDecoder:
    """A `Decoder` over server-sent events; the vendor's `Reader` says what an event means.

    The bytes decide how they are read, not the headers: a body that begins as JSON is one whole answer.
    """

    def __init__(self, reader: Reader) -> None:
        self._sse = _Events()
        self._reader = reader
        self._fault: UpstreamFault | None = None
        self._finished = False
        self._began = False
        self._head = b""
        """What may be the beginning of a byte order mark."""
        self._whole: bytearray | None = None

    def feed(self, chunk: bytes) -> Delta:
        """Take the next bytes; raise `UpstreamFault`."""
        delta = Delta()
        if self._finished:
            return delta
        if self._fault is not None:
            raise self._fault
        if not self._began:
            chunk = self._head + chunk
            self._head = chunk if len(chunk) < len(BOM_UTF8) and BOM_UTF8.startswith(chunk) else b""
            if self._head:
                return delta
            self._begin(chunk.removeprefix(BOM_UTF8).lstrip()[:1])
        if self._whole is not None:
            self._whole += chunk
            delta.events = 1
            if len(self._whole) > WHOLE_MAX_BYTES:
                self._fault = malformed_reply("the answer is longer than the gateway can buffer")
                raise self._fault
            return delta
        try:
            events = self._sse.feed_data(chunk)
        except SSEOverflow:
            events = None
        if events is None:
            self._fault = malformed_reply("an event is longer than the gateway can buffer")
            raise self._fault
        try:
            self._take(events, delta)
        except UpstreamFault as fault:
            self._fault = fault
            if delta.events == 0:  # nothing came before it in this chunk
                raise
        return delta

    def _begin(self, first: bytes) -> None:
        self._began = bool(first)
        if first in (b"{", b"["):
            self._whole = bytearray()
        elif first == b"<":
            self._fault = malformed_reply("the answer is a page of markup")
            raise self._fault

    def _take(self, events: list[bytes], delta: Delta) -> None:
        take = self._reader.event
        for data in events:
            if not data.startswith(_JSON_BEGINS) and not data.lstrip().startswith(_JSON_BEGINS):
                continue  # a keep-alive that came as data
            take(data, delta)
            delta.events += 1
            if delta.finish is not None:
                self._finished = True
                break

    def end(self) -> Delta:
        """The body has ended; raise `UpstreamFault` if the answer is not complete."""
        delta = Delta()
        if self._finished:
            return delta
        if self._fault is not None:
            raise self._fault
        if self._whole is not None:
            self._reader.whole(bytes(self._whole).removeprefix(BOM_UTF8), delta)
        else:
            self._take(self._sse.rest_data(), delta)
        if delta.finish is None:
            self._reader.end(delta)
        if delta.finish is None:
            raise malformed_reply("the stream ended without its terminal event")
        self._finished = True
        return delta


def elements(data: bytes) -> list[bytes]:
    """Return the elements of a JSON array as bytes, or the one value that is not an array."""
    if data.lstrip()[:1] != b"[":
        return [data]
    try:
        return [bytes(raw) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return [data]
