"""Strict JSON: what any parser reads and any encoder can write again.

Python also reads NaN, Infinity, numbers beyond a float, integers of any length and any depth of nesting.
"""

import json
import math
from collections.abc import Iterable
from typing import NoReturn

__all__ = ["MAX_DEPTH", "OutOfRange", "TooDeep", "loads", "object_of"]

MAX_DEPTH = 200
"""A value may be nested this deep. What is read here is written again, from deeper in the stack."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
MAX_DIGITS = 1000
"""Python takes time quadratic in the digits of an integer."""


class TooDeep(ValueError):
    """A value is nested more than `MAX_DEPTH` levels deep."""


class OutOfRange(ValueError):
    """A number is beyond what a float can hold."""


def loads(text: str, *, finite: bool = True) -> object:
    """Return the value; raise ValueError for text that is not strict JSON, and its kinds `TooDeep` and `OutOfRange`.

    Without `finite`, a number that is out of range is read as infinite.

    >>> loads('{"a": [1, 0.5]}')
    {'a': [1, 0.5]}
    >>> loads("1e999")
    Traceback (most recent call last):
    floop_gateway_core.wire.strict_json.OutOfRange: a number must be finite, got 1e999
    """
    try:
        read = _finite if finite else float
        value: object = json.loads(text, parse_constant=_constant, parse_int=_integer, parse_float=read)
    except RecursionError:
        raise TooDeep("the JSON is nested too deeply") from None
    if _may_be_too_deep(text) and _is_too_deep(value):
        raise TooDeep("the JSON is nested too deeply")
    return value


def object_of(text: str) -> dict[str, object] | None:
    """Return an object, or None if the text is not strict JSON or not an object.

    >>> object_of('{"a": 1}'), object_of("[]"), object_of('{"a": NaN}'), object_of("{")
    ({'a': 1}, None, None, None)
    """
    try:
        value = loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _may_be_too_deep(text: str) -> bool:
    """Look at the brackets alone, those in strings too: pairs are taken out from the inside, one level at a time.

    A body of very many small values costs a fraction of a walk over them.
    """
    brackets = text.encode("utf-8", "replace").translate(None, _NO_BRACKETS)
    for taken in range(MAX_DEPTH):
        if taken + len(brackets) // 2 <= MAX_DEPTH:
            return False
        shorter = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    return True


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for one in level for child in _children(one) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise OutOfRange(f"a number must be finite, got {text:.20}")
    return number


def _integer(digits: str) -> int:
    """Read an integer of any length: JSON has no limit, and Python refuses to parse very long ones."""
    return int(digits[:MAX_DIGITS])
