"""Writes an answer as Anthropic's content blocks: in a stream one after the other, or whole.

Blocks of a stream do not overlap: whatever comes between the pieces of a call waits for its end.
"""

import json
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import assert_never

from floop_gateway_core.dialects.blocks import CallBlock, TextBlock, ThoughtBlock, blocks_of
from floop_gateway_core.types import Piece, RefusalStart, Thought, ToolEnd, ToolPiece
from floop_gateway_core.wire.strict_json import object_of
from floop_gateway_core.wire.surrogates import mend

__all__ = ["BlockStream", "whole_blocks"]


class BlockStream:
    """The blocks of one stream."""

    def __init__(self) -> None:
        self._index = -1
        self._open: str | int | None = None
        """The open block: `text`, `thinking`, or the number of a call."""
        self._waiting: dict[object, str | Thought | list[ToolPiece | ToolEnd]] = {}
        """What has come since the open call began, in order, and each other call with all its pieces, by its number."""
        self._before = ""

    def texts(self, texts: Sequence[str]) -> str:
        """Return the frames of texts."""
        if not texts:
            return ""
        if isinstance(self._open, int):
            self._waiting[object()] = "".join(texts)
            return ""
        begun = (
            "" if self._open == "text" else self._begin("text", '{"type": "text", "text": ""}', "text_delta", "text")
        )
        before = self._before
        return begun + "".join([f"{before}{encode_basestring(text)}}}}}\n\n" for text in texts])

    def pieces(self, pieces: Sequence[Piece]) -> str:
        """Return the frames of thoughts and calls."""
        return "".join(map(self._piece, pieces))

    def _piece(self, piece: Piece) -> str:
        match piece:
            case Thought():
                if isinstance(self._open, int):
                    self._waiting[object()] = piece
                    return ""
                return self._thought(piece)
            case ToolPiece() | ToolEnd():
                return self._call(piece)
            case RefusalStart():
                return ""
            case _:
                assert_never(piece)

    def end(self) -> str:
        """Return what ends the open block, and those that have waited."""
        frames = self._stop()
        while self._waiting:
            frames += self._flush() + self._stop()
        return frames

    def _begin(self, kind: str | int, block: str, delta: str, member: str) -> str:
        stop = self._stop()
        self._index += 1
        self._open = kind
        self._before = (
            f'event: content_block_delta\ndata: {{"type": "content_block_delta", "index": {self._index}, '
            f'"delta": {{"type": "{delta}", "{member}": '
        )
        start = f'{{"type": "content_block_start", "index": {self._index}, "content_block": {block}}}'
        return f"{stop}event: content_block_start\ndata: {start}\n\n"

    def _stop(self) -> str:
        if self._open is None:
            return ""
        self._open = None
        return f'event: content_block_stop\ndata: {{"type": "content_block_stop", "index": {self._index}}}\n\n'

    def _delta(self, text: str) -> str:
        return f"{self._before}{encode_basestring(text)}}}}}\n\n"

    def _thought(self, thought: Thought) -> str:
        if thought.redacted is not None:
            block = f'{{"type": "redacted_thinking", "data": {encode_basestring(thought.redacted)}}}'
            return self._begin("redacted", block, "", "") + self._stop()
        frames = ""
        if self._open != "thinking":
            block = '{"type": "thinking", "thinking": "", "signature": ""}'
            frames = self._begin("thinking", block, "thinking_delta", "thinking")
        if thought.text:
            frames += self._delta(thought.text)
        if thought.signature:
            delta = f'{{"type": "signature_delta", "signature": {encode_basestring(thought.signature)}}}'
            data = f'{{"type": "content_block_delta", "index": {self._index}, "delta": {delta}}}'
            frames += f"event: content_block_delta\ndata: {data}\n\n{self._stop()}"
        return frames

    def _call(self, piece: ToolPiece | ToolEnd) -> str:
        if isinstance(self._open, int) and self._open != piece.index:
            self._wait(piece)
            return ""
        if isinstance(piece, ToolEnd):
            return self._stop() + self._flush()
        frames = ""
        if self._open != piece.index:
            extra = _extra(piece.signature)
            block = (
                f'{{"type": "tool_use", "id": {encode_basestring(piece.id)}, "name": {encode_basestring(piece.name)}, '
                f'"input": {{}}{extra}}}'
            )
            frames = self._begin(piece.index, block, "input_json_delta", "partial_json")
        return frames + (self._delta(piece.arguments) if piece.arguments else "")

    def _wait(self, piece: ToolPiece | ToolEnd) -> None:
        waiting = self._waiting.setdefault(piece.index, [])
        if isinstance(waiting, list):  # only calls have numbers
            waiting.append(piece)

    def _flush(self) -> str:
        """Write what has waited, up to a call that has not ended."""
        frames = ""
        while self._waiting and not isinstance(self._open, int):
            one = self._waiting.pop(next(iter(self._waiting)))
            if isinstance(one, str):
                frames += self.texts([one])
            elif isinstance(one, Thought):
                frames += self._thought(one)
            else:
                frames += "".join([self._call(piece) for piece in one])
        return frames


def whole_blocks(items: Sequence[str | Piece]) -> str:
    """Return the content of a message, a JSON array.

    A call whose arguments are not a JSON object is omitted if it was cut short; otherwise its input is empty.
    """
    return f"[{', '.join(one for block in blocks_of(items) if (one := _block(block)))}]"


def _block(block: TextBlock | ThoughtBlock | CallBlock) -> str:
    match block:
        case TextBlock():
            return f'{{"type": "text", "text": {encode_basestring(block.text)}}}'
        case ThoughtBlock(redacted=str(data)):
            return f'{{"type": "redacted_thinking", "data": {encode_basestring(data)}}}'
        case ThoughtBlock():
            signature = encode_basestring(block.signature or "")
            return f'{{"type": "thinking", "thinking": {encode_basestring(block.text)}, "signature": {signature}}}'
        case CallBlock():
            given = _object(block.arguments)
            if given is None and not block.ended:
                return ""
            return (
                f'{{"type": "tool_use", "id": {encode_basestring(block.id)}, "name": {encode_basestring(block.name)}, '
                f'"input": {given or "{}"}{_extra(block.signature)}}}'
            )


def _object(arguments: str) -> str | None:
    """Return the arguments as the vendor writes them, or None if they are not a JSON object."""
    found = object_of(arguments or "{}")
    return None if found is None else mend(json.dumps(found, ensure_ascii=False))


def _extra(signature: str | None) -> str:
    """Return Gemini's signature of a call, which goes back with it."""
    if signature is None:
        return ""
    return f', "extra_content": {{"google": {{"thought_signature": {encode_basestring(signature)}}}}}'
