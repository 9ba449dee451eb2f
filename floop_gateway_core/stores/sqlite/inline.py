"""Does short jobs immediately, on the thread that asks, as long as nobody else writes to the file.

A short transaction takes about fifty microseconds; passing it to the worker thread and back takes several times that.
This connection never waits: if another connection holds the write lock, the job goes to the worker, which can wait. Nor
does it run checkpoints, which take milliseconds: the worker is asked for one after every `CHECKPOINT_EVERY` jobs. If a
job is slow anyway (for example because the disk is busy), jobs go to the worker for a while.
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["InlineConnection"]

Connection = sqlite3.Connection

CHECKPOINT_EVERY = 128
"""Jobs between two checkpoints. They write about as many pages as trigger SQLite's own automatic checkpoint."""
SLOW_S = 0.005
"""A job that takes longer has kept the event loop from other requests."""
PAUSE_S = 1.0
"""How long jobs go to the worker after a slow one."""


class InlineConnection:
    """`connect` opens the file without any time to wait; `identity` says which file is at the path now."""

    def __init__(self, connect: Callable[[], Connection], identity: Callable[[], object]) -> None:
        self._connect = connect
        self._identity = identity
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._opened: object = None
        self._not_before = 0.0
        self._jobs = 0

    def attempt(self, do: Callable[[Connection], None]) -> bool:
        """Call `do` with the connection; return False if that must be done by somebody who can wait."""
        began = time.monotonic()
        if began < self._not_before or not self._lock.acquire(blocking=False):
            return False
        try:
            do(self._current())
        except sqlite3.Error:
            self._close()
            return False
        finally:
            self._lock.release()
        self._jobs += 1
        if (now := time.monotonic()) - began > SLOW_S:
            self._not_before = now + PAUSE_S
        return True

    @property
    def checkpoint_is_due(self) -> bool:
        """Return whether a checkpoint is due, once for each time that it is."""
        if self._jobs < CHECKPOINT_EVERY:
            return False
        self._jobs = 0
        return True

    def _current(self) -> Connection:
        identity = self._identity()
        if self._connection is not None and identity != self._opened:
            self._close()
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute("PRAGMA wal_autocheckpoint=0")
            self._opened = self._identity()
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # closing a damaged file may fail
                connection.close()

    def close(self) -> None:
        """Close the connection; the next job opens another."""
        with self._lock:
            self._close()

    def before_fork(self) -> None:
        """Close the connection, and keep the lock until the fork is over."""
        self._lock.acquire()
        self._close()

    def after_fork_in_parent(self) -> None:
        """Let jobs in again."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew, with a lock of this process."""
        self._lock = threading.Lock()
