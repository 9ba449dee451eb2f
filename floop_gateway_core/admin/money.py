"""Grants, debits, refunds and statements."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from floop_gateway_core.admin.base import AdminBase, check_period
from floop_gateway_core.errors import AdminError, Conflict, NoSuchAccount, NoSuchRequest
from floop_gateway_core.money import Credits, format_credits, to_microcredits
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.stores.base import Posted, Posting, PostingRefused
from floop_gateway_core.types import Entry, Microcredits, Project, RequestId, UsageRecord
from floop_gateway_core.types.amounts import OWN_ACCOUNT, ZERO_CREDITS

__all__ = ["MoneyAdmin", "Statement"]

ENTRIES_A_PAGE = 1000
MAX_ID = 100
MAX_NOTE = 1000


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's entries of a period, with the balance before the first and after the last."""

    owner: str
    opening: Microcredits
    entries: tuple[Entry, ...]
    closing: Microcredits


class MoneyAdmin(AdminBase):
    """What an operator does with accounts. Amounts are `"3.50"` or a `Decimal` of credits, or `Microcredits`."""

    async def account(self, owner: str) -> Account:
        """Return an owner's account; raise `NoSuchAccount`."""
        await self.expire()
        account = await self._ledger.account(owner)
        if account is None:
            raise NoSuchAccount(owner)
        return account

    async def accounts(self, *, after: str = "", limit: int = ENTRIES_A_PAGE) -> list[tuple[str, Account]]:
        """Return owners after a name and their accounts, ordered by name."""
        return await self._ledger.accounts(after=after, limit=limit)

    async def grant(self, owner: str, credits: Credits, *, id: str | None = None, note: str | None = None) -> Posted:
        """Add credits to an account. Idempotent by `id`: repeating the call returns the first result.

        Raises `NoSuchAccount`, `Conflict` if the id belongs to another posting, `AdminError` for an invalid amount.
        """
        await self.account(owner)
        posting = self._posting("grant", owner, credits, id, note)
        return await self._post(posting, "the balance would exceed the maximum; at most {left} credits can be granted")

    async def debit(self, owner: str, credits: Credits, *, id: str | None = None, note: str | None = None) -> Posted:
        """Take credits from an account; raise `Conflict` if too few are available. Idempotent by `id`."""
        await self.account(owner)
        posting = self._posting("debit", owner, credits, id, note)
        return await self._post(posting, "only {left} credits are available")

    async def refund(
        self, request_id: str, credits: Credits | None = None, *, id: str | None = None, note: str | None = None
    ) -> Posted:
        """Refund a part of a request's charge to the account that paid, or all that is left. Idempotent by `id`.

        The record and the day's tokens stay. Raises `NoSuchRequest`, and `Conflict` for more than is left to refund.
        """
        owner = await self._ledger.payer(RequestId(request_id))
        record = await self._ledger.record(RequestId(request_id))
        if record is None and (owner is None or credits is None):
            raise NoSuchRequest(request_id)
        if owner is None:
            raise Conflict("the request was charged nothing, or its charge is older than the entries that are kept")
        takes_rest = credits is None
        if credits is None and record is not None:
            credits = record.microcredits
        posting = self._posting("refund", owner, credits or ZERO_CREDITS, id, note, RequestId(request_id), record)
        posting = replace(posting, takes_rest=takes_rest)
        return await self._post(posting, "only {left} credits of this request are left to refund")

    async def request(self, request_id: str) -> UsageRecord:
        """Return a finished request's record; raise `NoSuchRequest`."""
        record = await self._ledger.record(RequestId(request_id))
        if record is None:
            raise NoSuchRequest(request_id)
        return record

    async def entries(
        self, owner: str, *, after: int = 0, since: float | None = None, until: float | None = None, limit: int = 100
    ) -> list[Entry]:
        """Return an account's entries with numbers above `after`, oldest first; raise `NoSuchAccount`."""
        await self.account(owner)
        return await self._ledger.entries(owner, after=after, since=since, until=until, limit=limit)

    async def statement(self, owner: str, *, since: float | None = None, until: float | None = None) -> Statement:
        """Return the statement of a period in epoch seconds, `since` <= at < `until`; raise `NoSuchAccount`."""
        check_period(since, until)
        await self.account(owner)
        opening = 0
        if since is not None:
            async for entry in self._every_entry(owner, None, since):
                opening += entry.moved
        found = [entry async for entry in self._every_entry(owner, since, until)]
        closing = opening + sum(entry.moved for entry in found)
        return Statement(owner, Microcredits(opening), tuple(found), Microcredits(closing))

    async def _every_entry(self, owner: str, since: float | None, until: float | None) -> AsyncIterator[Entry]:
        after = 0
        while True:
            page = await self._ledger.entries(owner, after=after, since=since, until=until, limit=ENTRIES_A_PAGE)
            for entry in page:
                yield entry
            if len(page) < ENTRIES_A_PAGE:
                return
            after = page[-1].number

    def _posting(
        self,
        kind: str,
        owner: str,
        credits: Credits,
        id: str | None,
        note: str | None,
        request_id: RequestId | None = None,
        record: UsageRecord | None = None,
    ) -> Posting:
        try:
            amount = to_microcredits(credits)
        except ValueError as error:
            raise AdminError(str(error)) from None
        if amount <= ZERO_CREDITS:
            raise AdminError("the amount must be more than 0 credits")
        if id is not None and not (1 <= len(id) <= MAX_ID and all("!" <= one <= "~" for one in id)):
            raise AdminError(f"id must be 1 to {MAX_ID} visible ASCII characters")
        if note is not None and (len(note) > MAX_NOTE or not note.isprintable()):
            raise AdminError(f"note must be at most {MAX_NOTE} printable characters")
        return Posting(
            kind,  # type: ignore[arg-type]
            owner,
            amount,
            self._clock(),
            id,
            request_id,
            None if record is None else record.project_id,
            self._operator.name,
            note,
        )

    async def _project_of(self, posting: Posting) -> Project | None:
        """Return the project that a posting concerns: the one whose request or own account it is."""
        name: str | None = posting.project_id
        if name is None and posting.owner.startswith(OWN_ACCOUNT):
            name = posting.owner.removeprefix(OWN_ACCOUNT)
        return None if name is None else await self._store.project(name)

    async def _post(self, posting: Posting, too_much: str) -> Posted:
        details = {
            "credits": "all that is left" if posting.takes_rest else format_credits(posting.amount),
            "id": posting.id,
            "request_id": posting.request_id,
            "note": posting.note,
        }
        line = self._line(posting.kind, details, project=await self._project_of(posting), account=posting.owner)
        posted = await self._ledger.post(replace(posting, line=line) if self._one_store else posting)
        if isinstance(posted, PostingRefused):
            if posted.left is None:
                raise Conflict(f"the id {posting.id!r} was already used for a different posting; nothing was changed")
            raise Conflict(f"{too_much.format(left=format_credits(posted.left))}; nothing was changed")
        if not posted.repeated and not self._one_store:
            await self._store.audit(line)
        return posted
