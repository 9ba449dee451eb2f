"""Messages as Chat Completions takes them: texts, images, calls of tools, and their results in messages of their own."""

from collections.abc import Sequence
from typing import assert_never

from floop_gateway_core.providers.base import UpstreamCall
from floop_gateway_core.providers.encoding import is_plain, text_of, turns
from floop_gateway_core.providers.options import Options
from floop_gateway_core.types import ImagePart, Message, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart

__all__ = ["messages_of"]

Object = dict[str, object]


def messages_of(call: UpstreamCall, options: Options, *, signs: bool) -> list[Object]:
    """Return the messages, with the system text in the role that the server knows.

    `signs` is whether the server takes Gemini's signatures beside calls.
    """
    found = _plain(call, options) if is_plain(call.messages) else _mixed(call.messages, options, signs=signs)
    system = call.system
    if not system or not system.strip():
        return found
    if options.system_role != "user":
        return [{"role": options.system_role, "content": system}, *found]
    for message in found:
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                message["content"] = f"{system}\n\n{content}"
            elif isinstance(content, list):
                message["content"] = [_text(system), *content]
            break
    return found


def _plain(call: UpstreamCall, options: Options) -> list[Object]:
    if options.merge_turns:
        return [{"role": role, "content": text} for role, text in turns(call)]
    return [{"role": _role(message, options), "content": text_of(message)} for message in call.messages]


def _role(message: Message, options: Options) -> str:
    return options.system_role if message.role == "system" else message.role


def _mixed(messages: Sequence[Message], options: Options, *, signs: bool) -> list[Object]:
    found: list[Object] = []
    for message in messages:
        if message.role == "assistant":
            found.append(_answer(message, signs=signs))
            continue
        results = [part for part in message.content if isinstance(part, ToolResultPart)]
        found += [{"role": "tool", "tool_call_id": one.call_id, "content": _result_text(one)} for one in results]
        images = [_shown(result) for result in results if any(isinstance(one, ImagePart) for one in result.content)]
        content = [*(one for shown in images for one in shown), *_content(message.content)]
        if content:
            texts = [str(one["text"]) for one in content if one["type"] == "text"]
            joined: object = "".join(texts) if len(texts) == len(content) else content
            found.append({"role": _role(message, options), "content": joined})
    return found


def _answer(message: Message, *, signs: bool) -> Object:
    calls = [part for part in message.content if isinstance(part, ToolCallPart)]
    text = message.text
    found: Object = {"role": "assistant", "content": text if text or not calls else None}
    if calls:
        found["tool_calls"] = [_call(one, signs=signs) for one in calls]
    return found


def _call(call: ToolCallPart, *, signs: bool) -> Object:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    found: Object = {"id": call.id, "type": "function", "function": function}
    if signs and call.signature is not None:
        found["extra_content"] = {"google": {"thought_signature": call.signature}}
    return found


def _result_text(result: ToolResultPart) -> str:
    text = "".join(part.text for part in result.content if isinstance(part, TextPart))
    return f"Error: {text}" if result.is_error else text


def _shown(result: ToolResultPart) -> list[Object]:
    """Return a result's images, which a message of the role `tool` cannot hold, with the call that they belong to."""
    images = [_image(part) for part in result.content if isinstance(part, ImagePart)]
    return [_text(f"The result of the tool call {result.call_id}:"), *images]


def _content(parts: Sequence[Part]) -> list[Object]:
    found = list[Object]()
    for part in parts:
        match part:
            case TextPart(text):
                found.append(_text(text))
            case ImagePart():
                found.append(_image(part))
            case OpaquePart() | ToolCallPart() | ToolResultPart():  # another vendor's, or written above
                pass
            case _:
                assert_never(part)
    return found


def _text(text: str) -> Object:
    return {"type": "text", "text": text}


def _image(part: ImagePart) -> Object:
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    shown: Object = {"url": url}
    if part.detail is not None:
        shown["detail"] = part.detail
    return {"type": "image_url", "image_url": shown}
