"""Parses a request's bytes into a `Call`, or the refusal that says what is wrong (contract: Request bodies).

Two stages, two codes. `INVALID_BODY`: the bytes are not a JSON object in UTF-8. `VALIDATION_ERROR`: a field is missing, of
the wrong type or out of range; every error is listed, with its path. JSON types are strict, unknown fields are ignored,
and an optional field that is null counts as absent. Whether the alias exists is not decided here.
"""

from collections.abc import Mapping
from typing import cast

from floop_gateway_core.dialects.body import HALF_A_PAIR, invalid, load_object
from floop_gateway_core.dialects.fields import MAX_FIELD_ERRORS, MAX_MESSAGES, MAX_PARTS, Fields, ignored_names
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call, Endpoint, Message, Role, TextPart

__all__ = ["MAX_PROMPT_CHARACTERS", "parse", "parse_object"]

MAX_PROMPT_CHARACTERS = 500_000
"""The contract's limit."""
_COMMON = {"model", "system", "temperature", "max_tokens", "stream"}
_KNOWN = {"chat": {"messages", *_COMMON}, "generate": {"prompt", *_COMMON}, "embed": set()}
_ROLES = ("system", "user", "assistant")


def parse(endpoint: Endpoint, body: bytes) -> Call | Refusal:
    """Return the call, or the first stage's refusal.

    >>> parse("generate", b'{"prompt": "Hi", "temperature": 1}').temperature
    1.0
    >>> parse("generate", b'{"prompt": ""}').fields
    (FieldError(path='prompt', message='must be 1 to 500000 characters long'),)
    """
    value = load_object(body)
    return value if isinstance(value, Refusal) else _Fields(value).call(endpoint)


def parse_object(endpoint: Endpoint, value: Mapping[str, object]) -> Call | Refusal:
    """Return the call that a dict of Python values asks for: the same rules, and the same errors.

    >>> parse_object("generate", {"prompt": "Hi", "max_tokens": "3"}).message
    'max_tokens must be an integer of 1 or more.'
    """
    call = _Fields(value).call(endpoint)
    if isinstance(call, Refusal):
        return call
    try:
        for text in (
            call.alias,
            call.system or "",
            *(message.text for message in call.messages),
        ):
            text.encode()
    except UnicodeEncodeError:
        return invalid(HALF_A_PAIR)
    return call


def _has_parts(message: Mapping[str, object]) -> bool:
    return isinstance(message.get("content"), list)


class _Fields(Fields):
    def call(self, endpoint: Endpoint) -> Call | Refusal:
        messages = self._prompt() if endpoint == "generate" else self._messages()
        system = [self.string("system") or ""]
        system += [message.text for message in messages if message.role == "system"]
        alias = self.string("model")
        call = Call(
            endpoint,
            tuple(message for message in messages if message.role != "system"),
            "auto" if alias is None else alias,
            "\n\n".join(text for text in system if text) or None,
            self.number("temperature", 0, 2),
            self.integer("max_tokens", 1),
            self.boolean("stream"),
            alias is not None,
            ignored=ignored_names(self.value.keys() - _KNOWN[endpoint]),
        )
        return self.refusal() if self.faults else call

    def _prompt(self) -> list[Message]:
        prompt = self.value.get("prompt")
        if not isinstance(prompt, str):
            self.fault("prompt", "is required" if prompt is None else "must be a string")
        elif not 1 <= len(prompt) <= MAX_PROMPT_CHARACTERS:
            self.fault("prompt", f"must be 1 to {MAX_PROMPT_CHARACTERS} characters long")
        else:
            return [Message("user", (TextPart(prompt),))]
        return []

    def _messages(self) -> list[Message]:
        value = self.value.get("messages")
        if not isinstance(value, list | tuple):
            self.fault("messages", "is required" if value is None else "must be an array")
            return []
        if not 1 <= len(value) <= MAX_MESSAGES:
            most = "at least one message" if not value else f"at most {MAX_MESSAGES} messages"
            self.fault("messages", f"must hold {most}")
            return []
        parts = sum(len(item["content"]) for item in value if isinstance(item, dict) and _has_parts(item))
        if parts > MAX_PARTS:
            self.fault("messages", f"must hold at most {MAX_PARTS} parts in all")
            return []
        faults_before = len(self.faults)
        messages = []
        for index, item in enumerate(value):
            if message := self._message(f"messages[{index}]", item):
                messages.append(message)
            elif len(self.faults) > MAX_FIELD_ERRORS:
                break  # there may be millions of them
        if len(self.faults) == faults_before and not any(message.role == "user" for message in messages):
            self.fault("messages", "must hold at least one message of role user")
        return messages

    def _message(self, path: str, value: object) -> Message | None:
        if isinstance(value, Message):
            return self._typed(path, value)
        if not isinstance(value, dict):
            self.fault(path, "must be an object with role and content")
            return None
        role = value.get("role")
        if role not in _ROLES or not isinstance(role, str):
            self.fault(f"{path}.role", "is required" if role is None else f"must be one of {', '.join(_ROLES)}")
            return None
        content = value.get("content")
        if isinstance(content, str):
            return Message(cast(Role, role), (TextPart(content),))
        if isinstance(content, list):
            return self._parts(f"{path}.content", cast(Role, role), content)
        self.fault(
            f"{path}.content", "is required" if content is None else "must be a string or an array of text parts"
        )
        return None

    def _typed(self, path: str, message: Message) -> Message | None:
        """Return a message that the host built; only its types are checked."""
        if message.role not in _ROLES:
            self.fault(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
            return None
        for index, part in enumerate(message.content):
            if not isinstance(part, TextPart) or not isinstance(part.text, str):
                self.fault(f"{path}.content[{index}]", "must be a TextPart")
                return None
        return message

    def _parts(self, path: str, role: Role, value: list[object]) -> Message | None:
        parts = []
        for index, part in enumerate(value):
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                self.fault(f"{path}[{index}]", 'must be {"type": "text", "text": "…"}')
                return None
            parts.append(TextPart(part["text"]))
        return Message(role, tuple(parts))
