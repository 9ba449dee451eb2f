"""Queues the processes that wait to write to one file.

SQLite's waiters retry at growing intervals, and whoever retries at the right moment wins: usually the process that has
just written. Under load, another process may wait for many seconds. So a process that wants to write first waits at a
turnstile, a separate file lock that admits one process at a time. That process polls for the write lock at short
intervals, and releases the turnstile once it has it. A process that has written goes to the end of the queue.
"""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: rely on SQLite's own busy handler
    fcntl = None  # type: ignore[assignment]

__all__ = ["Turnstile"]

POLL_S = 0.0005


class Turnstile:
    """`path` is the database's; the lock is a file beside it. For one thread at a time."""

    def __init__(self, path: Path, patience_s: float) -> None:
        self._path = path.with_name(path.name + "-turn")
        self._patience_s = patience_s
        self._file: int | None = None

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction that writes; raise SQLite's error if that is not possible in time."""
        deadline = time.monotonic() + self._patience_s
        try:
            self._enter(deadline)
            while not _began(connection):
                if time.monotonic() >= deadline:
                    connection.execute("BEGIN IMMEDIATE")  # raises
                    return
                time.sleep(POLL_S)
        finally:
            self._leave()

    def _enter(self, deadline: float) -> None:
        if fcntl is None:
            return
        if self._file is None:
            with suppress(OSError):  # the lock file cannot be created: go on without a turn
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while self._file is not None and time.monotonic() < deadline:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                time.sleep(POLL_S)

    def _leave(self) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; the next turn opens it again."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _began(connection: sqlite3.Connection) -> bool:
    """Begin a transaction that writes, without waiting; return False if another connection writes."""
    (busy_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {busy_ms}")
    return True
