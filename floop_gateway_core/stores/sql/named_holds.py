"""Rows of holds that do not belong to requests, but to other things that a host meters on the same accounts.

Each function runs inside a transaction that its caller opened. `policy.ledger` decides; every movement leaves an entry.
"""

from floop_gateway_core.policy import ledger
from floop_gateway_core.policy.ledger import Account, Hold, Outcome
from floop_gateway_core.stores.sql import books
from floop_gateway_core.stores.sql.connection import Connection, upsert

_UPSERT = upsert("named_holds", "id, owner, state, amount, captured, overrun, written_off, expires_at", "id")
MAX_EXPIRED_AT_ONCE = 1000


def apply(
    connection: Connection, id: str, owner: str | None, command: ledger.Command, *, now: float, expires_at: float
) -> Outcome:
    """Apply a command to the hold of an id and its account. A hold keeps its owner; `owner` is for a new one."""
    if (account := payer_of(id, connection) or owner) is not None:
        expire(connection, account, now)
    row = connection.execute(
        "SELECT owner, expires_at, amount, state, captured, overrun, written_off FROM named_holds WHERE id = ?", (id,)
    ).fetchone()
    if row is None and owner is None:
        return ledger.Unknown()
    hold = None if row is None else Hold(*row[2:])
    if row is not None and isinstance(command, ledger.Place) and (owner, command.amount) != (row[0], row[2]):
        raise ValueError(f"hold {id!r} already exists for another account or amount")
    payer, until = (owner or "", expires_at) if row is None else row[:2]
    before = books.account(connection, payer) or Account()
    after, resolved, outcome = ledger.apply(before, hold, command)
    if resolved is not None and resolved != hold:
        books.save_account(connection, payer, after)
        connection.execute(
            _UPSERT,
            (
                id, payer, resolved.state, resolved.amount, resolved.captured, resolved.overrun, resolved.written_off,
                until,
            ),
        )  # fmt: skip
        books.insert_capture_entries(connection, payer, resolved, id, now, after)
    return outcome


def payer_of(id: str, connection: Connection) -> str | None:
    """Return the owner of the account that a hold is on, or None."""
    row = connection.execute("SELECT owner FROM named_holds WHERE id = ?", (id,)).fetchone()
    return None if row is None else str(row[0])


def payers_of_expired(now: float, connection: Connection) -> list[str]:
    """Return the owners of accounts with expired holds."""
    query = "SELECT DISTINCT owner FROM named_holds WHERE state = 'open' AND expires_at <= ? ORDER BY owner LIMIT ?"
    return [str(row[0]) for row in connection.execute(query, (now, MAX_EXPIRED_AT_ONCE)).fetchall()]


def expire(connection: Connection, owner: str, now: float) -> int:
    """Void the holds on an account that were not resolved in time, and return how many there were."""
    over = connection.execute(
        "SELECT id, amount FROM named_holds WHERE state = 'open' AND expires_at <= ? AND owner = ? LIMIT ?",
        (now, owner, MAX_EXPIRED_AT_ONCE),
    ).fetchall()
    for id, amount in over:
        before = books.account(connection, owner) or Account()
        after, _, _ = ledger.apply(before, Hold(amount), ledger.Expire())
        books.save_account(connection, owner, after)
        connection.execute("UPDATE named_holds SET state = 'expired' WHERE id = ?", (id,))
    return len(over)
