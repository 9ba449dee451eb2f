"""Answers as exact bytes, and every order of frames that the table does not have."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.dialects.anthropic.blocks import BlockStream
from floop_gateway_core.dialects.native.frames import TABLE, FrameError, StreamFrames, render_json
from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.types import Bill, Microcredits, Piece, Thought, ToolEnd, ToolPiece, Usage
from floop_gateway_core.wire.sse import SSEDecoder

BILL = Bill(Usage(14, 47), Microcredits(70_000), Microcredits(4_837_930_000))
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)

STEPS: dict[str, Callable[[StreamFrames], bytes]] = {
    "text": lambda frames: frames.texts(["a"]),
    "comment": lambda frames: frames.heartbeat(),
    "usage": lambda frames: frames.completed(BILL, "end_turn"),
    "error": lambda frames: frames.failed(ErrorCode.PROVIDER_ERROR, "no", BILL),
}


def test_a_stream_is_exactly_as_the_contract_shows_it() -> None:
    frames = StreamFrames()
    stream = frames.texts(["Once "]) + frames.texts(["upon "]) + frames.completed(BILL, "end_turn")
    assert (
        b'data: {"text": "Once "}\n\n'
        b'data: {"text": "upon "}\n\n'
        b'data: {"usage": {"input_tokens": 14, "output_tokens": 47, "total_tokens": 61, "credits_used": 0.07, '
        b'"credits_remaining": 4837.93}, "finishReason": "end_turn"}\n\n'
        b"data: [DONE]\n\n"
    ) == stream


def test_a_failed_stream_is_exactly_as_the_contract_shows_it() -> None:
    frames = StreamFrames()
    frames.texts(["Once "])
    assert (
        b'data: {"error": "message", "code": "PROVIDER_ERROR", "usage": {"input_tokens": 14, "output_tokens": 47, '
        b'"total_tokens": 61, "credits_used": 0.07, "credits_remaining": 4837.93}, "finishReason": "error"}\n\n'
        b"data: [DONE]\n\n"
    ) == frames.failed(ErrorCode.PROVIDER_ERROR, "message", BILL)


def test_a_plain_answer_is_exactly_as_the_contract_shows_it() -> None:
    bill = Bill(Usage(123, 45), Microcredits(210_000), Microcredits(4_837_790_000))
    assert (
        '{"content": "…", "model": "auto", "usage": {"input_tokens": 123, "output_tokens": 45, "total_tokens": 168, '
        '"credits_used": 0.21, "credits_remaining": 4837.79}, "finishReason": "end_turn"}'
    ).encode() == render_json("…", "auto", bill, "end_turn")


def test_a_heartbeat_is_a_comment() -> None:
    assert b": keep-alive\n\n" == StreamFrames().heartbeat()


def test_texts_that_are_ready_share_a_write_and_no_frame() -> None:
    assert b'data: {"text": "a"}\n\ndata: {"text": "b"}\n\n' == StreamFrames().texts(["a", "b"])


@pytest.mark.parametrize(
    ("microcredits", "text"),
    [(0, "0"), (1, "0.000001"), (10, "0.00001"), (210_000, "0.21"), (1_000_000, "1"), (10_000_000, "10"),
     (100_000_001, "100.000001"), (2**62, "4611686018427.387904")],
)  # fmt: skip
def test_credits_are_exact_decimals(microcredits: int, text: str) -> None:
    bill = Bill(Usage(0, 0), Microcredits(microcredits), Microcredits(microcredits))
    body = render_json("", "auto", bill, "end_turn").decode()
    assert f'"credits_used": {text}, "credits_remaining": {text}}}' in body


@pytest.mark.parametrize("last", ["usage", "error"])
@pytest.mark.parametrize("after", STEPS)
def test_nothing_may_come_after_the_last_frame(last: str, after: str) -> None:
    frames = StreamFrames()
    STEPS[last](frames)
    with pytest.raises(FrameError, match=f"no {after} frame is allowed while the stream is closed"):
        STEPS[after](frames)
    assert "closed" == frames.state


STATES = ("open", "last", "closed")
KINDS = ("text", "comment", "usage", "error", "done")
LEGAL = {("open", "text"), ("open", "comment"), ("open", "usage"), ("open", "error"), ("last", "done")}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_that_is_not_in_the_table_raises_and_changes_nothing(state: str, kind: str) -> None:
    frames = StreamFrames()
    frames.state = state  # type: ignore[assignment]
    if (state, kind) in LEGAL:
        frames._step(kind)  # type: ignore[arg-type]
    else:
        with pytest.raises(FrameError):
            frames._step(kind)  # type: ignore[arg-type]
        assert state == frames.state


def test_the_table_has_the_steps_of_the_contract_and_no_other() -> None:
    assert set(TABLE) == LEGAL


@given(st.lists(st.sampled_from(list(STEPS)), max_size=8))
def test_whatever_is_tried_there_is_one_last_frame_right_before_one_done(tries: list[str]) -> None:
    frames, stream = StreamFrames(), b""
    for name in tries:
        try:
            stream += STEPS[name](frames)
        except FrameError:
            assert stream.endswith(b"data: [DONE]\n\n")
    data = [event.data for event in SSEDecoder().feed(stream)]
    ends = [index for index, one in enumerate(data) if '"usage"' in one]
    if "usage" in tries or "error" in tries:
        assert ([len(data) - 2], len(data) - 1, 1) == (ends, data.index("[DONE]"), data.count("[DONE]"))
    else:
        assert ([], 0) == (ends, data.count("[DONE]"))


@given(st.lists(ANY_TEXT, max_size=8))
def test_the_texts_of_a_stream_joined_are_the_content(texts: list[str]) -> None:
    stream = StreamFrames().texts(texts)
    read = [json.loads(event.data)["text"] for event in SSEDecoder().feed(stream)]
    content = json.loads(render_json("".join(texts), "auto", BILL, "end_turn"))["content"]
    assert (texts, content) == (read, "".join(read))


@given(ANY_TEXT, ANY_TEXT)
def test_messages_and_aliases_are_escaped(message: str, alias: str) -> None:
    frame, done = SSEDecoder().feed(StreamFrames().failed(ErrorCode.PROVIDER_ERROR, message, BILL))
    assert (message, "[DONE]") == (json.loads(frame.data)["error"], done.data)
    assert alias == json.loads(render_json("", alias, BILL, "end_turn"))["model"]


CALL = [ToolPiece(0, "", "c1", "f"), ToolPiece(0, '{"a"'), ToolPiece(0, ": 1}"), ToolEnd(0)]
OTHER = [ToolPiece(1, "{}", "c2", "g"), ToolEnd(1)]


@pytest.mark.parametrize(
    ("items", "kinds"),
    [
        ([*CALL[:2], "x", *CALL[2:]], ["tool_use", "text"]),
        ([*CALL[:2], Thought("x"), *CALL[2:]], ["tool_use", "thinking"]),
        ([*CALL[:2], *OTHER, "x", "y", *CALL[2:]], ["tool_use", "tool_use", "text"]),
        ([*CALL[:2], "x", *OTHER[:1], *CALL[2:], *OTHER[1:]], ["tool_use", "text", "tool_use"]),
        ([*CALL[:2], "x"], ["tool_use", "text"]),
        (["x", *CALL, "y", *OTHER], ["text", "tool_use", "text", "tool_use"]),
    ],
)  # fmt: skip
def test_what_comes_between_the_pieces_of_a_call_is_the_block_behind_it(
    items: list[str | Piece], kinds: list[str]
) -> None:
    stream = BlockStream()
    written = (
        "".join(stream.texts([one]) if isinstance(one, str) else stream.pieces([one]) for one in items) + stream.end()
    )
    events = [json.loads(event.data) for event in SSEDecoder().feed(written.encode())]
    blocks: list[dict[str, Any]] = []
    for event in events:
        assert event["index"] == len(blocks) - (event["type"] != "content_block_start")
        if event["type"] == "content_block_start":
            blocks.append(event["content_block"])
    assert kinds == [block["type"] for block in blocks]
    assert all(block["id"] and block["name"] for block in blocks if block["type"] == "tool_use")
