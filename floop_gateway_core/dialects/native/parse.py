"""Parses a request's bytes into a `Call`, or the refusal that says what is wrong (contract: Request bodies).

Two stages, two codes. `INVALID_BODY`: the bytes are not a JSON object in UTF-8. `VALIDATION_ERROR`: a field is missing, of
the wrong type or out of range; every error is listed, with its path. JSON types are strict, unknown fields are ignored,
and an optional field that is null counts as absent. Whether the alias exists is not decided here.
"""

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import NoReturn, cast

from floop_gateway_core.errors import ErrorCode, FieldError, Refusal
from floop_gateway_core.types import Call, Endpoint, Message, Role, TextPart

__all__ = ["MAX_PROMPT_CHARACTERS", "parse", "parse_object"]

MAX_PROMPT_CHARACTERS = 500_000
"""The contract's limit."""
MAX_FIELD_ERRORS = 20
"""The most errors that one answer lists."""
MAX_MESSAGES = 4_096
MAX_PARTS = 16_384
"""The most parts in all messages together, because parsing and estimating also cost per part."""
MAX_DIGITS = 1000
"""Python takes time quadratic in the digits of an integer."""
HALF_A_PAIR = "The body holds half a surrogate pair. Escape such characters as a whole pair, or send UTF-8."
_ROLES = ("system", "user", "assistant")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(endpoint: Endpoint, body: bytes) -> Call | Refusal:
    """Return the call, or the first stage's refusal.

    >>> parse("generate", b'{"prompt": "Hi", "temperature": 1}').temperature
    1.0
    >>> parse("generate", b'{"prompt": ""}').fields
    (FieldError(path='prompt', message='must be 1 to 500000 characters long'),)
    """
    value = _load(body)
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
            *(part.text for message in call.messages for part in message.content),
        ):
            text.encode()
    except UnicodeEncodeError:
        return _invalid(HALF_A_PAIR)
    return call


def _load(body: bytes) -> dict[str, object] | Refusal:
    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        value = json.loads(body.removeprefix(BOM_UTF8).decode(), parse_constant=refuse_constant, parse_int=_integer)
        if _SURROGATE_ESCAPE.search(body):
            json.dumps(value, ensure_ascii=False).encode()  # raises for half a pair, in keys and ignored fields too
    except UnicodeDecodeError:
        return _invalid("The body is not UTF-8. Send a JSON object in UTF-8.")
    except UnicodeEncodeError:
        return _invalid(HALF_A_PAIR)
    except RecursionError:
        return _invalid("The body is nested too deeply. Send a flat JSON object.")
    except ValueError:
        return _invalid("The body is not valid JSON. Send a JSON object in UTF-8; NaN and Infinity are not JSON.")
    if not isinstance(value, dict):
        return _invalid("The body is JSON but not an object. Send a JSON object.")
    return value


def _integer(digits: str) -> int:
    """Read an integer of any length: JSON has no limit, and Python refuses to parse very long ones."""
    return int(digits[:MAX_DIGITS])


def _invalid(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_BODY, message)


def _has_parts(message: Mapping[str, object]) -> bool:
    return isinstance(message.get("content"), list)


class _Fields:
    """Reads the fields of an object and collects every error; an invalid field counts as absent."""

    def __init__(self, value: Mapping[str, object]) -> None:
        self._value = value
        self._faults: list[FieldError] = []

    def call(self, endpoint: Endpoint) -> Call | Refusal:
        messages = self._prompt() if endpoint == "generate" else self._messages()
        system = [self._string("system") or ""]
        system += [message.text for message in messages if message.role == "system"]
        alias = self._string("model")
        call = Call(
            endpoint,
            tuple(message for message in messages if message.role != "system"),
            "auto" if alias is None else alias,
            "\n\n".join(text for text in system if text) or None,
            self._temperature(),
            self._max_tokens(),
            self._boolean("stream"),
            alias is not None,
        )
        return self._refusal() if self._faults else call

    def _refusal(self) -> Refusal:
        first, more = self._faults[0], len(self._faults) - 1
        rest = f" (and {more} more)" if more < MAX_FIELD_ERRORS else " (and many more)"
        rest = rest if more else ""
        return Refusal(
            ErrorCode.VALIDATION_ERROR,
            f"{first.path} {first.message}{rest}.",
            fields=tuple(self._faults[:MAX_FIELD_ERRORS]),
        )

    def _fault(self, path: str, message: str) -> None:
        self._faults.append(FieldError(path, message))

    def _string(self, name: str) -> str | None:
        value = self._value.get(name)
        if value is None or isinstance(value, str):
            return value
        self._fault(name, "must be a string")
        return None

    def _boolean(self, name: str) -> bool:
        value = self._value.get(name)
        if value is not None and not isinstance(value, bool):
            self._fault(name, "must be true or false")
        return value is True

    def _temperature(self) -> float | None:
        value = self._value.get("temperature")
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= cast(float, value) <= 2 or not math.isfinite(cast(float, value)):
            self._fault("temperature", "must be a number from 0 to 2")
            return None
        return float(cast(float, value))

    def _max_tokens(self) -> int | None:
        value = self._value.get("max_tokens")
        if value is None:
            return None
        if type(value) is not int or value < 1:
            self._fault("max_tokens", "must be an integer of 1 or more")
            return None
        return value

    def _prompt(self) -> list[Message]:
        prompt = self._value.get("prompt")
        if not isinstance(prompt, str):
            self._fault("prompt", "is required" if prompt is None else "must be a string")
        elif not 1 <= len(prompt) <= MAX_PROMPT_CHARACTERS:
            self._fault("prompt", f"must be 1 to {MAX_PROMPT_CHARACTERS} characters long")
        else:
            return [Message("user", (TextPart(prompt),))]
        return []

    def _messages(self) -> list[Message]:
        value = self._value.get("messages")
        if not isinstance(value, list | tuple):
            self._fault("messages", "is required" if value is None else "must be an array")
            return []
        if not 1 <= len(value) <= MAX_MESSAGES:
            most = "at least one message" if not value else f"at most {MAX_MESSAGES} messages"
            self._fault("messages", f"must hold {most}")
            return []
        parts = sum(len(item["content"]) for item in value if isinstance(item, dict) and _has_parts(item))
        if parts > MAX_PARTS:
            self._fault("messages", f"must hold at most {MAX_PARTS} parts in all")
            return []
        faults_before = len(self._faults)
        messages = []
        for index, item in enumerate(value):
            if message := self._message(f"messages[{index}]", item):
                messages.append(message)
            elif len(self._faults) > MAX_FIELD_ERRORS:
                break  # there may be millions of them
        if len(self._faults) == faults_before and not any(message.role == "user" for message in messages):
            self._fault("messages", "must hold at least one message of role user")
        return messages

    def _message(self, path: str, value: object) -> Message | None:
        if isinstance(value, Message):
            return self._typed(path, value)
        if not isinstance(value, dict):
            self._fault(path, "must be an object with role and content")
            return None
        role = value.get("role")
        if role not in _ROLES or not isinstance(role, str):
            self._fault(f"{path}.role", "is required" if role is None else f"must be one of {', '.join(_ROLES)}")
            return None
        content = value.get("content")
        if isinstance(content, str):
            return Message(cast(Role, role), (TextPart(content),))
        if isinstance(content, list):
            return self._parts(f"{path}.content", cast(Role, role), content)
        self._fault(
            f"{path}.content", "is required" if content is None else "must be a string or an array of text parts"
        )
        return None

    def _typed(self, path: str, message: Message) -> Message | None:
        """Return a message that the host built; only its types are checked."""
        if message.role not in _ROLES:
            self._fault(f"{path}.role", f"must be one of {', '.join(_ROLES)}")
            return None
        for index, part in enumerate(message.content):
            if not isinstance(part, TextPart) or not isinstance(part.text, str):
                self._fault(f"{path}.content[{index}]", "must be a TextPart")
                return None
        return message

    def _parts(self, path: str, role: Role, value: list[object]) -> Message | None:
        parts = []
        for index, part in enumerate(value):
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                self._fault(f"{path}[{index}]", 'must be {"type": "text", "text": "…"}')
                return None
            parts.append(TextPart(part["text"]))
        return Message(role, tuple(parts))
