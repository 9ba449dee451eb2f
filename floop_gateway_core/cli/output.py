"""Printing for people (tables) and for programs (JSON, one document or one object a line)."""

import argparse
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from floop_gateway_core.money import format_credits
from floop_gateway_core.types import Microcredits

__all__ = ["Exact", "credits", "print_document", "print_fields", "print_json", "print_table", "printable"]


class Exact(str):
    """A JSON number as text, because a float would round it."""

    __slots__ = ()


def credits(amount: Microcredits) -> Exact:
    """Return an amount as an exact JSON number of credits."""
    return Exact(format_credits(amount))


def print_json(document: Mapping[str, object]) -> None:
    """Print one object on one line."""
    print(_json(document))


def _json(value: object) -> str:
    """Return JSON in which exact numbers are numbers, at any depth."""
    if isinstance(value, Exact):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)}: {_json(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def print_fields(document: Mapping[str, object]) -> None:
    """Print one thing, a field a line."""
    width = max(map(len, document))
    for name, value in document.items():
        print(f"{name.replace('_', ' '):<{width}}  {'-' if value is None else printable(str(value))}")


def printable(text: str) -> str:
    """Return the text with control characters replaced, so that a client's text cannot control the terminal.

    >>> printable("a\\x1b[2Jb")
    'a\ufffd[2Jb'
    """
    return "".join("\ufffd" if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one for one in text)


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table, one row a line; numbers are aligned to the right."""
    cells = [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if not cells:
        print(empty)
        return
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, (name, *column))) for name, column in zip(head, columns, strict=True)]
    numeric = [all(cell == "-" or cell.replace(".", "", 1).isdecimal() for cell in column) for column in columns]
    for line in (head, *cells):
        places = zip(line, widths, numeric, strict=True)
        print("  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in places).rstrip())


def print_document(args: argparse.Namespace, document: Mapping[str, object]) -> None:
    """Print a document as `--json` wants it."""
    (print_json if args.json else print_fields)(document)
