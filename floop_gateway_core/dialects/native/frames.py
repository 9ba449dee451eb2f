"""The answer's bytes: one JSON object for a plain answer, frames for a stream (contract: Answer).

The stream table says which frame may follow which:

    state    text   comment   usage   error   done
    open     open   open      last    last    -
    last     -      -         -       -       closed
    closed   -      -         -       -       -

so there is exactly one usage frame or one error frame, right before exactly one `[DONE]`, which is last. A step that is
not in the table is a bug in the gateway and raises; nothing is written.

Credits are exact decimals, so usage is formatted by hand: a float would print `1e-06`.
"""

from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Literal

from floop_gateway_core.dialects.credits import credit_members
from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.types import Bill, FinishReason

__all__ = ["FrameError", "StreamFrames", "render_json"]

State = Literal["open", "last", "closed"]
Frame = Literal["text", "comment", "usage", "error", "done"]

TABLE: dict[tuple[State, Frame], State] = {
    ("open", "text"): "open",
    ("open", "comment"): "open",
    ("open", "usage"): "last",
    ("open", "error"): "last",
    ("last", "done"): "closed",
}
BETWEEN_TEXTS = '}\n\ndata: {"text": '
DONE = "data: [DONE]\n\n"


class FrameError(RuntimeError):
    """A frame that the table does not allow in this state."""


class StreamFrames:
    """Frames of one stream, checked against the table.

    >>> frames = StreamFrames()
    >>> frames.texts(["Once ", "upon "])
    b'data: {"text": "Once "}\\n\\ndata: {"text": "upon "}\\n\\n'
    >>> frames.heartbeat()
    b': keep-alive\\n\\n'
    """

    def __init__(self) -> None:
        self.state: State = "open"

    def _step(self, frame: Frame) -> None:
        try:
            self.state = TABLE[self.state, frame]
        except KeyError:
            raise FrameError(f"no {frame} frame is allowed while the stream is {self.state}") from None

    def texts(self, texts: Sequence[str]) -> bytes:
        """Return one frame for each text, joined. A text must not be empty and holds no lone surrogate."""
        self._step("text")
        if not texts:
            return b""
        return f'data: {{"text": {BETWEEN_TEXTS.join(map(encode_basestring, texts))}}}\n\n'.encode()

    def heartbeat(self) -> bytes:
        """Return a comment."""
        self._step("comment")
        return b": keep-alive\n\n"

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        """Return the usage frame and `[DONE]`."""
        self._step("usage")
        self._step("done")
        return f'data: {{"usage": {_usage(bill)}, "finishReason": "{finish_reason}"}}\n\n{DONE}'.encode()

    def failed(self, code: ErrorCode, message: str, bill: Bill) -> bytes:
        """Return the error frame and `[DONE]`."""
        self._step("error")
        self._step("done")
        error = f'"error": {encode_basestring(message)}, "code": "{code}"'
        return f'data: {{{error}, "usage": {_usage(bill)}, "finishReason": "error"}}\n\n{DONE}'.encode()


def render_json(content: str, model: str, bill: Bill, finish_reason: FinishReason) -> bytes:
    """Return the body of a plain answer."""
    return (
        f'{{"content": {encode_basestring(content)}, "model": {encode_basestring(model)}, '
        f'"usage": {_usage(bill)}, "finishReason": "{finish_reason}"}}'
    ).encode()


def _usage(bill: Bill) -> str:
    usage = bill.usage
    return (
        f'{{"input_tokens": {usage.input_tokens}, "output_tokens": {usage.output_tokens}, '
        f'"total_tokens": {usage.total_tokens}, {credit_members(bill)}}}'
    )
