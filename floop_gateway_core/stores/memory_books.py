"""The accounts and entries of a memory store. The caller holds the store's lock."""

from collections import deque
from dataclasses import replace

from floop_gateway_core.policy.ledger import MAX_MICROCREDITS, Account, Hold
from floop_gateway_core.stores.base import Posted, Posting, PostingRefused
from floop_gateway_core.types import Entry, EntryKind, Microcredits, ProjectId, RequestId

__all__ = ["Books"]

CHARGES = ("capture", "overrun")
CLOSED = "the project was deleted"
"""The note of the entry that closes an account."""


class Books:
    """Accounts by owner, and the last `most` entries; the first answer to each id is kept."""

    def __init__(self, most: int) -> None:
        self.accounts: dict[str, Account] = {}
        self._entries: deque[Entry] = deque(maxlen=most)
        self._answers: dict[tuple[str, str], Posted] = {}
        self._charged: dict[RequestId, int] = {}  # what may still be refunded
        self._number = 0

    def enter(
        self,
        owner: str,
        kind: EntryKind,
        amount: int,
        now: float,
        *,
        after: Account | None = None,
        id: str | None = None,
        request_id: RequestId | None = None,
        project_id: ProjectId | None = None,
        by: str | None = None,
        note: str | None = None,
    ) -> Entry:
        """Add an entry, with the account as it is now unless `after` is given, and return it."""
        self._number += 1
        posted = (after or self.accounts.get(owner, Account())).posted
        entry = Entry(
            self._number, now, owner, kind, Microcredits(amount), posted, id, request_id, project_id, by, note
        )
        self._entries.append(entry)
        return entry

    def enter_capture(
        self, owner: str, hold: Hold, now: float, request_id: RequestId | None, project_id: ProjectId | None
    ) -> None:
        """Add the entries of a resolved hold, whose account is already the one after it."""
        after = self.accounts[owner]
        before_overrun = Account(Microcredits(after.posted + hold.overrun), after.held)
        moves: tuple[tuple[EntryKind, int, Account], ...] = (
            ("capture", -hold.captured, before_overrun),
            ("overrun", -hold.overrun, after),
            ("written_off", hold.written_off, after),
        )
        for kind, amount, balance in moves:
            if amount:
                self.enter(owner, kind, amount, now, after=balance, request_id=request_id, project_id=project_id)
        if request_id is not None and hold.charged:
            self._charged[request_id] = hold.charged
            if len(self._charged) > (self._entries.maxlen or 0):
                del self._charged[next(iter(self._charged))]

    def post(self, posting: Posting) -> Posted | PostingRefused:
        """See `BookStore.post`."""
        if posting.id is not None and (first := self._answers.get((posting.owner, posting.id))) is not None:
            return replace(first, repeated=True) if posting.is_repeated_by(first.entry) else PostingRefused()
        before = self.accounts.get(posting.owner, Account())
        left = self._left(posting, before)
        posting = posting.of_rest(left)
        if posting.amount > left:
            return PostingRefused(left)
        signed = -posting.amount if posting.kind == "debit" else posting.amount
        after = self.accounts[posting.owner] = Account(Microcredits(before.posted + signed), before.held)
        entry = self.enter(
            posting.owner, posting.kind, signed, posting.now, id=posting.id, request_id=posting.request_id,
            project_id=posting.project_id, by=posting.by, note=posting.note,
        )  # fmt: skip
        posted = Posted(entry, after)
        if posting.kind == "refund" and posting.request_id is not None:
            self._charged[posting.request_id] -= posting.amount
        if posting.id is not None:
            self._answers[posting.owner, posting.id] = posted
        return posted

    def _left(self, posting: Posting, before: Account) -> Microcredits:
        match posting.kind:
            case "debit":
                return before.available
            case "grant":
                return Microcredits(MAX_MICROCREDITS - before.posted)
            case "refund":
                charged = 0 if posting.request_id is None else self._charged.get(posting.request_id, 0)
                return Microcredits(min(charged, MAX_MICROCREDITS - before.posted))

    def entries(self, owner: str, after: int, since: float | None, until: float | None, limit: int) -> list[Entry]:
        """See `BookStore.entries`."""
        wanted = (
            entry
            for entry in self._entries
            if entry.owner == owner
            and entry.number > after
            and (since is None or entry.at >= since)
            and (until is None or entry.at < until)
        )
        return [entry for _, entry in zip(range(limit), wanted, strict=False)]

    def carry(self, before: float, limit: int) -> int:
        """See `BookStore.carry`."""
        old = [one for one in self._entries if one.at < before and one.kind != "carried"][:limit]
        carried = {one.owner: one for one in self._entries if one.kind == "carried"}
        for entry in old:
            if entry.request_id is not None and entry.kind in CHARGES:
                self._charged.pop(entry.request_id, None)
            before_it = carried.get(entry.owner)
            number, amount = (entry.number, 0) if before_it is None else (before_it.number, before_it.amount)
            carried[entry.owner] = Entry(
                number, entry.at, entry.owner, "carried", Microcredits(amount + entry.moved), entry.posted_after
            )
        gone = {one.number for one in old}
        rest = [one for one in self._entries if one.number not in gone and one.kind != "carried"]
        kept = sorted((*carried.values(), *rest), key=lambda one: one.number)
        self._entries = deque(kept, self._entries.maxlen)
        return len(old)

    def payer(self, request_id: RequestId) -> str | None:
        """See `BookStore.payer`. Of a request whose charge is carried, a refund that is kept knows who paid."""
        kept = (*self._entries, *(one.entry for one in self._answers.values()))
        kinds = (*CHARGES, "refund")
        return next((one.owner for one in kept if one.request_id == request_id and one.kind in kinds), None)

    def rename(self, old: str, new: str) -> None:
        """Change the owner of an account and its entries."""
        if old in self.accounts:
            self.accounts[new] = self.accounts.pop(old)
        moved = [replace(entry, owner=new) if entry.owner == old else entry for entry in self._entries]
        self._entries = deque(moved, self._entries.maxlen)
        for owner, id in [key for key in self._answers if key[0] == old]:
            self._answers[new, id] = self._answers.pop((owner, id))

    def close(self, owner: str, now: float, project_id: ProjectId, by: str | None) -> None:
        """Take what is left out of the account of a deleted project; nothing while it has holds."""
        before = self.accounts.get(owner)
        if before is not None and before.posted and not before.held:
            self.accounts[owner] = Account()
            self.enter(owner, "closed", -before.posted, now, project_id=project_id, by=by, note=CLOSED)
