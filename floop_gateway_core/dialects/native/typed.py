"""Reads a call of the host's own code: the wire's fields, typed messages, and what only code may ask for.

Tools, formats and messages beyond text are written as OpenAI's API writes them, or as the types of this package.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from floop_gateway_core.dialects.blocks import Block, CallBlock, TextBlock, ThoughtBlock
from floop_gateway_core.dialects.native.parse import parse_object
from floop_gateway_core.dialects.openai.shape import ShapeFields
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import (
    Call,
    Capability,
    Endpoint,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from floop_gateway_core.types.schemas import COUNTS, LISTS, MAPS, SINGLE, VALUES

__all__ = ["BEYOND_TEXT", "message_of", "parse_typed"]

PLACE = {"role": "user", "content": "."}
SYSTEM_ROLES = ("system", "developer")
BEYOND_TEXT = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort")
"""Options that only calls within the process have."""


def parse_typed(endpoint: Endpoint, fields: Mapping[str, object]) -> Call | Refusal:
    """Return the call, or the refusal that a body with the same mistake would get."""
    beyond = {name: fields[name] for name in BEYOND_TEXT if fields.get(name) is not None}
    given = fields.get("messages")
    messages = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else None
    plain = {name: value for name, value in fields.items() if name not in BEYOND_TEXT}
    if messages is None or not (beyond or any(map(_is_rich, messages))):
        return parse_object(endpoint, plain)
    # Typed messages keep their places, so that a fault names the right one.
    written = [PLACE if isinstance(one, Message) else one for one in messages]
    wire = ShapeFields({**_as_wire(beyond), "messages": written})
    system, read = wire.messages()
    shape = wire.shape()
    if wire.faults:
        return wire.refusal()
    call = parse_object(endpoint, {**plain, "messages": [Message.of("user", ".")]})
    if isinstance(call, Refusal):
        return call
    said = [one for one in messages if isinstance(one, Message) or one.get("role") not in SYSTEM_ROLES]
    turns = [one if isinstance(one, Message) else turn for one, turn in zip(said, read, strict=True)]
    prompt = "\n\n".join(text for text in (call.system, *system) if text) or None
    needs = dict(_needs(turns)) | dict(shape.needs)
    return replace(call, messages=tuple(turns), system=prompt, shape=replace(shape, needs=tuple(needs.items())))


def _is_rich(message: object) -> bool:
    """Return whether a message has more than the wire's texts."""
    if isinstance(message, Message):
        return any(not isinstance(part, TextPart) for part in message.content)
    if not isinstance(message, dict):
        return False
    content = message.get("content")
    has_image = isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "image_url" for part in content
    )
    return has_image or message.get("role") == "tool" or bool(message.get("tool_calls"))


def _needs(messages: Iterable[Message]) -> Iterable[tuple[Capability, str]]:
    for index, message in enumerate(messages):
        for part in message.content:
            match part:
                case ImagePart():
                    yield "images", f"messages[{index}]"
                case ToolCallPart() | ToolResultPart():
                    yield "tools", f"messages[{index}]"
                case TextPart() | OpaquePart():
                    pass


def _as_wire(beyond: Mapping[str, Any]) -> dict[str, object]:
    """Return the options as OpenAI's body has them."""
    found: dict[str, object] = dict(beyond)
    if isinstance(tools := beyond.get("tools"), Sequence):
        found["tools"] = [_tool(one) for one in tools]
    if (model := beyond.get("response_format")) is not None and hasattr(model, "model_json_schema"):
        schema = closed(model.model_json_schema())
        json_schema = {"name": model.__name__, "schema": schema, "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return found


def _tool(tool: object) -> object:
    if not isinstance(tool, Tool):
        return tool
    function: dict[str, object] = {"name": tool.name, "description": tool.description, "strict": tool.strict}
    function["parameters"] = None if tool.schema is None else json.loads(tool.schema)
    return {"type": "function", "function": function}


def closed(schema: Any) -> Any:
    """Return a schema that every vendor accepts: no additional properties, all required, no value constraints.

    The caller that derived the schema from a model must check those constraints on the answer.

    >>> closed({"type": "object", "properties": {"a": {"type": "string", "default": "x", "minLength": 1}}})
    {'type': 'object', 'properties': {'a': {'type': 'string'}}, 'additionalProperties': False, 'required': ['a']}
    """
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in ("default", *VALUES, *COUNTS):
            continue
        if name in MAPS and isinstance(value, dict):
            found[name] = {key: closed(one) for key, one in value.items()}
        elif name in LISTS and isinstance(value, list):
            found["anyOf" if name == "oneOf" else name] = [closed(one) for one in value]
        else:
            found[name] = closed(value) if name in SINGLE else value
    properties = found.get("properties")
    if found.get("type") == "object" and isinstance(properties, dict):
        found |= {"additionalProperties": False, "required": list(properties)}
    return found


def message_of(blocks: Iterable[Block]) -> Message:
    """Return an answer as a message, to be sent back with the results of its calls."""
    parts: list[Part] = []
    for block in blocks:
        match block:
            case TextBlock():
                parts.append(TextPart(block.text))
            case CallBlock():
                thoughts = json.loads(block.thoughts) if block.thoughts else []
                parts += [OpaquePart("anthropic", json.dumps(one, ensure_ascii=False)) for one in thoughts]
                parts.append(ToolCallPart(block.id, block.name, block.arguments or "{}", block.signature))
            case ThoughtBlock():
                pass
    return Message("assistant", tuple(parts))
