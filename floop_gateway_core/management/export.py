"""The usage log as JSON lines and as CSV."""

import csv
import io
from collections.abc import AsyncIterator

import msgspec

from floop_gateway_core.types import RECORD_FIELDS, UsageRecord

__all__ = ["csv_row", "csv_rows", "json_lines"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet treats a cell that begins with one of these as a formula."""


async def json_lines(records: AsyncIterator[UsageRecord]) -> AsyncIterator[bytes]:
    """Yield a JSON object and a line end for each record."""
    async for record in records:
        yield msgspec.json.encode(record.as_json()) + b"\n"


async def csv_rows(records: AsyncIterator[UsageRecord]) -> AsyncIterator[bytes]:
    """Yield a row with the names, then one for each record."""
    yield csv_row(RECORD_FIELDS)
    async for record in records:
        yield csv_row(tuple(_cell(value) for value in record.as_json().values()))


def csv_row(cells: tuple[str, ...]) -> bytes:
    """Return one row, escaped so that a spreadsheet reads no cell as a formula."""
    out = io.StringIO()
    csv.writer(out).writerow(f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells)
    return out.getvalue().encode("utf-8", "replace")


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | dict():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)
