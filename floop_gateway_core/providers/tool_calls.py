"""What the codecs share about calls of tools: arguments as JSON, ids, and the pieces of calls as they come."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from floop_gateway_core.providers.base import Delta
from floop_gateway_core.types import Message, ToolCallPart, ToolEnd, ToolPiece
from floop_gateway_core.wire.strict_json import object_of

__all__ = ["CallPieces", "arguments_of", "calls_by_id", "plain_id", "raw", "schema_of"]

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


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


def calls_by_id(messages: Sequence[Message]) -> dict[str, ToolCallPart]:
    """Return the calls of a conversation by their ids."""
    return {part.id: part for message in messages for part in message.content if isinstance(part, ToolCallPart)}


@dataclass(slots=True)
class _Call:
    number: int
    id: str = ""
    name: str = ""
    waiting: str = ""
    """Arguments that came before the name."""
    begun: bool = False
    has_arguments: bool = False
    is_open: bool = True


class CallPieces:
    """The calls of one answer as they arrive: pieces grouped by the vendor's key, numbered in order of appearance."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_key: dict[object, _Call] = {}

    def __bool__(self) -> bool:
        """Return whether a call has begun; one without a name never does."""
        return any(call.begun for call in self._calls)

    def knows(self, key: object) -> bool:
        """Return whether a call has begun under a key."""
        return key in self._by_key

    def key_of(self, index: int | None, id: str | None, name: str | None) -> object:
        """Return the key of a piece: servers leave out indexes, or give every whole call the same one."""
        last = self._calls[-1] if self._calls else None
        if index is not None:
            known = self._by_key.get(("index", index))
            is_new_call = known is not None and bool(id and known.id and id != known.id and name)
            return ("id", id) if is_new_call else ("index", index)
        if id:
            return "id", id
        if last is None or (name and last.name):
            return "number", len(self._calls)
        return next(key for key, call in reversed(self._by_key.items()) if call is last)

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
        """Add a piece; a call begins with the piece that brings its name."""
        call = self._by_key.get(key)
        if call is None:
            call = self._by_key[key] = _Call(len(self._calls))
            self._calls.append(call)
        call.id = call.id or id or ""
        call.has_arguments = call.has_arguments or bool(arguments)
        if call.begun:
            if arguments or signature:
                delta.items.append(ToolPiece(call.number, arguments, signature=signature))
            return
        call.name = call.name or name or ""
        call.waiting += arguments
        if call.name:
            call.begun = True
            call.id = call.id or f"call_{secrets.token_hex(12)}"
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
