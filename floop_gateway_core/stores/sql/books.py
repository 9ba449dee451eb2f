"""Rows of accounts and entries. Each function runs inside a transaction that its caller opened.

Every movement of money is one entry, which also keeps the balance after it.
"""

from collections.abc import Sequence

from floop_gateway_core.policy.ledger import MAX_MICROCREDITS, Account, Hold
from floop_gateway_core.stores.base import Posted, Posting, PostingRefused
from floop_gateway_core.stores.sql import audit
from floop_gateway_core.stores.sql.connection import Connection, upsert
from floop_gateway_core.types import Entry, EntryKind, Microcredits, ProjectId, RequestId
from floop_gateway_core.types.amounts import ZERO_CREDITS

NEVER, FAR = float("-inf"), float("inf")
_UPSERT_ACCOUNT = upsert("accounts", "owner, posted, held", "owner")
_COLUMNS = "number, at, owner, kind, amount, posted_after, id, request_id, project_id, by, note"
_SELECT = f"SELECT {_COLUMNS}, held_after FROM entries "
_SELECT_CARRIED = f"SELECT {_COLUMNS}, held_after FROM carried "
CLOSED = "the project was deleted"
"""The note of the entry that closes an account."""
_OLDEST_ENTRIES = 1000
"""How many entries are scanned to find accounts with old ones."""


def account(connection: Connection, owner: str) -> Account | None:
    """Return an owner's account, or None."""
    row = connection.execute("SELECT posted, held FROM accounts WHERE owner = ?", (owner,)).fetchone()
    return None if row is None else Account(Microcredits(row[0]), Microcredits(row[1]))


def save_account(connection: Connection, owner: str, after: Account) -> None:
    """Insert or update an account."""
    connection.execute(_UPSERT_ACCOUNT, (owner, after.posted, after.held))


def enter(
    connection: Connection,
    owner: str,
    kind: EntryKind,
    amount: int,
    after: Account,
    now: float,
    *,
    id: str | None = None,
    request_id: str | None = None,
    project_id: str | None = None,
    by: str | None = None,
    note: str | None = None,
) -> None:
    """Insert an entry."""
    connection.execute(
        "INSERT INTO entries (at, owner, kind, amount, posted_after, held_after, id, request_id, project_id, by, note)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (now, owner, kind, amount, after.posted, after.held, id, request_id, project_id, by, note),
    )


def insert_capture_entries(
    connection: Connection, owner: str, hold: Hold, id: str, now: float, after: Account, project_id: str | None = None
) -> None:
    """Insert the entries of a resolved hold; the account after the first of two is worked out backwards."""
    overrun_later = Account(Microcredits(after.posted + hold.overrun), after.held)
    moves: tuple[tuple[EntryKind, int, Account], ...] = (
        ("capture", -hold.captured, overrun_later),
        ("overrun", -hold.overrun, after),
        ("written_off", hold.written_off, after),
    )
    for kind, amount, balance in moves:
        if amount:
            enter(connection, owner, kind, amount, balance, now, request_id=id, project_id=project_id)


def post(connection: Connection, posting: Posting) -> Posted | PostingRefused:
    """See `BookStore.post`."""
    if posting.id is not None:
        for select in (_SELECT, _SELECT_CARRIED):
            row = connection.execute(select + "WHERE owner = ? AND id = ?", (posting.owner, posting.id)).fetchone()
            if row is not None:
                return _again(posting, row)
    before = account(connection, posting.owner) or Account()
    left = _left(connection, posting, before)
    posting = posting.of_rest(left)
    if posting.amount > left:
        return PostingRefused(left)
    signed = -posting.amount if posting.kind == "debit" else posting.amount
    after = Account(Microcredits(before.posted + signed), before.held)
    save_account(connection, posting.owner, after)
    enter(
        connection, posting.owner, posting.kind, signed, after, posting.now, id=posting.id,
        request_id=posting.request_id, project_id=posting.project_id, by=posting.by, note=posting.note,
    )  # fmt: skip
    if posting.line is not None:
        audit.add(connection, posting.line)
    newest = connection.execute(_SELECT + "WHERE owner = ? ORDER BY number DESC LIMIT 1", (posting.owner,)).fetchone()
    return Posted(_entry(newest[:-1]), after)


def payer(request_id: RequestId, connection: Connection) -> str | None:
    """See `BookStore.payer`. Of a request whose charge is carried, a refund that is kept knows who paid."""
    query = (
        "SELECT owner FROM entries WHERE request_id = ? AND kind IN ('capture', 'overrun', 'refund')"
        " UNION ALL SELECT owner FROM carried WHERE request_id = ? LIMIT 1"
    )
    row = connection.execute(query, (request_id, request_id)).fetchone()
    return None if row is None else str(row[0])


def _left(connection: Connection, posting: Posting, before: Account) -> Microcredits:
    """Return the most that may be posted."""
    match posting.kind:
        case "debit":
            return before.available
        case "grant":
            return Microcredits(MAX_MICROCREDITS - before.posted)
        case "refund":
            charged, refunded = connection.execute(
                "SELECT coalesce(sum(-amount) FILTER (WHERE kind IN ('capture', 'overrun')), 0),"
                " coalesce(sum(amount) FILTER (WHERE kind = 'refund'), 0) FROM entries WHERE request_id = ?",
                (posting.request_id,),
            ).fetchone()
            left = max(0, int(charged) - int(refunded))  # the charge may be carried before its refunds
            return Microcredits(min(left, MAX_MICROCREDITS - before.posted))


def _again(posting: Posting, row: Sequence[object]) -> Posted | PostingRefused:
    """Return the original answer for a repeated id, or refuse a different posting with the same id."""
    entry = _entry(row[:-1])
    if not posting.is_repeated_by(entry):
        return PostingRefused()
    held = row[-1]
    account = Account(entry.posted_after or ZERO_CREDITS, Microcredits(held if isinstance(held, int) else 0))
    return Posted(entry, account, repeated=True)


def _entry(row: Sequence[object]) -> Entry:
    number, at, owner, kind, amount, posted, id, request_id, project_id, by, note = row
    posted_after = None if posted is None else Microcredits(posted)  # type: ignore[arg-type]
    return Entry(
        number, at, owner, kind, Microcredits(amount), posted_after, id,  # type: ignore[arg-type]
        None if request_id is None else RequestId(str(request_id)),
        None if project_id is None else ProjectId(str(project_id)),
        by, note,  # type: ignore[arg-type]
    )  # fmt: skip


def entries(
    owner: str, after: int, since: float | None, until: float | None, limit: int, connection: Connection
) -> list[Entry]:
    """See `BookStore.entries`."""
    since, until = NEVER if since is None else since, FAR if until is None else until
    rows = connection.execute(
        _SELECT + "WHERE owner = ? AND number > ? AND at >= ? AND at < ? ORDER BY number LIMIT ?",
        (owner, after, since, until, limit),
    )
    return [_entry(row[:-1]) for row in rows.fetchall()]


def owners_with_entries_before(before: float, connection: Connection) -> list[str]:
    """Return some owners of old entries; entries are numbered in the order of time, so no index is needed."""
    rows = connection.execute(
        "SELECT DISTINCT owner FROM (SELECT owner, at FROM entries WHERE kind <> 'carried' ORDER BY number LIMIT ?)"
        " AS oldest WHERE at < ?",
        (_OLDEST_ENTRIES, before),
    )
    return [str(owner) for (owner,) in rows.fetchall()]


def carry(connection: Connection, owner: str, before: float, limit: int) -> int:
    """Replace an account's oldest entries with one for their sum. Entries with an id are kept for repeats."""
    wanted = _SELECT + "WHERE owner = ? AND at < ? AND kind {} 'carried' ORDER BY number LIMIT ?"
    old = connection.execute(wanted.format("<>"), (owner, before, limit)).fetchall()
    if not old:
        return 0
    rows = connection.execute(wanted.format("="), (owner, before, 1)).fetchall() + old
    entries = [_entry(row[:-1]) for row in rows]
    first, last = entries[0], entries[-1]
    old_ones = "FROM entries WHERE owner = ? AND at < ? AND kind <> 'carried' AND number <= ?"
    columns = f"{_COLUMNS}, held_after"
    connection.execute(
        f"INSERT INTO carried ({columns}) SELECT {columns} {old_ones} AND id IS NOT NULL", (owner, before, last.number)
    )
    connection.execute(f"DELETE {old_ones} AND number <> ?", (owner, before, last.number, first.number))
    connection.execute(
        "UPDATE entries SET kind = 'carried', at = ?, amount = ?, posted_after = ?, held_after = ?, id = NULL,"
        " request_id = NULL, project_id = NULL, by = NULL, note = NULL WHERE number = ?",
        (
            max(entry.at for entry in entries), sum(entry.moved for entry in entries), last.posted_after, rows[-1][-1],
            first.number,
        ),
    )  # fmt: skip
    return len(old)


def accounts(after: str, limit: int, connection: Connection) -> list[tuple[str, Account]]:
    """See `BookStore.accounts`."""
    rows = connection.execute(
        "SELECT owner, posted, held FROM accounts WHERE owner > ? ORDER BY owner LIMIT ?", (after, limit)
    ).fetchall()
    return [(owner, Account(Microcredits(posted), Microcredits(held))) for owner, posted, held in rows]


def close_account(connection: Connection, owner: str, now: float, project_id: str) -> None:
    """Take what is left out of the account of a deleted project; nothing while it has holds."""
    before = account(connection, owner)
    if before is not None and before.posted and not before.held:
        save_account(connection, owner, Account())
        by = audit.deleted_by(connection, project_id)
        enter(connection, owner, "closed", -before.posted, Account(), now, project_id=project_id, by=by, note=CLOSED)
