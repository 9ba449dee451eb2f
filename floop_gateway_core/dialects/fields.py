"""Reads the fields of an object strictly, and collects every error with its path.

JSON types are not converted, an optional field that is null counts as absent, and an invalid field counts as absent too:
it has been noted, and the whole is refused.
"""

import math
import re
from collections.abc import Collection, Mapping

from floop_gateway_core.errors import ErrorCode, FieldError, Refusal

__all__ = ["MAX_FIELD_ERRORS", "MAX_MESSAGES", "MAX_PARTS", "Fields", "ignored_names"]

MAX_FIELD_ERRORS = 20
"""The most errors that one answer lists."""
MAX_MESSAGES = 4_096
MAX_PARTS = 16_384
"""The most parts in all messages together, because parsing and estimating also cost per part."""
MAX_IGNORED = 10
_SHOWN_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


def ignored_names(names: Collection[str]) -> tuple[str, ...]:
    """Return the names to list in the header: sorted, only those of plain characters, at most ten.

    >>> ignored_names({"stop", "a b", "best_of"})
    ('best_of', 'stop')
    """
    return tuple(sorted(name for name in names if _SHOWN_NAME.fullmatch(name)))[:MAX_IGNORED]


class Fields:
    """The fields of one body."""

    def __init__(self, value: Mapping[str, object]) -> None:
        self.value = value
        self.faults: list[FieldError] = []
        self._unread: set[str] = set()

    def refusal(self) -> Refusal:
        """Return the refusal that lists the errors."""
        first, more = self.faults[0], len(self.faults) - 1
        rest = f" (and {more} more)" if more < MAX_FIELD_ERRORS else " (and many more)"
        rest = rest if more else ""
        return Refusal(
            ErrorCode.VALIDATION_ERROR,
            f"{first.path} {first.message}{rest}.",
            fields=tuple(self.faults[:MAX_FIELD_ERRORS]),
        )

    def fault(self, path: str, message: str) -> None:
        """Note an error."""
        self.faults.append(FieldError(path, message))

    def unread(self, value: Mapping[str, object], read: Collection[str]) -> None:
        """Note the members of an object within the body that nobody reads."""
        if value.keys() - read:
            self._unread.update(name for name, one in value.items() if name not in read and one is not None)

    def ignored(self, read: Collection[str]) -> tuple[str, ...]:
        """Return the names of members that are not read: those of the body itself, and those noted within it."""
        return ignored_names((self.value.keys() - read) | self._unread)

    def string(self, name: str) -> str | None:
        """Return a string."""
        value = self.value.get(name)
        if value is None or isinstance(value, str):
            return value
        self.fault(name, "must be a string")
        return None

    def boolean(self, name: str) -> bool:
        """Return a boolean; absent is False."""
        value = self.value.get(name)
        if value is not None and not isinstance(value, bool):
            self.fault(name, "must be true or false")
        return value is True

    def number(self, name: str, least: float, most: float) -> float | None:
        """Return a finite number within bounds."""
        value = self.value.get(name)
        if value is None:
            return None
        if type(value) is int or type(value) is float:
            number = value
            if least <= number <= most and math.isfinite(number):
                return float(number)
        self.fault(name, f"must be a number from {least:g} to {most:g}")
        return None

    def integer(self, name: str, least: int, most: int | None = None) -> int | None:
        """Return an integer within bounds."""
        value = self.value.get(name)
        if value is None:
            return None
        if type(value) is int and value >= least and (most is None or value <= most):
            return value
        self.fault(
            name,
            f"must be an integer of {least} or more" if most is None else f"must be an integer from {least} to {most}",
        )
        return None
