"""What the codecs share about calls of tools: arguments as JSON, ids, and the pieces of calls as they come."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from floop_gateway_core.providers.base import Delta
from floop_gateway_core.types import Message, ToolCallPart, ToolEnd, ToolPiece
from floop_gateway_core.wire.strict_json import object_of

__all__ = ["CallPieces", "arguments_of", "calls_by_id", "plain_id", "raw", "schema_of", "short_id"]

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


def raw(text: str) -> msgspec.Raw:
    """Return JSON text to be put into a body as it is."""
    return msgspec.Raw(text.encode())


def schema_of(text: str | None) -> object:
    """Return a schema of arguments; a function without any takes an empty object."""
    return {"type": "object", "properties": {}} if text is None else raw(text)


def arguments_of(call: ToolCallPart) -> object:
    """Return a call's arguments as an object; anything else is wrapped as `{"_raw": text}`.

    >>> arguments_of(ToolCallPart("1", "f", "[1]"))
    {'_raw': '[1]'}
    """
    found = object_of(call.arguments or "{}")
    return {"_raw": call.arguments} if found is None else found


def plain_id(id: str) -> str:
    """Return an id that every vendor takes, the same one each time for the same id.

    >>> plain_id("call_1"), plain_id("é").startswith("call_")
    ('call_1', True)
    """
    if _PLAIN_ID.fullmatch(id):
        return id
    return f"call_{blake2b(id.encode('utf-8', 'replace'), digest_size=12).hexdigest()}"


def short_id(id: str) -> str:
    """Return an id as Mistral takes it: nine letters or digits, the same ones each time for the same id.

    >>> short_id("abcDEF123"), len(short_id("call_1"))
    ('abcDEF123', 9)
    """
    if _SHORT_ID.fullmatch(id):
        return id
    return blake2b(id.encode("utf-8", "replace"), digest_size=5).hexdigest()[:9]


def calls_by_id(messages: Sequence[Message]) -> dict[str, ToolCallPart]:
    """Return the calls of a conversation by their ids."""
    return {part.id: part for message in messages for part in message.content if isinstance(part, ToolCallPart)}


_BRACKET = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


class _Json:
    """Follows a JSON text that comes in pieces, to know when it is complete."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escapes = self.complete = False
        """`complete` is whether an object or an array has been closed."""

    def feed(self, text: str) -> None:
        """Follow the next piece."""
        if self._escapes and text:
            text, self._escapes = text[1:], False
        for found in _BRACKET.finditer(text):
            mark = found[0]
            if mark == '"':
                self._in_string = not self._in_string
            elif len(mark) == 1 and not self._in_string:
                self._depth += 1 if mark in "{[" else -1
                self.complete = self.complete or self._depth == 0
        self._escapes = (len(text) - len(text.rstrip("\\"))) % 2 == 1


@dataclass(slots=True, eq=False)
class _Call:
    key: object
    id: str = ""
    name: str = ""
    number: int = -1
    """Its place among the calls that have begun."""
    waiting: str = ""
    """Arguments that came before the name."""
    has_arguments: bool = False
    is_open: bool = True
    json: _Json = field(default_factory=_Json)

    @property
    def begun(self) -> bool:
        return self.number >= 0

    def is_over(self, id: str | None, name: str | None, arguments: str, *, by_name: bool) -> bool:
        """Return whether a piece for the same place begins another call.

        Some servers repeat the name or send a new id with every piece. With `by_name`, a name alone begins a call, except
        for the one that is being written.
        """
        if id and self.id and id != self.id:
            return bool(name) or self.json.complete
        if not name or not self.name:
            return False
        if name != self.name:
            return by_name or self.has_arguments
        if self.has_arguments and not self.json.complete:
            return False
        return by_name or (self.json.complete and bool(arguments.strip()))


class CallPieces:
    """The calls of one answer as they arrive: pieces grouped by the vendor's key, numbered in the order of their names."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_key: dict[object, _Call] = {}
        self._ids: set[str] = set()
        """Of the calls that have begun."""

    def __bool__(self) -> bool:
        """Return whether a call has begun; one without a name never does."""
        return bool(self._ids)

    def knows(self, key: object) -> bool:
        """Return whether a call has begun under a key."""
        return key in self._by_key

    def forget(self, key: object) -> None:
        """Let the next piece under a key begin another call."""
        self._by_key.pop(key, None)

    def key_of(self, index: int | None, id: str | None, name: str | None, arguments: str) -> object:
        """Return the key of a piece: servers leave out indexes, or give several calls the same one, or the same id."""
        by_id = self._by_key.get(("id", id)) if id else None
        if by_id is not None:
            call: _Call | None = by_id
            key: object = ("id", id)
        elif index is not None:
            key = ("index", index)
            call = self._by_key.get(key)
        elif id:
            key, call = ("id", id), None
        else:
            call = self._calls[-1] if self._calls else None
            key = ("number", len(self._calls)) if call is None else call.key
        if call is not None and call.is_over(id, name, arguments, by_name=index is None):
            key = ("index", index) if index is not None else ("id", id) if id else ("number", len(self._calls))
            self.forget(key)
        return key

    def add(
        self,
        delta: Delta,
        key: object,
        *,
        id: str | None = None,
        name: str | None = None,
        arguments: str = "",
        signature: str | None = None,
        thoughts: str | None = None,
    ) -> None:
        """Add a piece; a call begins with the piece that brings its name. What follows complete arguments is left out."""
        call = self._by_key.get(key)
        if call is None:
            call = self._by_key[key] = _Call(key)
            self._calls.append(call)
        if id:
            self._by_key["id", id] = call
            call.id = call.id or id
        if call.json.complete:
            arguments = ""
        call.json.feed(arguments)
        call.has_arguments = call.has_arguments or bool(arguments)
        if call.begun:
            if arguments or signature:
                delta.items.append(ToolPiece(call.number, arguments, signature=signature))
            return
        call.name = call.name or name or ""
        call.waiting += arguments
        if call.name:
            call.number = len(self._ids)
            if not call.id or call.id in self._ids:  # a result could not say whose it is
                call.id = f"call_{secrets.token_hex(12)}"
            self._ids.add(call.id)
            piece = ToolPiece(call.number, call.waiting, call.id, call.name, signature, thoughts)
            delta.items.append(piece)

    def end(self, delta: Delta, key: object | None = None) -> None:
        """End a call, or all that are open. Arguments that never came are `{}`."""
        for call in self._calls if key is None else [self._by_key[key]]:
            if call.is_open and call.begun:
                if not call.has_arguments:
                    delta.items.append(ToolPiece(call.number, "{}"))
                delta.items.append(ToolEnd(call.number))
            call.is_open = False
