"""The suites that every store must pass: subclass one in your own tests and give it a `store` fixture.

    # conftest.py: the suites' assertions are explained like your own
    pytest.register_assert_rewrite("floop_gateway_core.testing.suites.stores")

    # test_my_store.py: run by anyio's pytest plugin, which comes with anyio
    @pytest.mark.anyio
    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def store(self) -> AsyncIterator[MyStore]:
            store = MyStore(...)    # new and empty for each test
            await store.setup()
            yield store
            await store.aclose()

`StoreSuite` is for a whole `Store`; `ProjectSuite`, `RateSuite` and `LedgerSuite` for a store of one protocol. Time is an
argument of every call, so nothing here sleeps, and a store must not read a clock itself. A store for several processes
needs more tests with several processes: these use one.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TypeVar

import anyio

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy.admission import (
    AlreadySettled,
    Held,
    HoldEstimate,
    HoldRefused,
    ShortBudget,
    ShortCredits,
    hold_refusal,
)
from floop_gateway_core.policy.budget import DAY_S, seconds_to_midnight, utc_day
from floop_gateway_core.policy.ledger import Account, Hold
from floop_gateway_core.policy.pricing import RATE_SCALE, CostLine
from floop_gateway_core.policy.rate_window import WINDOW_S, RateDecision
from floop_gateway_core.stores.base import (
    HoldRequest,
    LedgerStore,
    NoSuchProject,
    ProjectExists,
    ProjectStore,
    RateStore,
    Settlement,
    Store,
)
from floop_gateway_core.types import Microcredits, Project, ProjectSettings, RequestId, UsageRecord

__all__ = ["LedgerSuite", "ProjectSuite", "RateSuite", "StoreSuite", "hold_request", "settlement"]

T = TypeVar("T")

NOW = 1_700_000_000.0
DAY = utc_day(NOW)
TTL_S = 600.0


def hold_request(
    request_id: str,
    *,
    project: str = "p",
    owner: str = "o",
    fixed_tokens: int = 10,
    output_tokens: int = 90,
    microcredits_per_token: int = 1,
    budget_tokens: int = 10_000,
    now: float = NOW,
) -> HoldRequest:
    """Ask for both holds of a request that costs `microcredits_per_token` for each of its tokens."""
    rate = microcredits_per_token * RATE_SCALE
    record = UsageRecord(RequestId(request_id), project, "flp_sk_ab12…", "chat", started_at=now)
    ask = HoldEstimate(fixed_tokens, output_tokens, (CostLine(fixed_tokens * rate, rate),))
    return HoldRequest(record, owner, utc_day(now), budget_tokens, ask, now, expires_at=now + TTL_S)


def settlement(request: HoldRequest, charge: int | None = None, *, tokens: int = 0) -> Settlement:
    """End a request as `complete`, or as `refused` if nothing is charged."""
    record = replace(request.record, ending="refused" if charge is None else "complete", status=200)
    return Settlement(
        record, request.owner, request.day, request.now, None if charge is None else Microcredits(charge), tokens
    )


async def _together(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Run all concurrently; return their results in the order in which they finished."""
    answers: list[T] = []

    async def run(call: Awaitable[T]) -> None:
        answers.append(await call)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(run, call)
    return answers


async def _raised(call: Awaitable[object]) -> type[Exception] | None:
    try:
        await call
    except (NoSuchProject, ProjectExists) as error:
        return type(error)
    return None


async def _grant(store: LedgerStore, amount: int, owner: str = "o") -> Account:
    return await store.grant_credits(owner, Microcredits(amount), NOW)


async def _records(store: LedgerStore, project: str | None = None, since: float | None = None) -> list[UsageRecord]:
    return [record async for record in store.usage(project, since)]


def _account(posted: int, held: int = 0) -> Account:
    return Account(Microcredits(posted), Microcredits(held))


def _hold(amount: int, captured: int = 0, overrun: int = 0, written_off: int = 0) -> Hold:
    values = (Microcredits(value) for value in (captured, overrun, written_off))
    return Hold(Microcredits(amount), "captured", *values)


def _grants(answers: Sequence[Held | HoldRefused]) -> list[Held]:
    return [answer for answer in answers if isinstance(answer, Held)]


class ProjectSuite:
    """What `ProjectStore` promises."""

    async def _create(self, store: ProjectStore, name: str = "p", digest: str = "digest-1") -> Project:
        return await store.create_project(
            name, "o", ProjectSettings(), digest=digest, key_prefix="flp_sk_ab12…", now=NOW
        )

    async def test_a_new_project_is_found_by_its_name_and_by_its_key(self, store: ProjectStore) -> None:
        settings = ProjectSettings("gold", 20, 50_000)
        created = await store.create_project("p", "o", settings, digest="digest-1", key_prefix="flp_sk_ab12…", now=NOW)
        assert created == Project("p", "o", settings, "flp_sk_ab12…", NOW)
        assert created == await store.project("p")
        assert created == await store.authenticate("digest-1")

    async def test_an_unknown_name_or_key_is_no_project(self, store: ProjectStore) -> None:
        await self._create(store)
        assert await store.project("q") is None
        assert await store.authenticate("digest-2") is None

    async def test_projects_come_by_name(self, store: ProjectStore) -> None:
        assert [] == await store.projects()
        for name in ("b", "c", "a"):
            await self._create(store, name, "digest of " + name)
        assert ["a", "b", "c"] == [project.name for project in await store.projects()]

    async def test_a_name_that_exists_is_refused_and_changes_nothing(self, store: ProjectStore) -> None:
        before = await self._create(store)
        again = store.create_project("p", "x", ProjectSettings("gold"), digest="digest-2", key_prefix="…", now=NOW + 1)
        assert ProjectExists is await _raised(again)
        assert [before] == await store.projects()
        assert before == await store.authenticate("digest-1")
        assert await store.authenticate("digest-2") is None

    async def test_changed_settings_show_at_once(self, store: ProjectStore) -> None:
        before = await self._create(store)
        settings = ProjectSettings("gold", 99, None)
        after = await store.set_project("p", settings)
        assert replace(before, settings=settings) == after
        assert after == await store.project("p")
        assert after == await store.authenticate("digest-1")

    async def test_a_rotation_puts_a_new_key_in_place_of_the_old(self, store: ProjectStore) -> None:
        before = await self._create(store)
        after = await store.rotate_key("p", digest="digest-2", key_prefix="flp_sk_cd34…", now=NOW + 1)
        assert replace(before, key_prefix="flp_sk_cd34…") == after
        assert await store.authenticate("digest-1") is None
        assert after == await store.authenticate("digest-2")

    async def test_a_key_stays_revoked_through_further_rotations(self, store: ProjectStore) -> None:
        await self._create(store)
        for number in (2, 3):
            await store.rotate_key("p", digest=f"digest-{number}", key_prefix=f"flp_sk_000{number}…", now=NOW)
        active = [number for number in (1, 2, 3) if await store.authenticate(f"digest-{number}")]
        assert [3] == active

    async def test_a_rotation_leaves_other_projects_keys_alone(self, store: ProjectStore) -> None:
        await self._create(store)
        other = await self._create(store, "q", "digest-q")
        await store.rotate_key("p", digest="digest-2", key_prefix="…", now=NOW)
        assert other == await store.authenticate("digest-q")

    async def test_of_concurrent_rotations_one_key_is_active(self, store: ProjectStore) -> None:
        await self._create(store)
        digests = [f"new-{number}" for number in range(20)]
        await _together([store.rotate_key("p", digest=digest, key_prefix="…", now=NOW) for digest in digests])
        active = [digest for digest in ("digest-1", *digests) if await store.authenticate(digest)]
        assert 1 == len(active)

    async def test_an_unknown_project_can_be_neither_changed_nor_rotated(self, store: ProjectStore) -> None:
        assert NoSuchProject is await _raised(store.set_project("p", ProjectSettings()))
        assert NoSuchProject is await _raised(store.rotate_key("p", digest="digest-1", key_prefix="…", now=NOW))
        assert await store.authenticate("digest-1") is None
        assert [] == await store.projects()


class RateSuite:
    """What `RateStore` promises."""

    async def test_the_limit_is_admitted_and_the_next_is_refused(self, store: RateStore) -> None:
        decisions = [await store.acquire("p", 3, NOW) for _ in range(4)]
        assert [True, True, True, False] == [decision.allowed for decision in decisions]
        assert [2, 1, 0, 0] == [decision.remaining for decision in decisions]
        assert {3} == {decision.limit for decision in decisions}
        assert [0, 0, 0] == [decision.retry_after_s for decision in decisions[:3]]

    async def test_of_200_concurrent_requests_exactly_10_are_admitted(self, store: RateStore) -> None:
        decisions = await _together([store.acquire("p", 10, NOW) for _ in range(200)])
        refused = [decision for decision in decisions if not decision.allowed]
        assert 190 == len(refused)
        waits = {decision.retry_after_s for decision in refused}
        assert 1 == len(waits)
        assert (await store.acquire("p", 10, NOW + waits.pop())).allowed

    async def test_retry_after_is_true_wherever_in_the_window_it_was_said(self, store: RateStore) -> None:
        for number, lag_s in enumerate((0.0, 0.25, 1.0, 30.5, 58.999, 59.5)):
            project = f"p{number}"
            assert (await store.acquire(project, 2, NOW)).allowed
            assert (await store.acquire(project, 2, NOW + lag_s / 2)).allowed
            refused = await store.acquire(project, 2, NOW + lag_s)
            assert not refused.allowed
            assert refused.retry_after_s >= 1
            assert (await store.acquire(project, 2, NOW + lag_s + refused.retry_after_s)).allowed

    async def test_retry_after_is_less_than_two_seconds_too_long(self, store: RateStore) -> None:
        await store.acquire("p", 1, NOW)
        refused = await store.acquire("p", 1, NOW + 20.5)
        assert 39.5 <= refused.retry_after_s < 41.5

    async def test_an_admission_leaves_the_window_at_exactly_sixty_seconds(self, store: RateStore) -> None:
        await store.acquire("p", 1, NOW)
        early = await store.acquire("p", 1, NOW + WINDOW_S - 0.001)
        assert RateDecision(False, 1, 0, retry_after_s=1, reset_s=1) == early
        assert (await store.acquire("p", 1, NOW + WINDOW_S)).allowed

    async def test_the_window_moves_and_is_not_reset(self, store: RateStore) -> None:
        for second in (0, 40):
            await store.acquire("p", 2, NOW + second)
        at = (61, 62, 101)
        assert [True, False, True] == [(await store.acquire("p", 2, NOW + second)).allowed for second in at]

    async def test_a_refused_request_spends_nothing(self, store: RateStore) -> None:
        await store.acquire("p", 1, NOW)
        for second in range(1, 59):
            assert not (await store.acquire("p", 1, NOW + second)).allowed
        assert (await store.acquire("p", 1, NOW + 61)).allowed

    async def test_reset_counts_to_the_oldest_admission_that_leaves(self, store: RateStore) -> None:
        await store.acquire("p", 3, NOW)
        second = await store.acquire("p", 3, NOW + 20.5)
        assert second.allowed
        assert 39.5 <= second.reset_s < 41.5

    async def test_projects_do_not_spend_each_others_requests(self, store: RateStore) -> None:
        await store.acquire("p", 1, NOW)
        assert (await store.acquire("q", 1, NOW)).allowed

    async def test_a_raised_limit_counts_what_was_admitted_before(self, store: RateStore) -> None:
        for _ in range(2):
            await store.acquire("p", 2, NOW)
        assert [True, False] == [(await store.acquire("p", 3, NOW + 1)).allowed for _ in range(2)]

    async def test_a_lowered_limit_counts_what_was_admitted_before(self, store: RateStore) -> None:
        for second in range(4):
            await store.acquire("p", 4, NOW + second)
        refused = await store.acquire("p", 2, NOW + 4)
        assert not refused.allowed
        assert not (await store.acquire("p", 2, NOW + 61.5)).allowed
        assert (await store.acquire("p", 2, NOW + 4 + refused.retry_after_s)).allowed


class LedgerSuite:
    """What `LedgerStore` promises."""

    # -- accounts --------------------------------------------------------------------------------------------------

    async def test_an_account_without_credits_is_none(self, store: LedgerStore) -> None:
        assert await store.account("o") is None

    async def test_grants_add_up(self, store: LedgerStore) -> None:
        assert _account(100) == await _grant(store, 100)
        assert _account(150) == await _grant(store, 50)
        assert _account(150) == await store.account("o")

    async def test_concurrent_grants_add_up(self, store: LedgerStore) -> None:
        await _together([_grant(store, 7) for _ in range(30)])
        assert _account(210) == await store.account("o")

    # -- hold ------------------------------------------------------------------------------------------------------

    async def test_a_hold_sets_tokens_and_credits_aside(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        assert Held(90, 100, Microcredits(100)) == await store.hold(hold_request("req_1"))
        assert _account(1_000, 100) == await store.account("o")
        assert (0, 100) == await store.day("p", DAY)

    async def test_a_hold_that_is_repeated_gives_the_first_answer_and_holds_once(self, store: LedgerStore) -> None:
        await _grant(store, 150)
        first = await store.hold(hold_request("req_1"))
        assert first == await store.hold(hold_request("req_1"))
        assert _account(150, 100) == await store.account("o")
        assert (0, 100) == await store.day("p", DAY)

    async def test_a_near_empty_account_gets_less_output(self, store: LedgerStore) -> None:
        await _grant(store, 35)
        assert Held(25, 35, Microcredits(35)) == await store.hold(hold_request("req_1"))
        assert _account(35, 35) == await store.account("o")

    async def test_an_account_that_cannot_pay_for_one_token_of_output_is_refused(self, store: LedgerStore) -> None:
        await _grant(store, 10)
        refused = await store.hold(hold_request("req_1"))
        assert isinstance(refused, ShortBudget | ShortCredits | AlreadySettled)
        refused_refusal = hold_refusal(refused, NOW)
        assert (ErrorCode.INSUFFICIENT_CREDITS, None) == (refused_refusal.code, refused_refusal.retry_after_s)
        assert _account(10) == await store.account("o")
        assert (0, 0) == await store.day("p", DAY)

    async def test_credits_that_only_other_requests_hold_are_worth_a_retry(self, store: LedgerStore) -> None:
        await _grant(store, 100)
        await store.hold(hold_request("req_1"))
        refused = await store.hold(hold_request("req_2"))
        assert isinstance(refused, ShortBudget | ShortCredits | AlreadySettled)
        refused_refusal = hold_refusal(refused, NOW)
        assert ErrorCode.INSUFFICIENT_CREDITS == refused_refusal.code
        assert 1 <= (refused_refusal.retry_after_s or 0) <= 10

    async def test_a_request_of_price_0_needs_no_account(self, store: LedgerStore) -> None:
        granted = await store.hold(hold_request("req_1", microcredits_per_token=0))
        assert Held(90, 100, Microcredits(0)) == granted

    async def test_a_near_empty_budget_gets_less_output(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        assert Held(15, 25, Microcredits(25)) == await store.hold(hold_request("req_1", budget_tokens=25))
        assert (0, 25) == await store.day("p", DAY)

    async def test_a_budget_that_only_other_requests_hold_is_worth_a_retry(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        await store.hold(hold_request("req_1", budget_tokens=105))
        refused = await store.hold(hold_request("req_2", budget_tokens=105))
        assert isinstance(refused, ShortBudget | ShortCredits | AlreadySettled)
        refused_refusal = hold_refusal(refused, NOW)
        assert ErrorCode.BUDGET_EXCEEDED == refused_refusal.code
        assert 1 <= (refused_refusal.retry_after_s or 0) <= 10
        assert _account(1_000, 100) == await store.account("o")

    async def test_a_budget_that_is_used_up_is_refused_until_midnight(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        first = hold_request("req_1", budget_tokens=105)
        await store.hold(first)
        await store.settle(settlement(first, 100, tokens=100))
        refused = await store.hold(hold_request("req_2", budget_tokens=105))
        assert isinstance(refused, ShortBudget | ShortCredits | AlreadySettled)
        refused_refusal = hold_refusal(refused, NOW)
        assert (ErrorCode.BUDGET_EXCEEDED, seconds_to_midnight(NOW)) == (
            refused_refusal.code,
            refused_refusal.retry_after_s,
        )
        tomorrow = hold_request("req_2", budget_tokens=105, now=NOW + seconds_to_midnight(NOW))
        assert Held(90, 100, Microcredits(100)) == await store.hold(tomorrow)

    async def test_a_refused_hold_leaves_its_id_free(self, store: LedgerStore) -> None:
        assert not isinstance(await store.hold(hold_request("req_1")), Held)
        await _grant(store, 100)
        assert Held(90, 100, Microcredits(100)) == await store.hold(hold_request("req_1"))

    async def test_concurrent_holds_never_set_aside_more_than_there_is(self, store: LedgerStore) -> None:
        await _grant(store, 50)
        asks = [hold_request(f"req_{number:02}", fixed_tokens=9, output_tokens=1) for number in range(64)]
        answers = await _together([store.hold(ask) for ask in asks])
        assert 5 == len(_grants(answers))
        assert _account(50, 50) == await store.account("o")
        assert (0, 50) == await store.day("p", DAY)

    async def test_concurrent_holds_never_set_aside_more_than_the_budget(self, store: LedgerStore) -> None:
        await _grant(store, 10_000)
        asks = [hold_request(f"req_{number:02}", output_tokens=10, budget_tokens=105) for number in range(64)]
        granted = _grants(await _together([store.hold(ask) for ask in asks]))
        assert sum(grant.held_tokens for grant in granted) <= 105
        assert (0, sum(grant.held_tokens for grant in granted)) == await store.day("p", DAY)

    async def test_an_owners_account_pays_for_all_its_projects_and_each_has_its_budget(
        self, store: LedgerStore
    ) -> None:
        await _grant(store, 1_000)
        for number, project in enumerate(("p", "q")):
            await store.hold(hold_request(f"req_{number}", project=project, budget_tokens=100))
        assert _account(1_000, 200) == await store.account("o")
        assert [(0, 100), (0, 100)] == [await store.day(project, DAY) for project in ("p", "q")]

    # -- settle ----------------------------------------------------------------------------------------------------

    async def test_a_capture_charges_and_frees_the_rest(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request, 40, tokens=42))
        assert (_hold(100, captured=40), _account(960)) == (settled.hold, settled.account)
        assert _account(960) == await store.account("o")
        assert (42, 0) == await store.day("p", DAY)

    async def test_a_void_frees_both_holds(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request))
        assert ("voided", 0) == (settled.hold.state, settled.hold.charged)
        assert _account(1_000) == await store.account("o")
        assert (0, 0) == await store.day("p", DAY)

    async def test_settling_again_changes_nothing_and_tells_what_the_first_one_did(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        first = await store.settle(settlement(request, 40, tokens=42))
        assert first == await store.settle(settlement(request, 77, tokens=99))
        assert first == await store.settle(settlement(request))
        assert _account(960) == await store.account("o")
        assert (42, 0) == await store.day("p", DAY)
        assert [("complete", 40)] == [(record.ending, record.microcredits) for record in await _records(store)]

    async def test_concurrent_settlements_of_one_request_charge_it_once(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await _together([store.settle(settlement(request, 40, tokens=42)) for _ in range(20)])
        assert 1 == len(set(settled))
        assert _account(960) == await store.account("o")
        assert (42, 0) == await store.day("p", DAY)

    async def test_a_charge_above_the_hold_is_an_overrun(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request, 130, tokens=130))
        assert (_hold(100, 100, overrun=30), _account(870)) == (settled.hold, settled.account)
        assert [130] == [record.microcredits for record in await _records(store)]

    async def test_what_the_account_cannot_pay_is_written_off_and_not_in_the_record(self, store: LedgerStore) -> None:
        await _grant(store, 120)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request, 170, tokens=170))
        assert (_hold(100, 100, overrun=20, written_off=50), _account(0)) == (settled.hold, settled.account)
        assert [120] == [record.microcredits for record in await _records(store)]

    async def test_an_overrun_is_never_taken_out_of_others_holds(self, store: LedgerStore) -> None:
        await _grant(store, 200)
        request, other = hold_request("req_1"), hold_request("req_2")
        await store.hold(request)
        await store.hold(other)
        settled = await store.settle(settlement(request, 170, tokens=170))
        assert (_hold(100, 100, written_off=70), _account(100, 100)) == (settled.hold, settled.account)
        assert _account(0) == (await store.settle(settlement(other, 100, tokens=100))).account

    async def test_tokens_above_the_hold_are_written_down_and_refuse_the_next(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1", budget_tokens=100)
        await store.hold(request)
        await store.settle(settlement(request, 100, tokens=130))
        assert (130, 0) == await store.day("p", DAY)
        assert not isinstance(await store.hold(hold_request("req_2", budget_tokens=100)), Held)

    async def test_tokens_belong_to_the_day_of_admission(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        before_midnight = NOW + seconds_to_midnight(NOW) - 1
        request = hold_request("req_1", now=before_midnight)
        await store.hold(request)
        await store.settle(replace(settlement(request, 40, tokens=42), now=before_midnight + 2))
        assert [(42, 0), (0, 0)] == [await store.day("p", DAY), await store.day("p", DAY + 1)]

    async def test_budgets_of_two_days_stand_apart(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        await store.hold(hold_request("req_1", budget_tokens=100))
        assert _grants([await store.hold(hold_request("req_2", budget_tokens=100, now=NOW + DAY_S))])
        assert (0, 100) == await store.day("p", DAY + 1)

    async def test_a_hold_that_comes_after_its_settlement_is_refused(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.settle(settlement(request))
        late = await store.hold(request)
        assert isinstance(late, ShortBudget | ShortCredits | AlreadySettled)
        late_refusal = hold_refusal(late, NOW)
        assert ErrorCode.INTERNAL_ERROR == late_refusal.code
        assert _account(1_000) == await store.account("o")
        assert (0, 0) == await store.day("p", DAY)
        assert ["refused"] == [record.ending for record in await _records(store)]

    async def test_a_hold_that_is_repeated_after_its_settlement_is_refused(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.settle(settlement(request, 40, tokens=42))
        assert not isinstance(await store.hold(request), Held)
        assert _account(960) == await store.account("o")

    async def test_a_charge_for_what_was_never_held_is_not_made(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        settled = await store.settle(settlement(hold_request("req_1"), 40, tokens=42))
        assert ("voided", 0, _account(1_000)) == (settled.hold.state, settled.hold.charged, settled.account)
        assert (0, 0) == await store.day("p", DAY)
        assert [0] == [record.microcredits for record in await _records(store)]

    # -- expire ----------------------------------------------------------------------------------------------------

    async def test_a_hold_expires_and_frees_credits_and_tokens(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        await store.hold(hold_request("req_1"))
        assert 0 == await store.expire(NOW + TTL_S - 0.001)
        assert _account(1_000, 100) == await store.account("o")
        assert 1 == await store.expire(NOW + TTL_S)
        assert _account(1_000) == await store.account("o")
        assert (0, 0) == await store.day("p", DAY)
        assert 0 == await store.expire(NOW + TTL_S)

    async def test_an_expired_request_is_lost_free_and_as_it_was_at_admission(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.expire(NOW + TTL_S)
        assert [replace(request.record, ending="lost")] == await _records(store)

    async def test_a_settlement_after_expiry_changes_nothing(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.expire(NOW + TTL_S)
        settled = await store.settle(settlement(request, 40, tokens=42))
        assert ("expired", 0, _account(1_000)) == (settled.hold.state, settled.hold.charged, settled.account)
        assert (0, 0) == await store.day("p", DAY)
        assert ["lost"] == [record.ending for record in await _records(store)]

    async def test_a_settled_hold_does_not_expire(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.settle(settlement(request, 40, tokens=42))
        assert 0 == await store.expire(NOW + 2 * TTL_S)
        assert _account(960) == await store.account("o")
        assert ["complete"] == [record.ending for record in await _records(store)]

    async def test_only_what_is_over_expires(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        for number in range(5):
            await store.hold(hold_request(f"req_{number}", now=NOW + number))
        assert 3 == await store.expire(NOW + TTL_S + 2)
        assert _account(1_000, 200) == await store.account("o")
        assert ["req_0", "req_1", "req_2"] == [record.request_id for record in await _records(store)]

    async def test_a_hold_can_take_what_has_expired(self, store: LedgerStore) -> None:
        await _grant(store, 100)
        await store.hold(hold_request("req_1"))
        assert _grants([await store.hold(hold_request("req_2", now=NOW + TTL_S))])
        assert _account(100, 100) == await store.account("o")

    # -- the log ---------------------------------------------------------------------------------------------------

    async def test_a_request_that_runs_is_not_listed(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        await store.hold(hold_request("req_1"))
        assert [] == await _records(store)

    async def test_every_field_of_a_record_comes_back(self, store: LedgerStore) -> None:
        await _grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        record = replace(
            request.record, alias="auto", resolved_alias="smart", deployment="größe", status=200,
            code=ErrorCode.PROVIDER_ERROR, input_tokens=1, output_tokens=2, cached_tokens=3, reasoning_tokens=4,
            estimated=True, attempts=5, first_text_ms=6, total_ms=7, streamed=True, ending="upstream_error",
            finish_reason="error", auto_reasons=(("código", 0.25), ("length", -1.0)),
        )  # fmt: skip
        await store.settle(Settlement(replace(record), "o", DAY, NOW, Microcredits(40), 42))
        assert [replace(record, microcredits=Microcredits(40))] == await _records(store)

    async def test_the_settled_record_says_what_was_charged(self, store: LedgerStore) -> None:
        await _grant(store, 120)
        request = hold_request("req_1")
        await store.hold(request)
        end = settlement(request, 170, tokens=170)
        settled = await store.settle(end)
        assert 120 == settled.hold.charged
        assert [120] == [record.microcredits for record in await _records(store)]

    async def test_a_refused_request_has_a_record_and_no_charge(self, store: LedgerStore) -> None:
        record = replace(hold_request("req_1").record, status=429, code=ErrorCode.BUDGET_EXCEEDED, ending="refused")
        await store.settle(Settlement(replace(record), "o", DAY, NOW))
        assert [record] == await _records(store)
        assert (0, 0) == await store.day("p", DAY)

    async def test_records_come_oldest_first_however_they_ended(self, store: LedgerStore) -> None:
        for request_id, started_at in (("req_d", 3.0), ("req_a", 2.0), ("req_c", 1.0), ("req_b", 1.0)):
            await store.settle(settlement(hold_request(request_id, now=NOW + started_at)))
        assert ["req_b", "req_c", "req_a", "req_d"] == [record.request_id for record in await _records(store)]

    async def test_records_can_be_asked_for_by_project_and_from_a_moment_on(self, store: LedgerStore) -> None:
        for number in range(6):
            project = "p" if number % 2 else "q"
            await store.settle(settlement(hold_request(f"req_{number}", project=project, now=NOW + number)))

        async def listed(project: str | None, since: float | None) -> list[str]:
            return [record.request_id[4:] for record in await _records(store, project, since)]

        assert ["1", "3", "5"] == await listed("p", None)
        assert ["4", "5"] == await listed(None, NOW + 4)
        assert ["5"] == await listed("p", NOW + 3.5)
        assert [] == await listed("x", None)

    async def test_a_long_log_is_listed_whole_and_once(self, store: LedgerStore) -> None:
        ids = [f"req_{number:03}" for number in range(45)]
        for number, request_id in enumerate(ids):
            await store.settle(settlement(hold_request(request_id, now=NOW + number // 7)))
        assert ids == [record.request_id for record in await _records(store)]
        assert ids[14:] == [record.request_id for record in await _records(store, "p", NOW + 2)]


class StoreSuite(ProjectSuite, RateSuite, LedgerSuite):
    """What a whole `Store` promises."""

    async def test_a_project_is_created_together_with_its_owners_credits(self, store: Store) -> None:
        for name in ("p", "q"):
            await store.create_project(
                name, "o", ProjectSettings(), digest=name, key_prefix="…", now=NOW, credits=Microcredits(70)
            )
        assert _account(140) == await store.account("o")

    async def test_a_project_without_credits_makes_its_owners_account(self, store: Store) -> None:
        await self._create(store)
        assert _account(0) == await store.account("o")

    async def test_a_name_that_exists_adds_no_credits(self, store: Store) -> None:
        await self._create(store)
        again = store.create_project(
            "p", "o", ProjectSettings(), digest="digest-2", key_prefix="…", now=NOW, credits=Microcredits(70)
        )
        assert ProjectExists is await _raised(again)
        assert _account(0) == await store.account("o")

    async def test_an_unknown_key_spends_nothing(self, store: Store) -> None:
        await self._create(store)
        assert await store.authenticate_and_acquire("digest-2", {"default": 1}, NOW) is None
        assert (await store.acquire("p", 1, NOW)).allowed

    async def test_a_known_key_spends_one_request_of_its_project(self, store: Store) -> None:
        project = await self._create(store)
        assert (project, True) == await self._admitted(store, "digest-1")
        assert (project, False) == await self._admitted(store, "digest-1")
        assert not (await store.acquire("p", 1, NOW)).allowed

    async def _admitted(self, store: Store, digest: str) -> tuple[Project, bool] | None:
        admitted = await store.authenticate_and_acquire(digest, {"default": 1}, NOW)
        return None if admitted is None else (admitted.project, admitted.decision.allowed)

    async def test_the_limit_is_asked_of_the_project_as_it_is_now(self, store: Store) -> None:
        await self._create(store)
        await store.set_project("p", ProjectSettings(requests_per_minute=7))
        admitted = await store.authenticate_and_acquire("digest-1", {"default": 1}, NOW)
        assert admitted is not None
        assert 7 == admitted.decision.limit

    async def test_rate_budget_and_credits_outlive_a_rotation(self, store: Store) -> None:
        await self._create(store)
        await _grant(store, 1_000)
        await store.hold(hold_request("req_1"))
        assert (await store.acquire("p", 1, NOW)).allowed
        await store.rotate_key("p", digest="digest-2", key_prefix="…", now=NOW)
        admitted = await self._admitted(store, "digest-2")
        assert admitted is not None
        assert not admitted[1]
        assert (0, 100) == await store.day("p", DAY)
        assert _account(1_000, 100) == await store.account("o")

    async def test_setting_up_again_does_nothing(self, store: Store) -> None:
        await self._create(store)
        await store.setup()
        assert ["p"] == [project.name for project in await store.projects()]
