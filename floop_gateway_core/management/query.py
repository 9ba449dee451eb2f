"""The query string: filters, periods and pages. An invalid parameter raises an `AdminError` that names it."""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from floop_gateway_core.admin.base import check_period
from floop_gateway_core.errors import AdminError
from floop_gateway_core.types import ProjectId, UsageFilter
from floop_gateway_core.wire.surrogates import mend

__all__ = ["Query", "cursor_of"]

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
MAX_EPOCH_S = 253_402_300_799.0  # the end of the year 9999


def cursor_of(*place: object) -> str:
    """Return a place in a list as an opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _may_be(one: object, kind: type) -> bool:
    """Return whether a part of a cursor is of a kind, and fits into every database."""
    if isinstance(one, str):
        return kind is str and "\0" not in one and mend(one) == one
    if type(one) is int:
        return kind in (int, float) and abs(one) < 2**53
    return type(one) is kind


class Query:
    """The parameters of a request. An unknown one is a mistake, so that a misspelt filter does not show everything."""

    def __init__(self, query: str, known: frozenset[str]) -> None:
        self._values: dict[str, str] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=50, errors="strict")
        except ValueError:
            raise AdminError("the query is not valid") from None
        for name, value in pairs:
            if name not in known:
                raise AdminError(f"unknown parameter {name[:50]!r}; allowed: {', '.join(sorted(known)) or 'none'}")
            if name in self._values:
                raise AdminError(f"{name} must be given once")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """Return a parameter, or None if it is absent."""
        return self._values.get(name)

    def flag(self, name: str) -> bool:
        """Return whether a parameter is `true`."""
        value = self._values.get(name, "false")
        if value not in ("true", "false"):
            raise AdminError(f"{name} must be true or false, got {value[:50]!r}")
        return value == "true"

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of some words; the first is the default."""
        value = self._values.get(name, choices[0])
        if value not in choices:
            raise AdminError(f"{name} must be one of {', '.join(choices)}, got {value[:50]!r}")
        return value

    def number(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number, or None if it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20 and least <= int(value) <= most):
            raise AdminError(f"{name} must be a whole number from {least} to {most}, got {value[:50]!r}")
        return int(value)

    def instant(self, name: str) -> float | None:
        """Return RFC 3339, a date, or seconds since the epoch, as seconds; None if it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            at = float(value) if value.replace(".", "", 1).isdigit() else _timestamp(value)
        except (ValueError, OverflowError):
            at = math.nan
        if not 0 <= at <= MAX_EPOCH_S:
            raise AdminError(f"{name} must be an RFC 3339 time, a date, or seconds since the epoch, got {value[:50]!r}")
        return at

    @property
    def period(self) -> tuple[float | None, float | None]:
        """Return `since` and `until`."""
        since, until = self.instant("since"), self.instant("until")
        check_period(since, until)
        return since, until

    @property
    def limit(self) -> int:
        """Return the page size."""
        return self.number("limit", 1, MAX_LIMIT) or DEFAULT_LIMIT

    def cursor(self, *kinds: type) -> list[object] | None:
        """Return the place that a cursor stands for, with values of these types; None without one."""
        value = self._values.get("cursor")
        if value is None:
            return None
        try:
            place = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
        except (ValueError, binascii.Error, RecursionError):
            place = None
        if not isinstance(place, list) or len(place) != len(kinds):
            raise AdminError("cursor must be the `next` of an earlier page")
        if not all(_may_be(one, kind) for one, kind in zip(place, kinds, strict=True)):
            raise AdminError("cursor must be the `next` of an earlier page")
        return place

    def usage_filter(self, projects: frozenset[ProjectId] | None) -> UsageFilter:
        """Return the filter of the log's records among `projects`."""
        tag = self._values.get("tag")
        name, colon, value = (tag or "").partition(":")
        return UsageFilter(
            projects,
            *self.period,
            self.number("status", 100, 599),
            self.text("code"),
            self.text("alias"),
            self.text("deployment"),
            self.text("dialect"),
            None if tag is None else (name, value if colon else None),
        )


FILTERS: Mapping[str, str] = {
    "since": "records that started at this time or later",
    "until": "records that started before this time",
    "status": "the HTTP status that was sent",
    "code": "the error code",
    "alias": "the model name that was requested",
    "deployment": "what served",
    "dialect": "`native`, `openai`, `anthropic` or `in_process`",
    "tag": "`name` or `name:value`",
}


def _timestamp(value: str) -> float:
    at = datetime.fromisoformat(value)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
