"""Messages as Chat Completions takes them: texts, images, calls of tools, and their results in messages of their own."""

from collections.abc import Callable, Sequence
from typing import assert_never

from floop_gateway_core.providers.base import UpstreamCall
from floop_gateway_core.providers.encoding import is_plain, text_of, turns
from floop_gateway_core.providers.options import Options
from floop_gateway_core.types import ImagePart, Message, OpaquePart, Part, TextPart, ToolCallPart, ToolResultPart

__all__ = ["messages_of"]

Object = dict[str, object]


def messages_of(call: UpstreamCall, options: Options, *, signs: bool, id_of: Callable[[str], str]) -> list[Object]:
    """Return the messages, with the system text in the role that the server knows.

    `signs` is whether the server takes Gemini's signatures beside calls, `id_of` what it takes as the id of one.
    """
    found = _plain(call, options) if is_plain(call.messages) else _mixed(call.messages, options, signs, id_of)
    system = call.system
    if not system or not system.strip():
        return found
    if options.system_role != "user":
        return [{"role": options.system_role, "content": system}, *found]
    place = next((place for place, one in enumerate(found) if one["role"] == "user"), None)
    if place is None:
        return [{"role": "user", "content": system}, *found]
    found[place]["content"] = _joined(system, found[place]["content"])
    return found


def _plain(call: UpstreamCall, options: Options) -> list[Object]:
    if options.merge_turns:
        return [{"role": role, "content": text} for role, text in turns(call)]
    return [{"role": _role(message, options), "content": text_of(message)} for message in call.messages]


def _role(message: Message, options: Options) -> str:
    return options.system_role if message.role == "system" else message.role


def _mixed(messages: Sequence[Message], options: Options, signs: bool, id_of: Callable[[str], str]) -> list[Object]:
    """Return the messages; the results of an answer's calls directly follow it, before what a user says to them."""
    found: list[Object] = []
    said: list[Object] = []
    for message in messages:
        if message.role == "assistant":
            found += [*said, _answer(message, signs, id_of)]
            said = []
            continue
        results = [part for part in message.content if isinstance(part, ToolResultPart)]
        found += [{"role": "tool", "tool_call_id": id_of(one.call_id), "content": _result_text(one)} for one in results]
        images = [_shown(result) for result in results if any(isinstance(one, ImagePart) for one in result.content)]
        content = [*(one for shown in images for one in shown), *_content(message.content)]
        if content:
            texts = [str(one["text"]) for one in content if one["type"] == "text"]
            joined: object = "".join(texts) if len(texts) == len(content) else content
            said.append({"role": _role(message, options), "content": joined})
    found += said
    return _merged(found) if options.merge_turns else found


def _merged(messages: Sequence[Object]) -> list[Object]:
    """Return the messages with neighbours of one role joined, except for results and answers with calls."""
    found: list[Object] = []
    for message in messages:
        last = found[-1] if found else {}
        if (
            message["role"] in ("user", "assistant")
            and last.get("role") == message["role"]
            and "tool_calls" not in last
        ):
            found[-1] = {**last, **message, "content": _joined(last["content"], message["content"])}
        else:
            found.append(message)
    return found


def _joined(first: object, second: object) -> object:
    """Return two contents as one: texts with a blank line between them, else as parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    parts = [[_text(one)] if isinstance(one, str) else one for one in (first, second)]
    return [part for one in parts if isinstance(one, list) for part in one]


def _answer(message: Message, signs: bool, id_of: Callable[[str], str]) -> Object:
    calls = [part for part in message.content if isinstance(part, ToolCallPart)]
    text = message.text
    found: Object = {"role": "assistant", "content": text if text or not calls else None}
    if calls:
        found["tool_calls"] = [_call(one, signs, id_of) for one in calls]
    return found


def _call(call: ToolCallPart, signs: bool, id_of: Callable[[str], str]) -> Object:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    found: Object = {"id": id_of(call.id), "type": "function", "function": function}
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
