"""How OpenAI writes the calls of tools: whole ones in a message, and pieces of them in chunks."""

import json
from json.encoder import encode_basestring

from floop_gateway_core.dialects.blocks import CallBlock
from floop_gateway_core.types import ToolPiece

__all__ = ["call_of", "piece_of"]


def piece_of(piece: ToolPiece) -> str:
    """Return one element of a chunk's `tool_calls`."""
    function = f'"function": {{"arguments": {encode_basestring(piece.arguments)}}}'
    if not piece.id:
        return f'{{"index": {piece.index}, {function}}}'
    name = f'"function": {{"name": {encode_basestring(piece.name)}, "arguments": {encode_basestring(piece.arguments)}}}'
    extra = _extra(piece.signature, piece.thoughts)
    return f'{{"index": {piece.index}, "id": {encode_basestring(piece.id)}, "type": "function", {name}{extra}}}'


def call_of(call: CallBlock) -> str:
    """Return one element of a message's `tool_calls`."""
    function = f'{{"name": {encode_basestring(call.name)}, "arguments": {encode_basestring(call.arguments or "{}")}}}'
    extra = _extra(call.signature, call.thoughts)
    return f'{{"id": {encode_basestring(call.id)}, "type": "function", "function": {function}{extra}}}'


def _extra(signature: str | None, thoughts: str | None) -> str:
    """Return what a vendor ties to a call, which goes back with it."""
    extra: dict[str, object] = {}
    if signature is not None:
        extra["google"] = {"thought_signature": signature}
    if thoughts is not None:
        extra["anthropic"] = {"thinking_blocks": json.loads(thoughts)}
    return f', "extra_content": {json.dumps(extra, ensure_ascii=False)}' if extra else ""
