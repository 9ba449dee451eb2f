"""The store that the processes of a simulation share: in memory, or a file in a temporary folder without its threads."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

from floop_gateway_core.stores.memory import MemoryStore
from floop_gateway_core.stores.sqlite import SQLiteStore
from floop_gateway_core.stores.sqlite.worker import Job, Worker, _do
from tests.simulation.facts import MemoryFacts, Source, SQLiteFacts

__all__ = ["InFile", "InMemory", "Shared"]


class _Direct:
    """Stands for the worker of a SQLite store: does each job at once, in a transaction of its own, without a thread."""

    is_held_up = False

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = connect()

    async def run(self, job: Job[Any]) -> Any:
        if self._connection is None:
            self._connection = self._connect()
        _do(self._connection, [job])
        if job.error is not None:
            raise job.error
        return job.answer

    def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Shared(Protocol):
    """Opens what the processes share, each in its own way."""

    source: Source

    def open(self) -> object:
        """Return a process's store."""

    def close(self) -> None:
        """Close what is open."""


class InMemory:
    def __init__(self) -> None:
        self._store = MemoryStore()
        self.source: Source = MemoryFacts(self._store)

    def open(self) -> object:
        return self._store

    def close(self) -> None: ...


class InFile:
    def __init__(self) -> None:
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        self._file = Path(self._folder.name, "simulation.db")
        self._workers: list[_Direct] = []
        self.open()
        self._connection = sqlite3.connect(self._file, isolation_level=None)
        self.source: Source = SQLiteFacts(self._connection)

    def open(self) -> object:
        store = SQLiteStore(self._file)
        direct = _Direct(lambda: store._connect())
        self._workers.append(direct)
        store._worker = store._reader = cast(Worker, direct)
        return store

    def close(self) -> None:
        self._connection.close()
        for worker in self._workers:
            worker.stop()
        self._folder.cleanup()
