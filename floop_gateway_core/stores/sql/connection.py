"""What the row functions need of a database's connection, and statements that every database understands.

Parameters are `?`. An `UPDATE … RETURNING` locks the row in a database that locks rows, and returns it as it is then;
a `SELECT` may return an older one. The aggregate `sum_of_lanes` adds histograms.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

__all__ = ["Connection", "Cursor", "among", "upsert"]


class Cursor(Protocol):
    """The rows of one statement."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""


class Connection(Protocol):
    """`sqlite3.Connection` is one."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Execute one statement."""


def among(column: str, count: int) -> str:
    """Return the condition that a column has one of `count` values; `count` may be 0."""
    return f"{column} IN ({', '.join('?' * count)})" if count else "1 = 0"


def upsert(table: str, columns: str, key: str) -> str:
    """Return a statement that inserts a row, or replaces these columns of the one that has the same key."""
    names = [name.strip() for name in columns.split(",")]
    keys = {name.strip() for name in key.split(",")}
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}"
