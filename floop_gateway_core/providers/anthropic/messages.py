"""Messages as Anthropic's API takes them: a string, or blocks of text, images, tools, and blocks of its own."""

from collections.abc import Sequence
from itertools import takewhile
from typing import assert_never

from floop_gateway_core.providers.base import UpstreamCall
from floop_gateway_core.providers.encoding import FILLER, is_plain, part_turns, turns
from floop_gateway_core.providers.tool_calls import arguments_of, plain_id, raw
from floop_gateway_core.types import ImagePart, Message, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart

__all__ = ["lacks_thoughts", "messages_of"]

Object = dict[str, object]
EMPTY_ERROR = "Error"
"""The text of a failed result that came without any."""


def messages_of(call: UpstreamCall) -> list[Object]:
    """Return the messages in strict alternation, starting with the user; system messages keep their position."""
    if not any(message.role == "system" for message in call.messages):
        if is_plain(call.messages):
            return [{"role": role, "content": text} for role, text in turns(call)]
        return [_turn(role, parts) for role, parts in part_turns(call.messages)]
    found: list[Object] = []
    between: list[Message] = []
    for message in (*call.messages, None):
        if message is not None and message.role != "system":
            between.append(message)
            continue
        if between:
            found += [_turn(role, parts) for role, parts in _without_filler(between, is_first=not found)]
            between = []
        if message is not None and message.text.strip():
            found.append({"role": "system", "content": message.text})
    return found


def _without_filler(messages: Sequence[Message], *, is_first: bool) -> list[tuple[str, list[Part]]]:
    """Return the turns; a filler user turn is only kept at the start of the conversation."""
    found = part_turns(messages)
    if not is_first and found[0] == ("user", [TextPart(FILLER)]):
        del found[0]
    return found


def _turn(role: str, parts: Sequence[Part]) -> Object:
    if all(isinstance(part, TextPart) and part.cache is None for part in parts):
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        return {"role": role, "content": "\n\n".join(texts) if len(texts) > 1 else texts[0]}
    ordered = _thoughts_first(parts) if role == "assistant" else _results_first(parts)
    return {"role": role, "content": [one for part in ordered if (one := _block(part)) is not None]}


def _results_first(parts: Sequence[Part]) -> list[Part]:
    """Return a user's parts in the only order that the vendor takes."""
    return sorted(parts, key=lambda part: not isinstance(part, ToolResultPart))


def _thoughts_first(parts: Sequence[Part]) -> list[Part]:
    """Return an answer's parts, thoughts before texts: other dialects attach a thought to the call after a text."""
    texts = list(takewhile(lambda part: isinstance(part, TextPart), parts))
    thoughts = list(takewhile(lambda part: isinstance(part, OpaquePart), parts[len(texts) :]))
    return [*thoughts, *texts, *parts[len(texts) + len(thoughts) :]]


def _block(part: Part) -> object:
    match part:
        case TextPart(text):
            return _cached({"type": "text", "text": text}, part.cache)
        case ImagePart():
            return _cached({"type": "image", "source": _source(part)}, part.cache)
        case OpaquePart(vendor, json):
            return raw(json) if vendor == "anthropic" else None
        case ToolCallPart():
            call = {"type": "tool_use", "id": plain_id(part.id), "name": part.name, "input": arguments_of(part)}
            return _cached(call, part.cache)
        case ToolResultPart():
            return _cached(_result(part), part.cache)
        case _:
            assert_never(part)


def _result(part: ToolResultPart) -> Object:
    """Return the block of a result. The vendor refuses empty texts, and an error without any content."""
    inner = [one for one in part.content if not (isinstance(one, TextPart) and not one.text.strip())]
    content = [one for part in inner if (one := _block(part)) is not None]
    found: Object = {"type": "tool_result", "tool_use_id": plain_id(part.call_id)}
    if part.is_error:
        found["is_error"] = True
        content = content or [{"type": "text", "text": EMPTY_ERROR}]
    if content:
        found["content"] = content
    return found


def _cached(block: Object, cache: str | None) -> Object:
    return block if cache is None else {**block, "cache_control": raw(cache)}


def _source(part: ImagePart) -> Object:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": part.data}


def lacks_thoughts(messages: Sequence[Message]) -> bool:
    """Return whether the calls of the last answer came back without the thoughts that led to them.

    The vendor refuses a request that goes on thinking after such calls.
    """
    for message in reversed(messages):
        if message.role == "assistant":
            calls = any(isinstance(part, ToolCallPart) for part in message.content)
            thoughts = any(isinstance(part, OpaquePart) and part.vendor == "anthropic" for part in message.content)
            return calls and not thoughts
    return False
