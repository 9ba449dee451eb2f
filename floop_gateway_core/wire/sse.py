"""Server-sent events: values to bytes and bytes to values (WHATWG HTML 9.2.5 and 9.2.6).

The encoder writes what any conforming parser reads back: encode, split the bytes anywhere, decode is the identity.
The decoder is spec-complete: CR, LF and CRLF (also cut between two chunks), one leading BOM, comments, several `data`
lines, `id` and `retry`; an event that is unfinished when the stream ends is dropped. Bytes that are not UTF-8 become
U+FFFD, as in the spec's decoder. Decoding happens a line at a time, so a character cut by a chunk is whole.

The decoder never keeps more than one event: a line or an event beyond `max_event_bytes` is refused with `SSEOverflow`.
"""

import re
from dataclasses import dataclass

__all__ = ["STREAM_HEADERS", "SSEDecoder", "SSEEncoder", "SSEOverflow", "ServerSentEvent"]

STREAM_HEADERS = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store, no-transform"),
    ("X-Accel-Buffering", "no"),
)

_BOM = b"\xef\xbb\xbf"
_NEWLINE = re.compile(r"\r\n|\n|\r")
_NEWLINE_BYTES = re.compile(rb"\r\n|\n|\r")


class SSEOverflow(ValueError):
    """The peer sent an event that is longer than the decoder's limit."""


@dataclass(slots=True)
class ServerSentEvent:
    """One event. `event` is `message` if unnamed, `id` is the last id seen so far, `retry` is in milliseconds."""

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


class SSEEncoder:
    """Frame events for a stream. Stateless; `b"".join` of frames is a valid stream.

    >>> SSEEncoder().encode("one\\ntwo", event="poem")
    b'event: poem\\ndata: one\\ndata: two\\n\\n'
    >>> SSEEncoder().comment("keep-alive")
    b': keep-alive\\n\\n'
    """

    def encode(self, data: str, *, event: str | None = None, id: str | None = None, retry: int | None = None) -> bytes:
        """Return one frame. `event` and `id` must not contain line breaks, nor `id` a NUL; a lone surrogate becomes U+FFFD.

        Line breaks of `data` of any kind arrive as LF: the format cannot tell them apart.
        """
        lines = []
        if id is not None:
            if "\0" in id:
                raise ValueError("an SSE id must not contain NUL")
            lines.append("id: " + _one_line("id", id))
        if event is not None:
            lines.append("event: " + _one_line("event", event))
        if retry is not None:
            if retry < 0:
                raise ValueError(f"retry must be at least 0 milliseconds, got {retry}")
            lines.append(f"retry: {retry}")
        lines.extend("data: " + line for line in _NEWLINE.split(data))
        return _utf8("\n".join(lines) + "\n\n")

    def frame(self, event: ServerSentEvent | str) -> bytes:
        """Return the frame of a value: an event, or a string, which becomes the data of an unnamed event.

        >>> SSEEncoder().frame(ServerSentEvent("one", id="7"))
        b'id: 7\\ndata: one\\n\\n'
        """
        if isinstance(event, str):
            return self.encode(event)
        name = None if event.event == "message" else event.event
        return self.encode(event.data, event=name, id=event.id or None, retry=event.retry)

    def comment(self, text: str = "") -> bytes:
        """Return a comment, which parsers ignore; it serves as a heartbeat."""
        return _utf8("".join(f": {line}\n" for line in _NEWLINE.split(text)) + "\n")


def _one_line(field: str, value: str) -> str:
    if _NEWLINE.search(value):
        raise ValueError(f"an SSE {field} must not contain line breaks")
    return value


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


class SSEDecoder:
    """Turn arbitrary chunks of bytes into events.

    >>> decoder = SSEDecoder()
    >>> decoder.feed(b'data: {"text": "On')
    []
    >>> decoder.feed(b'ce "}\\n\\n')
    [ServerSentEvent(data='{"text": "Once "}', event='message', id='', retry=None)]
    """

    def __init__(self, *, max_event_bytes: int = 16 * 1024 * 1024) -> None:
        self._max = max_event_bytes
        self._tail = bytearray()  # bytes of a line that has not ended
        self._started = False  # the BOM may still come
        self._cr = False  # the last chunk ended in CR: a LF that follows belongs to it
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._id = ""
        self._retry: int | None = None

    @property
    def last_event_id(self) -> str:
        """Return the last `id` seen so far."""
        return self._id

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Feed the next bytes and return the events that they complete. Raises `SSEOverflow`."""
        if not self._started or self._cr:
            chunk = self._open(chunk)
        # Scanning an unfinished line again with every chunk would take quadratic time for a long line, so bytes without
        # a line end are only appended.
        if b"\n" not in chunk and b"\r" not in chunk:
            self._hold(chunk)
            return []
        block = bytes(self._tail + chunk) if self._tail else chunk
        self._tail.clear()
        events: list[ServerSentEvent] = []
        if b"\r" in block:
            lines = _NEWLINE_BYTES.split(block)
            self._cr = block.endswith(b"\r")
        else:
            if self._fresh:
                block = self._plain_events(block, events)
            lines = block.split(b"\n")
        self._hold(lines.pop())
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                events.append(self._dispatch())
            else:
                self._event = ""
        return events

    def feed_data(self, chunk: bytes) -> list[bytes]:
        """Feed the next bytes and return only the data, in UTF-8, of the events that they complete. Raises `SSEOverflow`.

        The same events as those of `feed`, for readers that decode the data themselves: bytes that are not UTF-8
        are kept as they came.

        >>> SSEDecoder().feed_data(b'data: {"a": 1}\\n\\ndata: [DONE]\\n\\n')
        [b'{"a": 1}', b'[DONE]']
        """
        if not self._started or self._cr:
            chunk = self._open(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:  # otherwise a long line would take quadratic time
            self._hold(chunk)
            return []
        block = bytes(self._tail + chunk) if self._tail else chunk
        if self._started and self._fresh and b"\r" not in block and len(block) <= self._max:
            pieces = block.split(b"\n\n")
            tail = pieces.pop()
            data = [piece[6:] for piece in pieces if piece[:6] == b"data: "]
            # Every piece was one `data` line, and what follows them is the beginning of a line.
            if len(data) == len(pieces) and block.count(b"\n") == 2 * len(pieces):
                self._tail[:] = tail
                return data
        return [self._bare(event) for event in self.feed(chunk)]

    def rest_data(self) -> list[bytes]:
        """Return the data of a last event without its blank line, at the end of the body. Feed nothing afterwards."""
        line = bytes(self._tail)
        self._tail.clear()
        if line:
            self._field(line)
        return [self._bare(self._dispatch())] if self._data else []

    def _bare(self, event: ServerSentEvent) -> bytes:
        return event.data.encode()

    @property
    def _fresh(self) -> bool:
        """Return whether no event has begun, apart from the line in the tail."""
        return not (self._data or self._event or self._retry is not None)

    def _plain_events(self, block: bytes, events: list[ServerSentEvent]) -> bytes:
        """Consume a run of events of one `data` line each, which is all that most providers send; return the rest."""
        start, id = 0, self._id
        while (end := block.find(b"\n\n", start)) >= 0:
            if not block.startswith(b"data: ", start) or block.find(b"\n", start, end) >= 0:
                break
            self._bound(end - start)
            events.append(ServerSentEvent(block[start + 6 : end].decode("utf-8", "replace"), "message", id))
            start = end + 2
        return block[start:] if start else block

    def _open(self, chunk: bytes) -> bytes:
        if self._cr and chunk:
            self._cr = False
            chunk = chunk.removeprefix(b"\n")
        if not self._started:
            chunk = bytes(self._tail + chunk)
            self._tail.clear()
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                return chunk  # still undecided: kept as an unfinished line
            self._started = True
            chunk = chunk.removeprefix(_BOM)
        return chunk

    def _hold(self, tail: bytes) -> None:
        self._tail += tail
        self._bound(len(self._tail))

    def _bound(self, unfinished: int) -> None:
        if self._size + unfinished > self._max:
            raise SSEOverflow(f"event exceeds {self._max} bytes")

    def _append(self, value: bytes) -> None:
        self._size += len(value) + 1  # the line break too, or empty lines would be free
        self._bound(0)
        self._data.append(value.decode("utf-8", "replace"))

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._append(value)
            case b"event":
                self._event = value.decode("utf-8", "replace")
            case b"id":
                if b"\0" not in value:
                    self._id = value.decode("utf-8", "replace")
            case b"retry":
                if value.isdigit() and len(value) <= 18:
                    self._retry = int(value)
            case _:
                pass  # a comment (its name is empty), or a field that the spec says to ignore

    def _dispatch(self) -> ServerSentEvent:
        data = self._data[0] if len(self._data) == 1 else "\n".join(self._data)
        event = ServerSentEvent(data, self._event or "message", self._id, self._retry)
        self._data, self._size, self._event, self._retry = [], 0, "", None
        return event
