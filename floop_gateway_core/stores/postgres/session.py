"""One connection to PostgreSQL, for one thread at a time: transactions with their locks, within a deadline.

All locks are advisory locks, taken at the beginning. They are acquired in a fixed order, or only if they are free, so
transactions cannot deadlock. Locks and settings end with their transaction, because a pooler such as `pgbouncer` in
transaction mode may run each transaction on another server connection.

Rows are read one statement at a time, because each depends on what was read before. Writes need no response, so they
are sent together with the commit.
"""

import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

from floop_gateway_core.stores.postgres.calls import ServerCall, storable
from floop_gateway_core.stores.sql.connection import Connection

__all__ = ["GRACE_S", "Overdue", "Session", "Watched", "connect"]

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], None]
Guarded: TypeAlias = tuple[Sequence[str], Sequence[Work]]
"""Functions, and the locks that they need."""
GRACE_S = 0.25
"""The server's own time-outs end a statement first; an unresponsive server is given up on this much later."""


class Overdue(psycopg.OperationalError):
    """The server has not answered by the deadline. The connection cannot be used any more."""


class Watched(psycopg.Connection[tuple[Any, ...]]):
    """A connection that stops waiting at a deadline; the driver itself has one only for connecting."""

    deadline = float("inf")

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:  # its parameters differ between releases
        """Wait as the driver does, but at most up to the deadline."""
        return super().wait(self._until_deadline(gen), *args, **kwargs)

    def _until_deadline(self, gen: PQGen[T]) -> PQGen[T]:
        ready = None
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= self.deadline:
                    self.pgconn.finish()
                    raise Overdue("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]


class Session:
    """`timeout_s` is how long a call may take. `pooled` says that each transaction may be on another server connection."""

    def __init__(self, conninfo: str, timeout_s: float, *, pooled: bool = False) -> None:
        self._timeout_s = timeout_s
        self._raw = connect(conninfo, timeout_s, pooled=pooled)
        self.began = False
        """Whether the last transaction got as far as to execute anything."""
        self._pooled = pooled
        self._begin = begin_script(timeout_s, self._raw.info.server_version) if pooled else "BEGIN;"
        if not pooled:
            self._raw.execute(settings_script(timeout_s, self._raw.info.server_version).encode())

    @property
    def lost(self) -> bool:
        """Return whether the connection has ended."""
        return bool(self._raw.closed or self._raw.broken)

    def transaction(self, groups: Sequence[Guarded], *, durable: bool) -> list[bool]:
        """Run functions in one transaction that holds their locks, or undo all of them; return which groups were run.

        A single group waits for its locks. If there are several, only those with free locks are run, so that none waits
        for another's locks. Without `durable`, the transaction may be lost if the server crashes. Raises whatever a
        function raises, and `psycopg.Error`. After `Overdue` or a lost connection, it is unknown whether the server
        committed.
        """
        raw, self.began = self._raw, False
        raw.deadline = time.monotonic() + self._timeout_s + GRACE_S
        alone = len(groups) == 1
        begin = self._begin + ("" if durable else " SET LOCAL synchronous_commit = off;")
        try:
            raw.execute((begin + (lock_script(groups[0][0]) if alone else "")).encode())
            self.began = True
            free = [True] if alone else self._free(groups)
            with raw.pipeline():
                connection = _Statements(raw)
                for (_, works), is_free in zip(groups, free, strict=True):
                    for work in works if is_free else ():
                        work(connection)
                raw.execute(b"COMMIT")
        except BaseException:
            if not self.lost:
                raw.execute(b"ROLLBACK")
            raise
        finally:
            raw.deadline = float("inf")
        return free

    def call(self, calls: Sequence[tuple[ServerCall[Any], Sequence[str]]], *, durable: bool) -> list[tuple[Any, ...]]:
        """Call functions with their locks in one transaction and one round trip, and return the row of each.

        A single one waits for its locks. Raises as `transaction` does.
        """
        raw, self.began = self._raw, False
        raw.deadline = time.monotonic() + self._timeout_s + GRACE_S
        waits = len({locks for _, locks in calls}) == 1
        try:
            self._notice_the_end()
            self.began = True
            if len(calls) == 1 and not self._pooled:
                return [self._call(*calls[0], waits, durable).fetchone() or ()]
            if self._pooled:
                raw.execute(self._begin.encode())
            with raw.pipeline():
                cursors = [self._call(call, locks, waits, durable) for call, locks in calls]
                if self._pooled:
                    raw.execute(b"COMMIT")
            return [cursor.fetchone() or () for cursor in cursors]
        except BaseException as error:
            if waits and isinstance(error, psycopg.errors.LockNotAvailable):
                self.began = False
            if self._pooled and not self.lost:
                raw.execute(b"ROLLBACK")
            raise
        finally:
            raw.deadline = float("inf")

    def _call(
        self, call: ServerCall[Any], locks: Sequence[str], waits: bool, durable: bool
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        return _Statements(self._raw).execute(call.sql, (_numbers(locks), waits, durable, *call.arguments))

    def _notice_the_end(self) -> None:
        """Raise if the server has closed the connection while it was idle, before anything is sent."""
        for _ in range(2):  # what it said last, and the end
            self._raw.pgconn.consume_input()

    def _free(self, groups: Sequence[Guarded]) -> list[bool]:
        """Take the locks that are free, and say which groups have all of theirs."""
        tries = [" AND ".join(f"pg_try_advisory_xact_lock({one})" for one in _numbers(locks)) for locks, _ in groups]
        return list(self._raw.execute(f"SELECT {', '.join(tries)}".encode()).fetchone() or ())

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()


class _Statements:
    """What the row functions execute on."""

    def __init__(self, raw: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._raw = raw

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> psycopg.Cursor[tuple[Any, ...]]:
        return self._raw.execute(_translated(sql), [storable(value) for value in parameters])


@cache
def _translated(sql: str) -> bytes:
    """Return a statement of SQLite's as PostgreSQL and psycopg have it."""
    sql = re.sub(r" INDEXED BY \w+", "", sql)
    sql = re.sub(r"sum_of_lanes\((\w+)\)", r"string_agg(encode(\1, 'hex'), ',')", sql)
    return sql.replace("%", "%%").replace("?", "%s").encode()


def _settings(timeout_s: float, server_version: int) -> dict[str, object]:
    """Return what every transaction needs. The server gives up by itself, also on a client that has been paused."""
    milliseconds = max(1, int(timeout_s * 1000))
    found: dict[str, object] = {
        "search_path": "floop_gateway",
        "statement_timeout": 2 * milliseconds,
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": 2 * milliseconds,
    }
    return found | ({"transaction_timeout": 3 * milliseconds} if server_version >= 170_000 else {})


def settings_script(timeout_s: float, server_version: int) -> str:
    """Return the statements that prepare a connection of our own."""
    settings = _settings(timeout_s, server_version) | {"default_transaction_isolation": "'read committed'"}
    return "".join(f" SET {name} = {value};" for name, value in settings.items())


def begin_script(timeout_s: float, server_version: int = 0) -> str:
    """Return the statements that begin a transaction, with settings that end with it."""
    settings = _settings(timeout_s, server_version)
    return "BEGIN ISOLATION LEVEL READ COMMITTED;" + "".join(
        f" SET LOCAL {name} = {v};" for name, v in settings.items()
    )


def lock_script(names: Sequence[str]) -> str:
    """Return a statement that takes locks in the order of their numbers."""
    return "".join(f" SELECT pg_advisory_xact_lock({number});" for number in _numbers(names))


def _numbers(names: Sequence[str]) -> list[int]:
    return sorted({int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True) for name in names})


def connect(conninfo: str, timeout_s: float, *, pooled: bool = False) -> Watched:
    """Connect, or raise `psycopg.OperationalError` in time; poolers mix up prepared statements."""
    threshold = None if pooled else 3
    connect_s = max(2, round(timeout_s))  # the driver takes no less
    raw = Watched.connect(
        conninfo, autocommit=True, prepare_threshold=threshold, connect_timeout=connect_s, client_encoding="UTF8"
    )
    # The driver's types for integers depend on their size; each mix of them would be a statement to prepare.
    raw.adapters.register_dumper(int, Int8Dumper)
    raw.adapters.register_dumper(int, Int8BinaryDumper)
    return raw
