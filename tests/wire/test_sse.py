"""Server-sent events: the specification's own examples, every way to cut a stream, and somebody else's decoder."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from httpx_sse._decoders import SSEDecoder as Referee
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.wire.sse import ServerSentEvent, SSEDecoder, SSEEncoder, SSEOverflow

Event = ServerSentEvent
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ONE_LINE = TEXT.map(lambda text: text.replace("\r", "").replace("\n", ""))


def in_pieces(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return (stream[start:end] for start, end in zip(at, at[1:], strict=False))


def decode(chunks: Iterator[bytes] | list[bytes]) -> list[Event]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


READERS: dict[str, Callable[[bytes], list[Event]]] = {
    "whole": lambda stream: decode([stream]),
    "byte by byte": lambda stream: decode([bytes([byte]) for byte in stream]),
    "in twos": lambda stream: decode([stream[start : start + 2] for start in range(0, len(stream), 2)]),
    "with empty chunks": lambda stream: decode([piece for byte in stream for piece in (b"", bytes([byte]), b"")]),
    "with trailing data": lambda stream: decode([stream, b"data: unfinished"]),
}


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest) -> Callable[[bytes], list[Event]]:
    return READERS[request.param]


SAMPLES = {
    # WHATWG HTML 9.2.6, in the order of that page.
    "three lines of data": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("YHOO\n+2\n10")]),
    "a comment, ids and an id that is emptied": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [Event("first event", id="1"), Event("second event"), Event(" third event")],
    ),
    "data without a colon": (b"data\n\ndata\ndata\n\ndata:", [Event(""), Event("\n")]),
    "the space after the colon is optional": (b"data:test\n\ndata: test\n\n", [Event("test"), Event("test")]),
    # Line ends.
    "CRLF": (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [Event("a\nb"), Event("c")]),
    "CR": (b"data: a\rdata: b\r\rdata: c\r\r", [Event("a\nb"), Event("c")]),
    "mixed": (b"data: a\rdata: b\ndata: c\r\n\ndata: d\n\r", [Event("a\nb\nc"), Event("d")]),
    "LF then CR is two line ends": (b"data: a\n\rdata: b\n\r", [Event("a"), Event("b")]),
    "other separators end no line": (
        "data: a\x0b\x0c\x85\u2028b\n\n".encode(),
        [Event("a\x0b\x0c\x85\u2028b")],
    ),
    # The byte order mark.
    "a BOM at the start": (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
    "only the first BOM is one": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [Event("b")]),
    "a BOM in the text stays": (b"data: \xef\xbb\xbfa\n\n", [Event("\ufeffa")]),
    "the start of a BOM that is none": (b"\xef\xbbdata: a\n\ndata: b\n\n", [Event("b")]),
    # Fields.
    "an event's name": (b"event: add\ndata: 1\n\ndata: 2\n\n", [Event("1", "add"), Event("2")]),
    "an empty name is message": (b"event\ndata: 1\n\n", [Event("1")]),
    "the last name counts": (b"event: a\nevent: b\ndata: 1\n\n", [Event("1", "b")]),
    "a name without data is forgotten": (b"event: add\n\ndata: 1\n\n", [Event("1")]),
    "an id stays": (b"id: 7\ndata: a\n\ndata: b\n\n", [Event("a", id="7"), Event("b", id="7")]),
    "an id without data stays too": (b"id: 7\n\ndata: a\n\n", [Event("a", id="7")]),
    "an id with NUL is ignored": (b"id: 7\nid: 8\x00\ndata: a\n\n", [Event("a", id="7")]),
    "retry": (b"retry: 3000\ndata: a\n\ndata: b\n\n", [Event("a", retry=3000), Event("b")]),
    "retry that is no number": (b"retry: 3s\ndata: a\n\n", [Event("a")]),
    "retry of other digits": ("retry: ３\ndata: a\n\n".encode(), [Event("a")]),
    "unknown fields and names of other case": (b"Data: x\ndatax: y\nfoo\n data: z\ndata: a\n\n", [Event("a")]),
    "a colon in the value": (b"data: a: b:c\n\n", [Event("a: b:c")]),
    "comments within an event": (b"data: a\n: heartbeat\n:\ndata: b\n\n", [Event("a\nb")]),
    "only comments": (b": one\n\n: two\n\n", []),
    # The end.
    "an event that is not finished is dropped": (b"data: a\n\ndata: b\n", [Event("a")]),
    "nothing": (b"", []),
    "only line ends": (b"\n\r\n\r\r\n\n", []),
    # Bytes.
    "bytes that are not UTF-8": (b"data: a\xffb\xe2\x82\n\n", [Event("a\ufffdb\ufffd")]),
    "characters of every length": ("data: aé€😀\n\n".encode(), [Event("aé€😀")]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_read_the_same_however_they_come(name: str, read: Callable[[bytes], list[Event]]) -> None:
    stream, events = SAMPLES[name]
    if stream.endswith(b"data:") and read is READERS["with trailing data"]:
        stream += b"\n"
    assert events == read(stream)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_read_the_same_wherever_they_are_cut_once(name: str) -> None:
    stream, events = SAMPLES[name]
    for cut in range(len(stream) + 1):
        assert events == decode([stream[:cut], stream[cut:]])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """Encode random events with comments between them; give what a reader must see."""
    encoder, stream, expected, last_id = SSEEncoder(), b"", list[Event](), ""
    for _ in range(draw(st.integers(0, 6))):
        data, event = draw(TEXT), draw(st.none() | ONE_LINE)
        id = draw(st.none() | ONE_LINE.map(lambda text: text.replace("\0", "")))
        retry = draw(st.none() | st.integers(0, 10**9))
        stream += encoder.encode(data, event=event, id=id, retry=retry)
        if draw(st.booleans()):
            stream += encoder.comment(draw(TEXT))
        last_id = last_id if id is None else id
        arrives = data.replace("\r\n", "\n").replace("\r", "\n")
        expected.append(Event(arrives, event or "message", last_id, retry))
    return stream, expected


@given(streams(), st.lists(st.integers(0, 2**16), max_size=30))
def test_what_is_encoded_and_cut_anywhere_decodes_to_itself(
    stream_and_events: tuple[bytes, list[Event]], cuts: list[int]
) -> None:
    stream, events = stream_and_events
    assert events == decode(in_pieces(stream, cuts))
    assert events == READERS["byte by byte"](stream)


LINES = st.sampled_from(
    ["data: a", "data:b", "data", "data:  c", ": comment", ":", "event: add", "event", "id: 1", "id", "id: 2\0",
     "retry: 10", "retry: x", "foo: bar", "foo", "", "", "", "data: é€😀"]
)  # fmt: skip


@given(st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=30), st.lists(st.integers(0, 2**16)))
def test_random_lines_read_the_same_however_they_are_cut(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    stream = "".join(line + end for line, end in lines).encode()
    whole = READERS["whole"](stream)
    assert whole == READERS["byte by byte"](stream)
    assert whole == decode(in_pieces(stream, cuts))


@given(
    st.binary(max_size=80) | st.text("dat:e vni\r\n\0é\ufeff", max_size=80).map(str.encode),
    st.lists(st.integers(0, 2**16)),
)
def test_random_bytes_never_raise_and_read_the_same_however_they_are_cut(stream: bytes, cuts: list[int]) -> None:
    assert READERS["whole"](stream) == decode(in_pieces(stream, cuts))


@given(st.lists(LINES.filter(lambda line: "\0" not in line), max_size=30))
def test_it_agrees_with_httpx_sse_where_that_follows_the_specification(lines: list[str]) -> None:
    """Intentional divergence of the referee: it makes events of blocks without data, which the specification drops."""
    referee, theirs, has_data = Referee(), list[Event](), False
    for line in (*lines, ""):
        event = referee.decode(line)
        if event is not None and has_data:
            theirs.append(Event(event.data, event.event or "message", event.id))
        has_data = line.startswith("data") if not has_data else line != ""
    stream = "".join(line + "\n" for line in (*lines, "")).encode()
    assert theirs == [Event(event.data, event.event, event.id) for event in decode([stream])]


# -- the encoder ---------------------------------------------------------------------------------------------------


def test_frames_are_exact_bytes() -> None:
    encoder = SSEEncoder()
    assert b'data: {"text": "a"}\n\n' == encoder.encode('{"text": "a"}')
    assert b"data: \n\n" == encoder.encode("")
    assert b"id: 1\nevent: e\nretry: 5\ndata: a\ndata: b\n\n" == encoder.encode("a\r\nb", event="e", id="1", retry=5)
    assert b": \n\n" == encoder.comment()
    assert b": a\n: b\n\n" == encoder.comment("a\rb")


@pytest.mark.parametrize(
    "fields", [{"event": "a\nb"}, {"event": "a\rb"}, {"id": "a\nb"}, {"id": "\0"}, {"id": "a\r"}, {"retry": -1}]
)
def test_what_would_break_a_frame_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"SSE|retry"):
        SSEEncoder().encode("a", **fields)  # type: ignore[arg-type]


def test_half_a_surrogate_pair_becomes_a_replacement_character_and_a_pair_is_joined() -> None:
    assert "data: a\ufffdb\n\n".encode() == SSEEncoder().encode("a\ud83db")
    assert "data: \ufffd\n\n".encode() == SSEEncoder().encode("\ude00")
    assert "data: \ufffd\n\n".encode() == SSEEncoder().encode("\ud83d")
    assert "data: 😀\n\n".encode() == SSEEncoder().encode("\ud83d\ude00")


@given(st.text(st.characters(), max_size=30))
def test_any_text_becomes_utf_8(text: str) -> None:
    SSEEncoder().encode(text).decode()


# -- bounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 100, b"data: xx\n" * 60, b"x" * 101, b"data: " + b"x" * 100 + b"\n\n"]
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_beyond_the_bound_is_refused_however_it_comes(stream: bytes, size: int) -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    with pytest.raises(SSEOverflow):
        for start in range(0, len(stream), size):
            decoder.feed(stream[start : start + size])


def test_empty_data_lines_are_bounded_too() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    with pytest.raises(SSEOverflow):
        decoder.feed(b"data:\n" * 10_000)


def test_many_events_that_are_each_within_the_bound_pass() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    assert 1_000 == len(decoder.feed((b"data: " + b"x" * 90 + b"\n\n") * 1_000))


def test_the_last_id_is_known_before_an_event_comes() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"id: 7\n\n")
    assert "7" == decoder.last_event_id


def test_decoders_keep_nothing_of_each_other() -> None:
    first, second = SSEDecoder(), SSEDecoder()
    first.feed(b"id: 7\ndata: a")
    assert [Event("b")] == second.feed(b"data: b\n\n")


PIECES = [
    b"data: a", b"data:b", b"\n", b"\r\n", b"\r", b": c", b"id: 1", b"event: e", b"\xef\xbb\xbf", b"data: \xff",
    b"data: \xc3\xa9", b"retry: 5", b"data",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.lists(st.integers(0, 200), max_size=6))
def test_the_data_alone_is_that_of_the_events(lines: list[bytes], places: list[int]) -> None:
    """However the bytes are cut, and whatever stands between the events."""
    stream = b"".join(lines)
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    whole, data = SSEDecoder(), SSEDecoder()
    expected = [event.data for chunk in chunks for event in whole.feed(chunk)]
    assert expected == [one.decode("utf-8", "replace") for chunk in chunks for one in data.feed_data(chunk)]
