"""Reads a body as a JSON object, for every dialect: strict JSON in UTF-8, without half surrogate pairs."""

import json
import re
from codecs import BOM_UTF8
from typing import NoReturn

from floop_gateway_core.errors import ErrorCode, Refusal

__all__ = ["HALF_A_PAIR", "invalid", "load_object"]

MAX_DIGITS = 1000
"""Python takes time quadratic in the digits of an integer."""
HALF_A_PAIR = "The body holds half a surrogate pair. Escape such characters as a whole pair, or send UTF-8."
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def load_object(body: bytes) -> dict[str, object] | Refusal:
    """Return the object, or the refusal that says why there is none.

    >>> load_object(b'{"a": 1}')
    {'a': 1}
    >>> load_object(b"[]").message
    'The body is JSON but not an object. Send a JSON object.'
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        value = json.loads(body.removeprefix(BOM_UTF8).decode(), parse_constant=refuse_constant, parse_int=_integer)
        if _SURROGATE_ESCAPE.search(body):
            json.dumps(value, ensure_ascii=False).encode()  # raises for half a pair, in keys and ignored fields too
    except UnicodeDecodeError:
        return invalid("The body is not UTF-8. Send a JSON object in UTF-8.")
    except UnicodeEncodeError:
        return invalid(HALF_A_PAIR)
    except RecursionError:
        return invalid("The body is nested too deeply. Send a flat JSON object.")
    except ValueError:
        return invalid("The body is not valid JSON. Send a JSON object in UTF-8; NaN and Infinity are not JSON.")
    if not isinstance(value, dict):
        return invalid("The body is JSON but not an object. Send a JSON object.")
    return value


def _integer(digits: str) -> int:
    """Read an integer of any length: JSON has no limit, and Python refuses to parse very long ones."""
    return int(digits[:MAX_DIGITS])


def invalid(message: str) -> Refusal:
    """Return the refusal of a body that is not a JSON object."""
    return Refusal(ErrorCode.INVALID_BODY, message)
