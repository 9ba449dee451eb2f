"""The message for each mistake in a configuration: the file, the key, the value, and what is allowed."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

__all__ = ["ConfigError", "explain"]


class ConfigError(ValueError):
    """The configuration is invalid; the message is for the person who wrote it."""


def explain(source: str, value: Any, error: Any, sections: Mapping[str, type[BaseModel]]) -> str:
    """Return one line: file, key, value, and what is allowed."""
    location = error["loc"]
    found: Any = value
    for part in location:
        found = found.get(part, _ABSENT) if isinstance(found, Mapping) else _item(found, part)
    where = ".".join(map(str, location))
    match error["type"]:
        case "extra_forbidden":
            what = f"unknown key; allowed keys: {', '.join(_keys_beside(location, sections))}"
        case "missing":
            what = "is missing"
        case _:
            what = error["msg"].removeprefix("Value error, ")
    hidden = (
        found is _ABSENT
        or isinstance(found, Mapping | list)
        or _may_be_secret(str(location[-1] if location else ""), found)
    )
    shown = "" if hidden else f" = {_literal(found)}"
    return f"{source}: {where}{shown}: {what}" if where else f"{source}: {what}"


def _keys_beside(location: Sequence[int | str], sections: Mapping[str, type[BaseModel]]) -> list[str]:
    """Return the keys that are allowed beside this one; `sections` has the whole configuration under ""."""
    section = str(location[0]) if len(location) > 1 else ""
    return list(sections.get(section, sections[""]).model_fields)


_SECRET_NAME = re.compile(r"key|secret|token$|password|credential|authorization", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^(sk-|sk_|flp_sk_|AIza|xox|gh[pousr]_|Bearer )|://[^/]*@|[A-Za-z0-9_\-]{24,}")


def _may_be_secret(key: str, value: object) -> bool:
    """Return whether a value may be a secret that was written into the file by mistake; messages do not quote those.

    >>> _may_be_secret("api_key", "x"), _may_be_secret("model", "sk-abc"), _may_be_secret("model", "gpt-5-mini")
    (True, True, False)
    """
    return isinstance(value, str) and bool(_SECRET_NAME.search(key) or _SECRET_VALUE.search(value))


_ABSENT = object()


def _item(found: Any, part: Any) -> Any:
    return found[part] if isinstance(found, list) and isinstance(part, int) and part < len(found) else _ABSENT


def _literal(value: Any) -> str:
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
