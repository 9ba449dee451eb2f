"""Reads OpenAI's messages: texts, images, calls of tools and their results."""

import json
from collections.abc import Mapping

from floop_gateway_core.dialects.parts import PartFields
from floop_gateway_core.types import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["MessageFields"]

_SYSTEM = ("system", "developer")
_TEXTS = {"text": "text", "refusal": "refusal"}
_ROLES = "system, developer, user, assistant, tool"
_MEMBERS = frozenset({"role", "content", "refusal", "tool_calls", "tool_call_id", "function_call", "audio"})


class MessageFields(PartFields):
    """The messages of a body."""

    def messages(self) -> tuple[list[str], list[Message]]:
        """Return the texts of the system, and the other messages."""
        system: list[str] = []
        messages: list[Message] = []
        for index, one in enumerate(self.turns()):
            path, role, content = f"messages[{index}]", one.get("role"), one.get("content")
            self.unread(one, _MEMBERS)
            if role in _SYSTEM:
                system.append("".join(part.text for part in self.texts(f"{path}.content", content, _TEXTS)))
            elif role == "user":
                messages.append(Message("user", self._content(f"{path}.content", content)))
            elif role == "assistant":
                messages.append(Message("assistant", self._said(path, one)))
            elif role == "tool":
                messages.append(Message("user", self._result(path, one)))
            else:
                self.fault(f"{path}.role", f"must be one of {_ROLES}")
            if len(self.faults) > 1:
                return system, messages
        if not self.faults and not any(message.role == "user" for message in messages):
            if not system:
                self.fault("messages", "must hold at least one message of role user")
            elif not messages:  # as OpenAI takes it: instructions alone
                system, messages = [], [Message.of("user", "\n\n".join(system))]
        return system, messages

    def _content(self, path: str, content: object) -> tuple[TextPart | ImagePart, ...]:
        """Return a text, or texts and images."""
        if not isinstance(content, list):
            return self.texts(path, content, _TEXTS)
        found: list[TextPart | ImagePart] = []
        for index, part in enumerate(content):
            place = f"{path}[{index}]"
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(part, dict) or not isinstance(kind, str):
                self.fault(place, "must be an object with a type")
                return ()
            self.unread(part, ("type", kind))
            if kind == "image_url":
                image = self._image(f"{place}.image_url", part.get("image_url"))
                if image is None:
                    return ()
                found.append(image)
            elif kind in _TEXTS:
                found += self.texts(path, [part], _TEXTS)
            else:
                self.fault(f"{place}.type", "must be text or image_url")
                return ()
        return tuple(found)

    def _image(self, path: str, value: object) -> ImagePart | None:
        if isinstance(value, str):
            return self.image_url(path, value)
        if not isinstance(value, dict):
            self.fault(path, "must be an object with a url")
            return None
        self.unread(value, ("url", "detail"))
        return self.image_url(f"{path}.url", value.get("url"), value.get("detail"))

    def _said(self, path: str, message: Mapping[str, object]) -> tuple[Part, ...]:
        """Return an earlier answer: a text, a refusal, calls of tools, or nothing."""
        if message.get("function_call"):
            self.fault(f"{path}.function_call", "is not supported by this gateway; send tool_calls")
        content = message.get("content")
        if content is None:
            content = message.get("refusal") or ""
        said = self.texts(f"{path}.content", content, _TEXTS)
        calls = message.get("tool_calls")
        if calls is None:
            return said
        if not isinstance(calls, list):
            self.fault(f"{path}.tool_calls", "must be an array")
            return said
        parts: list[Part] = [part for part in said if part.text]
        for index, call in enumerate(calls):
            parts += self._call(f"{path}.tool_calls[{index}]", call)
        return tuple(parts)

    def _call(self, path: str, call: object) -> list[Part]:
        self.need("tools", path)
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(call.get("id"), str):
            self.fault(path, "must be an object with id and function")
            return []
        self.unread(call, ("id", "type", "function", "index", "extra_content"))
        self.unread(function, ("name", "arguments"))
        name = self.tool_name(f"{path}.function.name", function.get("name"))
        arguments = function.get("arguments", "")
        if not isinstance(arguments, str):
            self.fault(f"{path}.function.arguments", "must be a string")
            return []
        extra = call.get("extra_content")
        google = extra.get("google") if isinstance(extra, dict) else None
        signature = google.get("thought_signature") if isinstance(google, dict) else None
        return [
            *_thoughts(extra),
            ToolCallPart(call["id"], name, arguments, signature if isinstance(signature, str) else None),
        ]

    def _result(self, path: str, message: Mapping[str, object]) -> tuple[Part, ...]:
        self.need("tools", path)
        id = message.get("tool_call_id")
        if not isinstance(id, str):
            self.fault(f"{path}.tool_call_id", "must be a string")
            return ()
        return (ToolResultPart(id, self._content(f"{path}.content", message.get("content"))),)


def _thoughts(extra: object) -> list[Part]:
    """Return Anthropic's blocks of thinking that came with a call."""
    ours = extra.get("anthropic") if isinstance(extra, dict) else None
    blocks = ours.get("thinking_blocks") if isinstance(ours, dict) else None
    known = [one for one in blocks if isinstance(one, dict)] if isinstance(blocks, list) else []
    return [OpaquePart("anthropic", json.dumps(one, ensure_ascii=False)) for one in known]
