"""Reads Anthropic's messages: texts, images, tools, thoughts and documents."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from floop_gateway_core.dialects.parts import PartFields
from floop_gateway_core.types import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["MessageFields"]

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_TEXTS = {"text": "text"}


class MessageFields(PartFields):
    """The messages of a body."""

    def messages(self) -> tuple[str | None, list[Message]]:
        """Return the system prompt, and the messages; those of the system stay in their places."""
        system = self.value.get("system")
        prompt = None
        if system is not None:
            prompt = "\n\n".join(part.text for part in self.texts("system", system, _TEXTS)) or None
        messages: list[Message] = []
        for index, one in enumerate(self.turns()):
            path, role = f"messages[{index}]", _ROLES.get(str(one.get("role")))
            self.unread(one, ("role", "content"))
            if role is None:
                self.fault(f"{path}.role", "must be one of user, assistant, system")
                return prompt, messages
            messages.append(Message(role, self._content(f"{path}.content", one.get("content"), role)))
            if len(self.faults) > 1:
                return prompt, messages
        if not self.faults and not any(message.role == "user" for message in messages):
            self.fault("messages", "must hold at least one message of role user")
        return prompt, messages

    def _content(self, path: str, content: object, role: Role) -> tuple[Part, ...]:
        if not isinstance(content, list) or role == "system":
            return self.texts(path, content, _TEXTS)
        readers: dict[str, Callable[[str, Mapping[str, object]], Part | None]] = {
            "text": self._text, "image": self._image, "document": self._document,
        }  # fmt: skip
        if role == "assistant":
            readers |= {"tool_use": self._call, "thinking": self._thought, "redacted_thinking": self._thought}
        else:
            readers["tool_result"] = self._result
        return self._blocks(path, content, readers)

    def _blocks(
        self,
        path: str,
        content: list[object],
        readers: Mapping[str, Callable[[str, Mapping[str, object]], Part | None]],
    ) -> tuple[Part, ...]:
        found: list[Part] = []
        for index, block in enumerate(content):
            place = f"{path}[{index}]"
            kind = block.get("type") if isinstance(block, dict) else None
            if not isinstance(block, dict) or not isinstance(kind, str):
                self.fault(place, "must be an object with a type")
                return ()
            if (reader := readers.get(kind)) is None:
                self.fault(f"{place}.type", f"must be one of {', '.join(readers)}")
                return ()
            faults = len(self.faults)
            part = reader(place, block)
            if len(self.faults) > faults:
                return ()
            if part is not None:
                found.append(part)
        return tuple(found)

    def _text(self, path: str, block: Mapping[str, object]) -> Part | None:
        text = block.get("text")
        if not isinstance(text, str):
            self.fault(f"{path}.text", "must be a string")
            return None
        self.unread(block, ("type", "text", "cache_control"))
        return TextPart(text, self._cache(block))

    def _image(self, path: str, block: Mapping[str, object]) -> ImagePart | None:
        source = block.get("source")
        self.unread(block, ("type", "source", "cache_control"))
        if isinstance(source, dict) and source.get("type") == "base64":
            return self._marked(self.image(f"{path}.source", source.get("media_type"), source.get("data")), block)
        if isinstance(source, dict) and source.get("type") == "url":
            url = source.get("url")
            if isinstance(url, str) and url.startswith("data:"):
                self.fault(f"{path}.source.url", "must be an https URL; send inline data with source type base64")
                return None
            return self._marked(self.image_url(f"{path}.source.url", url), block)
        self.fault(f"{path}.source", "must have the type base64 or url")
        return None

    def _document(self, path: str, block: Mapping[str, object]) -> Part:
        self.need("documents", path)
        return OpaquePart("anthropic", json.dumps(block, ensure_ascii=False))

    def _thought(self, path: str, block: Mapping[str, object]) -> Part | None:
        """Keep a thought that is signed; one without a signature is another vendor's."""
        if block.get("type") == "thinking" and not block.get("signature"):
            return None
        return OpaquePart("anthropic", json.dumps(block, ensure_ascii=False))

    def _call(self, path: str, block: Mapping[str, object]) -> Part | None:
        self.need("tools", path)
        id, given = block.get("id"), block.get("input")
        name = self.tool_name(f"{path}.name", block.get("name"))
        if not isinstance(id, str) or not isinstance(given, dict):
            self.fault(path, "must have an id (a string) and an input (an object)")
            return None
        extra = block.get("extra_content")
        google = extra.get("google") if isinstance(extra, dict) else None
        signature = google.get("thought_signature") if isinstance(google, dict) else None
        arguments = json.dumps(given, ensure_ascii=False)
        self.unread(block, ("type", "id", "name", "input", "cache_control", "extra_content"))
        return ToolCallPart(id, name, arguments, signature if isinstance(signature, str) else None, self._cache(block))

    def _result(self, path: str, block: Mapping[str, object]) -> Part | None:
        self.need("tools", path)
        id, content = block.get("tool_use_id"), block.get("content")
        if not isinstance(id, str):
            self.fault(f"{path}.tool_use_id", "must be a string")
            return None
        inner: tuple[Part, ...]
        if isinstance(content, list):
            readers: dict[str, Callable[[str, Mapping[str, object]], Part | None]] = {
                "text": self._text, "image": self._image, "document": self._document,
            }  # fmt: skip
            inner = self._blocks(f"{path}.content", content, readers)
        else:
            inner = self.texts(f"{path}.content", content or "", _TEXTS)
        kept = tuple(part for part in inner if isinstance(part, TextPart | ImagePart | OpaquePart))
        self.unread(block, ("type", "tool_use_id", "content", "is_error", "cache_control"))
        return ToolResultPart(id, kept, block.get("is_error") is True, self._cache(block))

    def _marked(self, image: ImagePart | None, block: Mapping[str, object]) -> ImagePart | None:
        return None if image is None else replace(image, cache=self._cache(block))

    def _cache(self, block: Mapping[str, object]) -> str | None:
        """Return a mark for Anthropic's cache as JSON text."""
        mark = block.get("cache_control")
        if not isinstance(mark, dict):
            return None
        self.wishes.append(("extensions", "cache_control"))
        return json.dumps(mark, ensure_ascii=False)
