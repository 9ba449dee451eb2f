"""What a form sent, as the models that the administration takes. An empty field is absent."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl

from floop_gateway_core.errors import AdminError

__all__ = ["amount", "fields", "integer"]


def fields(body: bytes) -> dict[str, str]:
    """Return the fields of a form; raise `AdminError` if it is not one."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=50, errors="strict")
    except (ValueError, UnicodeError):
        raise AdminError("the form is not valid") from None
    return {name: value.strip() for name, value in pairs}


def integer(form: Mapping[str, str], name: str) -> int | None:
    """Return a whole number, or None for an empty field; raise `AdminError`."""
    value = form.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise AdminError(f"{name} must be a whole number, got {value[:50]!r}")
    return int(value)


def amount(form: Mapping[str, str], name: str) -> Decimal | None:
    """Return credits, or None for an empty field; raise `AdminError`."""
    value = form.get(name, "")
    if not value:
        return None
    try:
        return Decimal(value)
    except InvalidOperation:
        raise AdminError(f"{name} must be a number of credits, got {value[:50]!r}") from None
