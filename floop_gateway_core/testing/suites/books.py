"""The suite for a `BookStore`, and for what administration asks of the other protocols of a whole store."""

from dataclasses import replace

from floop_gateway_core.errors import NoSuchProject, ProjectExists
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.stores.base import Posted, Posting, PostingRefused, Store
from floop_gateway_core.testing.suites.facts import (
    NOW,
    PROJECT,
    account,
    grant,
    hold_request,
    project,
    raised,
    settlement,
    together,
)
from floop_gateway_core.types import (
    AuditLine,
    Microcredits,
    ProjectId,
    ProjectSettings,
    RequestId,
    Suspension,
    UsageFilter,
)

__all__ = ["BookSuite"]


def posting(kind: str, amount: int, id: str | None = None, **more: object) -> Posting:
    """Return a posting to the account of `o`."""
    return Posting(kind, "o", Microcredits(amount), NOW, id, **more)  # type: ignore[arg-type]


class BookSuite:
    """What a whole store promises to the administration."""

    async def _charged(self, store: Store, id: str, charge: int, *, owner: str = "o", now: float = NOW) -> None:
        request = hold_request(id, owner=owner, now=now)
        await store.hold(request)
        end = settlement(request, charge, tokens=charge)
        await store.settle(replace(end, record=replace(end.record, settled_at=now)))

    # -- money -----------------------------------------------------------------------------------------------------

    async def test_a_posting_moves_the_balance_and_leaves_an_entry(self, store: Store) -> None:
        await grant(store, 1_000)
        granted = await store.post(posting("grant", 500, "g1", by="ann", note="March"))
        debited = await store.post(posting("debit", 200, "d1"))
        assert isinstance(granted, Posted)
        assert isinstance(debited, Posted)
        assert (granted.account, debited.account) == (account(1_500), account(1_300))
        kinds = [(one.kind, one.amount, one.posted_after, one.id) for one in await store.entries("o")]
        assert kinds == [("grant", 1_000, 1_000, None), ("grant", 500, 1_500, "g1"), ("debit", -200, 1_300, "d1")]
        assert (granted.entry.by, granted.entry.note) == ("ann", "March")

    async def test_an_id_counts_once(self, store: Store) -> None:
        first = await store.post(posting("grant", 500, "x"))
        await store.post(posting("grant", 1))
        again = await store.post(posting("grant", 500, "x"))
        assert isinstance(first, Posted)
        assert again == replace(first, repeated=True)
        assert isinstance(await store.post(posting("grant", 501, "x")), PostingRefused)
        assert isinstance(await store.post(posting("debit", 500, "x")), PostingRefused)
        assert account(501) == await store.account("o")

    async def test_concurrent_postings_of_one_id_count_once(self, store: Store) -> None:
        await together([store.post(posting("grant", 500, "x")) for _ in range(64)])
        assert account(500) == await store.account("o")
        assert 1 == len(await store.entries("o"))

    async def test_a_debit_takes_what_is_available_and_not_what_is_held(self, store: Store) -> None:
        await grant(store, 150)
        await store.hold(hold_request("req_1"))
        assert PostingRefused(Microcredits(50)) == await store.post(posting("debit", 51))
        assert isinstance(await store.post(posting("debit", 50)), Posted)
        assert account(100, 100) == await store.account("o")

    async def test_a_refund_returns_at_most_what_was_charged(self, store: Store) -> None:
        await grant(store, 1_000)
        await self._charged(store, "req_1", 40)
        request = {"request_id": RequestId("req_1"), "project_id": PROJECT}
        assert isinstance(await store.post(posting("refund", 30, "r1", **request)), Posted)
        assert PostingRefused(Microcredits(10)) == await store.post(posting("refund", 11, "r2", **request))
        assert isinstance(await store.post(posting("refund", 10, "r3", **request)), Posted)
        assert account(1_000) == await store.account("o")
        unknown = posting("refund", 1, request_id=RequestId("req_9"))
        assert PostingRefused(Microcredits(0)) == await store.post(unknown)

    async def test_a_refund_may_take_what_is_left(self, store: Store) -> None:
        await grant(store, 1_000)
        await self._charged(store, "req_1", 40)
        request = {"request_id": RequestId("req_1"), "project_id": PROJECT}
        await store.post(posting("refund", 30, "r1", **request))
        rest = replace(posting("refund", 40, "r2", **request), takes_rest=True)
        first = await store.post(rest)
        assert isinstance(first, Posted)
        assert (10, False) == (first.entry.amount, first.repeated)
        assert replace(first, repeated=True) == await store.post(rest)
        assert PostingRefused(Microcredits(0)) == await store.post(replace(rest, id="r3"))
        assert PostingRefused() == await store.post(replace(rest, id="r2", kind="grant"))
        assert account(1_000) == await store.account("o")

    async def test_the_payer_of_a_request_is_known_after_its_project_is_deleted(self, store: Store) -> None:
        await store.create_project(project(), digest="digest-1", credits=Microcredits(1_000))
        await self._charged(store, "req_1", 40)
        await store.delete_project(PROJECT, now=NOW)
        assert await store.payer(RequestId("req_1")) == "o"
        assert await store.payer(RequestId("req_2")) is None

    async def test_entries_come_in_pages_and_periods(self, store: Store) -> None:
        for number in range(5):
            await store.post(replace(posting("grant", number + 1), now=NOW + number))
        every = await store.entries("o")
        assert [1, 2, 3, 4, 5] == [one.amount for one in every]
        assert every[2:4] == await store.entries("o", after=every[1].number, limit=2)
        assert every[1:3] == await store.entries("o", since=NOW + 1, until=NOW + 3)
        assert [] == await store.entries("someone else")

    async def test_the_first_credits_of_a_project_have_who_granted_them(self, store: Store) -> None:
        await store.create_project(project(), digest="digest-1", credits=Microcredits(1_000), by="olga")
        (entry,) = await store.entries("o")
        assert ("grant", 1_000, "olga", PROJECT) == (entry.kind, entry.amount, entry.by, entry.project_id)

    async def test_old_entries_are_carried_as_one_sum(self, store: Store) -> None:
        for number in range(4):
            id = f"g{number}" if number % 2 else None
            await store.post(replace(posting("grant", 10**number, id), now=NOW + number))
        await store.post(replace(posting("debit", 5, "d"), now=NOW + 4))
        first = await store.post(replace(posting("grant", 10, "g1"), now=NOW + 50))
        await store.grant_credits("another", Microcredits(7), NOW + 4)
        assert 2 == await store.carry(before=NOW + 4, limit=2)
        assert 2 == await store.carry(before=NOW + 4, limit=10)
        assert 0 == await store.carry(before=NOW + 4, limit=10)
        carried, debit = await store.entries("o")
        assert ("carried", 1_111, 1_111, NOW + 3) == (carried.kind, carried.amount, carried.posted_after, carried.at)
        assert ("debit", -5, 1_106) == (debit.kind, debit.amount, debit.posted_after)
        assert account(1_106) == await store.account("o")
        again = await store.post(replace(posting("grant", 10, "g1"), now=NOW + 99))
        assert again == first, "an id is known for ever, with its first answer"
        assert PostingRefused() == await store.post(posting("grant", 11, "g1"))
        assert 2 == await store.carry(before=NOW + 5, limit=10)
        (carried,) = await store.entries("o")
        assert ("carried", 1_106, 1_106) == (carried.kind, carried.amount, carried.posted_after)
        await store.post(replace(posting("grant", 1), now=NOW + 60))
        assert ["carried", "grant"] == [one.kind for one in await store.entries("o")]

    async def test_what_was_charged_before_entries_were_carried_is_not_refunded(self, store: Store) -> None:
        await grant(store, 1_000)
        await self._charged(store, "req_1", 40)
        request = {"request_id": RequestId("req_1"), "project_id": PROJECT}
        await store.post(replace(posting("refund", 30, "r1", **request), now=NOW + 500))
        await store.carry(before=NOW + 400, limit=10)
        assert ["carried", "refund"] == [one.kind for one in await store.entries("o")]
        first = (await store.entries("o"))[-1]
        await store.carry(before=NOW + 600, limit=10)
        again = await store.post(posting("refund", 30, "r1", **request))
        assert isinstance(again, Posted)
        assert (first, True) == (again.entry, again.repeated)
        assert "o" == await store.payer(RequestId("req_1")), "the refund says who paid"
        assert PostingRefused(Microcredits(0)) == await store.post(posting("refund", 1, "r2", **request))

    async def test_a_charge_is_an_entry_with_its_request(self, store: Store) -> None:
        await grant(store, 1_000)
        await self._charged(store, "req_1", 40)
        entry = (await store.entries("o"))[-1]
        assert ("capture", -40, 960) == (entry.kind, entry.amount, entry.posted_after)
        assert ("req_1", PROJECT) == (entry.request_id, entry.project_id)

    async def test_accounts_come_by_name(self, store: Store) -> None:
        for owner in ("b", "a", "c"):
            await store.grant_credits(owner, Microcredits(1), NOW)
        assert ["a", "b", "c"] == [owner for owner, _ in await store.accounts()]
        assert [("b", account(1))] == await store.accounts(after="a", limit=1)

    # -- projects --------------------------------------------------------------------------------------------------

    async def test_a_project_is_found_by_its_id(self, store: Store) -> None:
        created = await store.create_project(project(), digest="digest-1")
        assert created == await store.project("p")
        assert created == await store.project("shop-p")

    async def test_a_suspended_project_spends_nothing(self, store: Store) -> None:
        created = await store.create_project(project(), digest="digest-1")
        suspended = await store.suspend(PROJECT, Suspension(NOW, by_operator=False))
        assert replace(created, suspension=Suspension(NOW, by_operator=False)) == suspended
        for _ in range(3):
            admitted = await store.authenticate_and_acquire("digest-1", {"default": 1}, NOW)
            assert admitted is not None
            assert (suspended, None) == (admitted.project, admitted.decision)
        assert created == await store.suspend(PROJECT, None)
        admitted = await store.authenticate_and_acquire("digest-1", {"default": 1}, NOW)
        assert admitted is not None
        assert admitted.decision is not None
        assert admitted.decision.allowed

    async def test_a_key_in_grace_opens_until_its_end_or_the_next_rotation(self, store: Store) -> None:
        await store.create_project(project(), digest="old")
        after = await store.rotate_key(PROJECT, digest="new", key_prefix="…", now=NOW, grace_until=NOW + 60)
        assert after == await store.authenticate("old", NOW + 59)
        assert after == await store.authenticate("new", NOW + 59)
        assert await store.authenticate("old", NOW + 60) is None
        await store.rotate_key(PROJECT, digest="newer", key_prefix="…", now=NOW + 1, grace_until=NOW + 61)
        assert await store.authenticate("old", NOW + 2) is None
        assert await store.authenticate("new", NOW + 2) is not None

    async def test_a_deleted_project_is_gone_and_its_name_inherits_nothing(self, store: Store) -> None:
        first = replace(project(), owner="project:shop-p")
        await store.create_project(first, digest="digest-1", credits=Microcredits(1_000))
        await self._charged(store, "req_1", 40, owner="project:shop-p")
        await store.acquire(PROJECT, 1, NOW)
        await store.delete_project(PROJECT, now=NOW + 1)
        assert await store.project("shop-p") is None
        assert await store.authenticate("digest-1", NOW + 1) is None
        assert NoSuchProject is await raised(store.delete_project(PROJECT, now=NOW + 1))
        closed = await store.entries("project:p")
        assert [("grant", 1_000), ("capture", -40), ("closed", -960)] == [(one.kind, one.amount) for one in closed]
        assert Account() == await store.account("project:p")

        second = replace(first, id=ProjectId("q"))
        await store.create_project(second, digest="digest-2", credits=Microcredits(7))
        assert account(7) == await store.account("project:shop-p")
        assert ["grant"] == [one.kind for one in await store.entries("project:shop-p")]
        only = UsageFilter(projects=frozenset({ProjectId("q")}))
        assert [] == await store.usage_page(only, after=None, newest_first=True, limit=9)
        admitted = await store.authenticate_and_acquire("digest-2", {"default": 1}, NOW + 1)
        assert admitted is not None
        assert admitted.decision is not None
        assert admitted.decision.allowed

    async def test_what_runs_while_its_project_is_deleted_is_billed_and_then_its_account_closes(
        self, store: Store
    ) -> None:
        await store.create_project(
            replace(project(), owner="project:shop-p"), digest="digest-1", credits=Microcredits(1_000)
        )
        request = hold_request("req_1", owner="project:shop-p")
        await store.hold(request)
        await store.delete_project(PROJECT, now=NOW)
        assert account(1_000, 100) == await store.account("project:p")
        settled = await store.settle(settlement(request, 40, tokens=42))
        assert 40 == settled.hold.charged
        assert Account() == await store.account("project:p")
        closed = [(one.kind, one.amount) for one in await store.entries("project:p")]
        assert [("grant", 1_000), ("capture", -40), ("closed", -960)] == closed
        assert (await store.account("project:shop-p") or Account()) == Account()

    async def test_an_owners_account_outlives_a_deleted_project(self, store: Store) -> None:
        await store.create_project(project(), digest="digest-1", credits=Microcredits(1_000))
        await store.delete_project(PROJECT, now=NOW)
        assert account(1_000) == await store.account("o")

    async def test_erasing_takes_the_name_out_of_the_records(self, store: Store) -> None:
        await store.create_project(project(), digest="digest-1", credits=Microcredits(1_000))
        await self._charged(store, "req_1", 40)
        await store.audit(AuditLine(NOW, "ann", "create", PROJECT, "shop-p"))
        await store.delete_project(
            PROJECT, now=NOW, erase=True, line=AuditLine(NOW, "ann", "delete", PROJECT, "shop-p")
        )
        record = await store.record(RequestId("req_1"))
        assert record is not None
        assert ("p", "p") == (record.project, record.project_id)
        assert [("delete", "p"), ("create", "p")] == [(line.what, line.project) for line in await store.audit_lines()]

    # -- the audit log ---------------------------------------------------------------------------------------------

    async def test_a_change_keeps_its_line_and_one_that_fails_keeps_none(self, store: Store) -> None:
        async def kept() -> list[str]:
            return [line.what for line in await store.audit_lines()][::-1]

        def line(what: str) -> AuditLine:
            return AuditLine(NOW, "ann", what, PROJECT, "shop-p")

        await store.create_project(project(), digest="digest-1", line=line("create"))
        await store.set_project(PROJECT, ProjectSettings(), line=line("settings"))
        await store.suspend(PROJECT, Suspension(NOW), line=line("suspend"))
        await store.rotate_key(PROJECT, digest="digest-2", key_prefix="b", now=NOW, line=line("rotate-key"))
        grant = Posting("grant", "o", Microcredits(100), NOW, "grant-1", line=line("grant"))
        await store.post(grant)
        done = ["create", "settings", "suspend", "rotate-key", "grant"]
        assert done == await kept()
        assert isinstance(await store.post(grant), Posted)
        too_much = replace(grant, kind="debit", id=None, amount=Microcredits(101))
        assert isinstance(await store.post(too_much), PostingRefused)
        again = store.create_project(project(), digest="digest-3", line=line("create"))
        assert ProjectExists is await raised(again)
        for call in (
            store.set_project(ProjectId("q"), ProjectSettings(), line=line("settings")),
            store.suspend(ProjectId("q"), None, line=line("resume")),
            store.rotate_key(ProjectId("q"), digest="digest-4", key_prefix="c", now=NOW, line=line("rotate-key")),
            store.delete_project(ProjectId("q"), now=NOW, line=line("delete")),
        ):
            assert NoSuchProject is await raised(call)
        assert done == await kept()
        await store.delete_project(PROJECT, now=NOW, line=line("delete"))
        assert [*done, "delete"] == await kept()

    async def test_audit_lines_come_newest_first(self, store: Store) -> None:
        lines = [
            AuditLine(NOW, "ann", "create", PROJECT, "shop-p", origin="10.0.0.1", details={"plan": "gold", "n": 1}),
            AuditLine(NOW + 1, "bob", "grant", account="o", details={"credits": 5}),
            AuditLine(NOW + 2, "bob", "suspend", ProjectId("q"), "shop-q"),
        ]
        for line in lines:
            await store.audit(line)
        found = await store.audit_lines()
        assert lines[::-1] == [replace(line, number=0) for line in found]
        assert found[1:2] == await store.audit_lines(before=found[0].number, limit=1)
        assert found[2:] == await store.audit_lines(projects=frozenset({PROJECT}))
        assert [] == await store.audit_lines(projects=frozenset())
