"""Project keys on the wire: their form, the header that carries them, their digest and their short name.

A key is `flp_sk_` and 33 letters or digits: 196 random bits, so a plain SHA-256 is digest enough. Only the digest is ever
stored; people and logs see `flp_sk_ab12…`.
"""

import hashlib
import re
from collections.abc import Sequence

__all__ = ["KEY_ALPHABET", "KEY_LENGTH", "KEY_PREFIX", "digest", "from_header", "short", "well_formed"]

KEY_PREFIX = "flp_sk_"
KEY_LENGTH = 33
"""Letters and digits after the prefix: 196 random bits."""
KEY_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_KEY = re.compile(rf"{KEY_PREFIX}[0-9A-Za-z]{{{KEY_LENGTH}}}")


def from_header(values: Sequence[str]) -> str | None:
    """Return the key of an `Authorization: Bearer` header, or None for every other form (and for several headers).

    >>> from_header(["bearer flp_sk_" + "a" * 33]) == "flp_sk_" + "a" * 33
    True
    >>> from_header(["Basic flp_sk_x"]) is None
    True
    """
    if len(values) != 1:
        return None
    scheme, _, key = values[0].strip(" \t").partition(" ")
    key = key.lstrip(" ")
    return key if scheme.lower() == "bearer" and _KEY.fullmatch(key) else None


def well_formed(key: str) -> bool:
    """Return whether this could be a key: whether it exists, only a store knows."""
    return _KEY.fullmatch(key) is not None


def digest(key: str) -> str:
    """Return the SHA-256 of a key in hex, which is what a store keeps."""
    return hashlib.sha256(key.encode()).hexdigest()


def short(key: str) -> str:
    """Return a short form of the key for people and logs.

    >>> short("flp_sk_ab12" + "x" * 29)
    'flp_sk_ab12…'
    """
    return key[: len(KEY_PREFIX) + 4] + "…"
