"""What is in a store, read past the code that the auditor is to judge: from a memory store's tables, from a file by SQL."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from floop_gateway_core.stores.memory import MemoryStore

__all__ = ["Entry", "Facts", "Hold", "MemoryFacts", "Record", "SQLiteFacts", "Source"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of money, signed."""

    owner: str
    kind: str
    amount: int
    posted_after: int
    id: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Hold:
    """What is set aside for a request, or what became of it. `tokens` and the rest are None where they are forgotten."""

    state: str
    amount: int
    captured: int
    overrun: int
    written_off: int
    owner: str | None = None
    tokens: int | None = None
    day: tuple[str, int] | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the usage log that is finished."""

    project_id: str
    ending: str | None
    status: int | None
    code: str | None
    microcredits: int
    tokens: int
    replay_of: str | None
    started_at: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, by owner, by request, and by project and day."""

    accounts: Mapping[str, tuple[int, int]]
    entries: Sequence[Entry]
    holds: Mapping[str, Hold]
    records: Mapping[str, Record]
    days: Mapping[tuple[str, int], tuple[int, int]]


class Source(Protocol):
    """Reads the facts."""

    def read(self) -> Facts:
        """Return them as they are now."""


class MemoryFacts:
    """Of a memory store."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._records: dict[str, tuple[object, Record]] = {}

    def read(self) -> Facts:
        store = self._store
        holds: dict[str, Hold] = {}
        records: dict[str, Record] = {}
        for id, (hold, record) in store._settled.items():
            holds[id] = Hold(hold.state, hold.amount, hold.captured, hold.overrun, hold.written_off)
            known = self._records.get(id)
            if known is None or known[0] is not record:
                read = Record(
                    record.project_id, record.ending, record.status, record.code and record.code.value,
                    record.microcredits, record.input_tokens + record.output_tokens, record.replay_of,
                    record.started_at, record.repeats,
                )  # fmt: skip
                known = self._records[id] = record, read
            records[id] = known[1]
        for id, one in store._open.items():
            request, held = one.request, one.hold
            holds[id] = Hold(
                held.credits.state, held.credits.amount, 0, 0, 0, request.owner, held.tokens,
                (request.record.project_id, request.day), request.expires_at,
            )  # fmt: skip
        return Facts(
            {owner: (account.posted, account.held) for owner, account in store._accounts.items()},
            [Entry(e.owner, e.kind, e.amount, e.posted_after or 0, e.id, e.request_id) for e in store._books._entries],
            holds,
            records,
            {place: (day.used, day.held) for place, day in store._days.items()},
        )


class SQLiteFacts:
    """Of a SQLite file, over a connection of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self) -> Facts:
        ask = self._connection.execute
        records = ask(
            "SELECT request_id, project_id, ending, status, code, microcredits, input_tokens + output_tokens, replay_of,"
            " started_at, repeats FROM usage WHERE ending IS NOT NULL"
        )
        entries = ask("SELECT owner, kind, amount, posted_after, id, request_id FROM entries ORDER BY number")
        holds = ask(
            "SELECT request_id, state, amount, captured, overrun, written_off, owner, tokens, project_id, day, expires_at"
            " FROM holds JOIN usage USING (request_id)"
        )
        days = ask("SELECT project_id, day, used, held FROM days")
        return Facts(
            {owner: (posted, held) for owner, posted, held in ask("SELECT owner, posted, held FROM accounts")},
            [Entry(*row) for row in entries],
            {id: _hold(*values) for id, *values in holds},
            {row[0]: Record(*row[1:]) for row in records},
            {(project, day): (used, held) for project, day, used, held in days},
        )


def _hold(
    state: str, amount: int, captured: int, overrun: int, written_off: int, owner: str, tokens: int, project: str, day: int,
    expires_at: float,
) -> Hold:  # fmt: skip
    return Hold(state, amount, captured, overrun, written_off, owner, tokens, (project, day), expires_at)
