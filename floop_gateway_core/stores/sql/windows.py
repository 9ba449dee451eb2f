"""Rows of moving windows. Each function runs inside a transaction that its caller opened.

A project's window is named after its id. A host's own windows are named `limit <microseconds> <key>` (no id contains a
space) and are swept, because their keys (such as IP addresses) come and go.
"""

from collections.abc import Sequence

from floop_gateway_core.policy.rate_window import WINDOW_S, RateDecision, decide, leaving_index, microseconds
from floop_gateway_core.stores.base import WindowLimit
from floop_gateway_core.stores.sql.connection import Connection, upsert
from floop_gateway_core.types import ProjectId

# The oldest instant that counts, and how many are in the past or come from a clock that has since been set back. Each
# is found at one end of an index, and only instants that must be deleted are counted.
_LOOK = (
    "SELECT (SELECT count FROM windows WHERE key = ?),"
    " (SELECT at_us FROM instants WHERE key = ? AND at_us > ? ORDER BY at_us LIMIT 1),"
    " (SELECT count(*) FROM instants WHERE key = ? AND at_us <= ?),"
    " (SELECT count(*) FROM instants WHERE key = ? AND at_us > ?)"
)
_UPSERT = upsert("windows", "key, count", "key")


def acquire(connection: Connection, project: ProjectId, limit: int, now: float) -> RateDecision:
    """Spend one request of a project's minute, or refuse."""
    return _acquire(connection, project, limit, microseconds(WINDOW_S), microseconds(now), spends=True)


def acquire_windows(connection: Connection, windows: Sequence[WindowLimit], now: float) -> list[RateDecision]:
    """Spend one request of all of a host's own windows, or of none."""
    decisions = [_own(connection, window, now, spends=False) for window in windows]
    if all(decision.allowed for decision in decisions):
        decisions = [_own(connection, window, now, spends=True) for window in windows]
    return decisions


def _own(connection: Connection, window: WindowLimit, now: float, *, spends: bool) -> RateDecision:
    return _acquire(
        connection, _name(window), window.limit, microseconds(window.window_s), microseconds(now), spends=spends,
        cost=window.cost,
    )  # fmt: skip


def sweep(connection: Connection, window_s: float, now: float) -> None:
    """Delete the host's keys that have no current instants."""
    window_us, now_us = microseconds(window_s), microseconds(now)
    names = f"limit {window_us} ", f"limit {window_us}!"  # "!" is the character after the space
    connection.execute(
        "DELETE FROM windows WHERE key > ? AND key < ? AND NOT EXISTS "
        "(SELECT 1 FROM instants WHERE instants.key = windows.key AND at_us > ?)",
        (*names, now_us - window_us),
    )
    connection.execute(
        "DELETE FROM instants WHERE key > ? AND key < ? AND NOT EXISTS "
        "(SELECT 1 FROM windows WHERE windows.key = instants.key)",
        names,
    )


def _name(window: WindowLimit) -> str:
    return f"limit {microseconds(window.window_s)} {window.key}"


def _acquire(
    connection: Connection, key: str, limit: int, window_us: int, now_us: int, *, spends: bool, cost: int = 1
) -> RateDecision:
    """The moving window as rows; the count is kept beside them, so a call costs the same under any limit."""
    row = connection.execute(_LOOK, (key, key, now_us - window_us, key, now_us - window_us, key, now_us + window_us))
    kept, oldest_us, past, future = row.fetchone()
    if past:
        connection.execute("DELETE FROM instants WHERE key = ? AND at_us <= ?", (key, now_us - window_us))
    if future:
        connection.execute("DELETE FROM instants WHERE key = ? AND at_us > ?", (key, now_us + window_us))
    count = (kept or 0) - past - future
    leaving = leaving_index(limit=limit, count=count, cost=cost)
    decision = decide(
        limit=limit,
        count=count,
        oldest_us=oldest_us if count else None,
        leaving_us=_instant(connection, key, leaving) if 0 <= leaving < count else None,
        now_us=now_us,
        window_us=window_us,
        spends=spends,
        cost=cost,
    )
    spent = cost if decision.allowed and spends else 0
    for _ in range(spent):
        connection.execute("INSERT INTO instants VALUES (?, ?)", (key, now_us))
    if count + spent != kept:
        connection.execute(_UPSERT, (key, count + spent))
    return decision


def _instant(connection: Connection, key: str, index: int) -> int:
    (at_us,) = connection.execute(
        "SELECT at_us FROM instants WHERE key = ? ORDER BY at_us LIMIT 1 OFFSET ?", (key, index)
    ).fetchone()
    return int(at_us)
