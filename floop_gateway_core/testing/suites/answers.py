"""The suite for what a ledger store promises of idempotency keys."""

from dataclasses import replace

from floop_gateway_core.policy.admission import Held, HoldRefused
from floop_gateway_core.policy.idempotency import KEEP_S, Claim, KeptAnswer, KeyTaken
from floop_gateway_core.stores.base import HoldRequest, Store
from floop_gateway_core.testing.suites.facts import (
    DAY,
    NOW,
    PROJECT,
    grant,
    hold_request,
    project,
    settlement,
    together,
)
from floop_gateway_core.types import Microcredits, ProjectId, RequestId

__all__ = ["AnswerSuite"]

CLAIM = Claim("order-1", "digest-of-the-call")


def keyed(request_id: str, claim: Claim = CLAIM, *, id: ProjectId = PROJECT, now: float = NOW) -> HoldRequest:
    """Return a request that claims a key."""
    return replace(hold_request(request_id, project=id, now=now), claim=claim)


class AnswerSuite:
    """A key is claimed with the holds, keeps its answer with the settlement, and is free without one."""

    async def _kept(self, store: Store, now: float = NOW, id: ProjectId = PROJECT) -> KeptAnswer | None:
        return await store.kept_answer(id, CLAIM.key, now)

    async def _end(self, store: Store, request: HoldRequest, charge: int | None, answer: bytes | None) -> None:
        end = replace(settlement(request, charge, tokens=charge or 0), claim=request.claim, answer=answer)
        await store.settle(end)

    async def test_a_key_is_claimed_with_the_holds_and_refuses_others(self, store: Store) -> None:
        await grant(store, 1_000)
        assert await self._kept(store) is None
        first = await store.hold(keyed("req_1"))
        assert isinstance(first, Held)
        running = KeptAnswer(RequestId("req_1"), CLAIM.digest, "running")
        assert await self._kept(store) == running
        assert await store.hold(keyed("req_2")) == KeyTaken(running, CLAIM)
        assert (await store.account("o"), await store.record(RequestId("req_2"))) == (
            await store.account("o"), None,
        )  # fmt: skip
        assert await store.hold(keyed("req_1")) == first  # repeated by its own request

    async def test_of_concurrent_claims_one_wins(self, store: Store) -> None:
        await grant(store, 10_000)
        answers: list[Held | HoldRefused] = await together([store.hold(keyed(f"req_{n}")) for n in range(30)])
        assert [type(one) for one in answers].count(Held) == 1
        account = await store.account("o")
        assert account is not None
        assert account.held == 100

    async def test_an_answer_is_kept_with_what_it_cost(self, store: Store) -> None:
        await grant(store, 1_000)
        request = keyed("req_1")
        await store.hold(request)
        await self._end(store, request, 40, b"an answer")
        kept = KeptAnswer(RequestId("req_1"), CLAIM.digest, "kept", b"an answer", Microcredits(40), Microcredits(960))
        assert await self._kept(store) == kept
        assert await store.hold(keyed("req_2")) == KeyTaken(kept, CLAIM)
        await self._end(store, request, 40, b"another answer")  # a settlement that is repeated changes nothing
        assert await self._kept(store) == kept
        assert await store.kept_answer(ProjectId("q"), CLAIM.key, NOW) is None

    async def test_a_request_without_an_answer_frees_its_key(self, store: Store) -> None:
        await grant(store, 1_000)
        request = keyed("req_1")
        await store.hold(request)
        await self._end(store, request, None, None)
        assert await self._kept(store) is None
        assert isinstance(await store.hold(keyed("req_2")), Held)

    async def test_who_is_refused_frees_nobodys_key_though_the_clock_has_stepped_forward(self, store: Store) -> None:
        await grant(store, 1_000)
        request = keyed("req_1")
        await store.hold(request)
        refused = keyed("req_2")  # held by the old clock; its settlement uses the time after the step
        assert isinstance(await store.hold(refused), KeyTaken)
        void = replace(settlement(refused, None), claim=refused.claim, now=request.expires_at + 4_000)
        await store.settle(void)
        running = await self._kept(store)
        assert running is not None
        assert (running.request_id, running.state) == ("req_1", "running")

    async def test_an_answer_is_kept_for_a_day(self, store: Store) -> None:
        await grant(store, 1_000)
        request = keyed("req_1")
        await store.hold(request)
        await self._end(store, request, 40, b"an answer")
        assert await self._kept(store, NOW + KEEP_S - 1) is not None
        assert await self._kept(store, NOW + KEEP_S) is None
        await store.prune(before=0, day=0, now=NOW + KEEP_S - 1, limit=10)
        assert await self._kept(store) is not None
        await store.prune(before=0, day=0, now=NOW + KEEP_S, limit=10)
        assert await self._kept(store) is None
        assert isinstance(await store.hold(keyed("req_2", now=NOW + KEEP_S)), Held)

    async def test_a_request_that_has_died_frees_its_key(self, store: Store) -> None:
        await grant(store, 1_000)
        request = keyed("req_1")
        await store.hold(request)
        assert await self._kept(store, request.expires_at) is None
        again = keyed("req_2", now=request.expires_at)
        assert isinstance(await store.hold(again), Held)
        await self._end(store, request, 40, b"late")  # charged, but the key is another request's
        running = await self._kept(store, request.expires_at)
        assert running is not None
        assert (running.request_id, running.state) == ("req_2", "running")

    async def test_a_deleted_projects_answers_are_gone(self, store: Store) -> None:
        await store.create_project(project(), digest="digest-1", credits=Microcredits(1_000))
        request = keyed("req_1")
        await store.hold(request)
        await self._end(store, request, 40, b"an answer")
        await store.delete_project(PROJECT, now=NOW)
        assert await self._kept(store) is None
        assert (await store.day(PROJECT, DAY)).used == 40
