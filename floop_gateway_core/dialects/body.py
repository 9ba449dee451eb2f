"""Reads a body as a JSON object, for every dialect: strict JSON in UTF-8, without half surrogate pairs."""

import json
import re
from codecs import BOM_UTF8

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.wire.strict_json import MAX_DEPTH, OutOfRange, TooDeep, loads

__all__ = ["HALF_A_PAIR", "invalid", "load_object"]

HALF_A_PAIR = "The body holds half a surrogate pair. Escape such characters as a whole pair, or send UTF-8."
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def load_object(body: bytes) -> dict[str, object] | Refusal:
    """Return the object, or the refusal that says why there is none.

    >>> load_object(b'{"a": 1}')
    {'a': 1}
    >>> load_object(b"[]").message
    'The body is JSON but not an object. Send a JSON object.'
    """
    try:
        text = body.removeprefix(BOM_UTF8).decode()
        try:
            value = loads(text)
        except OutOfRange:
            value = loads(text, finite=False)
            if _nests_infinity(value):
                return invalid("The body holds a number beyond the range of a 64-bit float. Send a smaller number.")
        if _SURROGATE_ESCAPE.search(body):
            json.dumps(value, ensure_ascii=False).encode()  # raises for half a pair, in keys and ignored fields too
    except UnicodeDecodeError:
        return invalid("The body is not UTF-8. Send a JSON object in UTF-8.")
    except UnicodeEncodeError:
        return invalid(HALF_A_PAIR)
    except TooDeep:
        return invalid(f"The body is nested more than {MAX_DEPTH} levels deep. Send a flatter JSON object.")
    except ValueError:
        return invalid("The body is not valid JSON. Send a JSON object in UTF-8; NaN and Infinity are not JSON.")
    if not isinstance(value, dict):
        return invalid("The body is JSON but not an object. Send a JSON object.")
    return value


def _nests_infinity(value: object) -> bool:
    """Return whether a number is infinite below the members of the body: those are validated, with their names."""
    below = [one for one in value.values() if isinstance(one, dict | list)] if isinstance(value, dict) else [value]
    try:
        json.dumps(below, allow_nan=False)
    except ValueError:
        return True
    return False


def invalid(message: str) -> Refusal:
    """Return the refusal of a body that is not a JSON object."""
    return Refusal(ErrorCode.INVALID_BODY, message)
