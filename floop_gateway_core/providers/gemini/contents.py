"""Contents as Gemini takes them: parts of text, images, calls of functions and their answers."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from floop_gateway_core.providers.base import UpstreamCall
from floop_gateway_core.providers.encoding import is_plain, part_turns, turns
from floop_gateway_core.providers.tool_calls import arguments_of, calls_by_id
from floop_gateway_core.types import ImagePart, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart

__all__ = ["contents_of"]

Object = dict[str, object]
NO_SIGNATURE = "skip_thought_signature_validator"
"""The vendor's documented placeholder for a call from another model, which has no known signature."""


def contents_of(call: UpstreamCall) -> list[Object]:
    """Return the turns, the assistant's under the role `model`."""
    if is_plain(call.messages):
        return [_content(role, [{"text": text}]) for role, text in turns(call)]
    calls = calls_by_id(call.messages)
    return [_content(role, _parts(_in_order(parts, calls), calls)) for role, parts in part_turns(call.messages)]


def _content(role: str, parts: Sequence[Object]) -> Object:
    return {"role": "user" if role == "user" else "model", "parts": parts}


def _in_order(parts: Sequence[Part], calls: Mapping[str, ToolCallPart]) -> list[Part]:
    """Return a turn's parts with the results first, in the order of their calls, by which the vendor tells them apart."""
    places = {id: place for place, id in enumerate(calls)}

    def place(part: Part) -> int:
        return places.get(part.call_id, len(places)) if isinstance(part, ToolResultPart) else len(places) + 1

    return sorted(parts, key=place) if any(isinstance(part, ToolResultPart) for part in parts) else list(parts)


def _parts(parts: Sequence[Part], calls: Mapping[str, ToolCallPart]) -> list[Object]:
    found: list[Object] = []
    has_call = False
    for part in parts:
        match part:
            case TextPart(text):
                found.append({"text": text})
            case ImagePart():
                found.append(_image(part))
            case ToolCallPart():
                call: Object = {"functionCall": {"name": part.name, "args": arguments_of(part)}}
                if part.signature is not None or not has_call:  # of parallel calls the first has the signature
                    call["thoughtSignature"] = part.signature or NO_SIGNATURE
                has_call = True
                found.append(call)
            case ToolResultPart():
                found += _result(part, calls)
            case OpaquePart():  # another vendor's
                pass
            case _:
                assert_never(part)
    return found or [{"text": "."}]


def _result(part: ToolResultPart, calls: Mapping[str, ToolCallPart]) -> list[Object]:
    text = "".join(one.text for one in part.content if isinstance(one, TextPart))
    called = calls.get(part.call_id)
    answer: Object = {"error" if part.is_error else "output": text}
    images = [_image(one) for one in part.content if isinstance(one, ImagePart)]
    return [{"functionResponse": {"name": called.name if called else "unknown", "response": answer}}, *images]


def _image(part: ImagePart) -> Object:
    if part.url is not None:
        return {"fileData": {"fileUri": part.url}}
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
