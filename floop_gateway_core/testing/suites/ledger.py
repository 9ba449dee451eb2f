"""The suite for a `LedgerStore`."""

from dataclasses import replace

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy.admission import (
    AlreadySettled,
    Held,
    ShortBudget,
    ShortCredits,
    hold_refusal,
)
from floop_gateway_core.policy.budget import DAY_S, seconds_to_midnight
from floop_gateway_core.stores.base import (
    LedgerStore,
    Settlement,
)
from floop_gateway_core.testing.suites.facts import (
    DAY,
    NOW,
    PROJECT,
    TTL_S,
    account,
    captured,
    grant,
    held,
    hold_request,
    records_of,
    settlement,
    together,
)
from floop_gateway_core.types import AttemptRecord, Microcredits, ProjectId, RequestId

__all__ = ["LedgerSuite"]


class LedgerSuite:
    """What `LedgerStore` promises."""

    # -- accounts --------------------------------------------------------------------------------------------------

    async def test_an_account_without_credits_is_none(self, store: LedgerStore) -> None:
        assert await store.account("o") is None

    async def test_grants_add_up(self, store: LedgerStore) -> None:
        assert account(100) == await grant(store, 100)
        assert account(150) == await grant(store, 50)
        assert account(150) == await store.account("o")

    async def test_concurrent_grants_add_up(self, store: LedgerStore) -> None:
        await together([grant(store, 7) for _ in range(30)])
        assert account(210) == await store.account("o")

    # -- hold ------------------------------------------------------------------------------------------------------

    async def test_a_hold_sets_tokens_and_credits_aside(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        assert Held(90, 100, Microcredits(100)) == await store.hold(hold_request("req_1"))
        assert account(1_000, 100) == await store.account("o")
        assert (0, 100) == await store.day(PROJECT, DAY)

    async def test_a_hold_that_is_repeated_gives_the_first_answer_and_holds_once(self, store: LedgerStore) -> None:
        await grant(store, 150)
        first = await store.hold(hold_request("req_1"))
        assert first == await store.hold(hold_request("req_1"))
        assert account(150, 100) == await store.account("o")
        assert (0, 100) == await store.day(PROJECT, DAY)

    async def test_a_near_empty_account_gets_less_output(self, store: LedgerStore) -> None:
        await grant(store, 35)
        assert Held(25, 35, Microcredits(35)) == await store.hold(hold_request("req_1"))
        assert account(35, 35) == await store.account("o")

    async def test_an_account_that_cannot_pay_for_one_token_of_output_is_refused(self, store: LedgerStore) -> None:
        await grant(store, 10)
        refused = await store.hold(hold_request("req_1"))
        assert isinstance(refused, ShortBudget | ShortCredits | AlreadySettled)
        refused_refusal = hold_refusal(refused, NOW)
        assert (ErrorCode.INSUFFICIENT_CREDITS, None) == (refused_refusal.code, refused_refusal.retry_after_s)
        assert account(10) == await store.account("o")
        assert (0, 0) == await store.day(PROJECT, DAY)

    async def test_credits_that_only_other_requests_hold_are_worth_a_retry(self, store: LedgerStore) -> None:
        await grant(store, 100)
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
        await grant(store, 1_000)
        assert Held(15, 25, Microcredits(25)) == await store.hold(hold_request("req_1", budget_tokens=25))
        assert (0, 25) == await store.day(PROJECT, DAY)

    async def test_a_budget_that_only_other_requests_hold_is_worth_a_retry(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        await store.hold(hold_request("req_1", budget_tokens=105))
        refused = await store.hold(hold_request("req_2", budget_tokens=105))
        assert isinstance(refused, ShortBudget | ShortCredits | AlreadySettled)
        refused_refusal = hold_refusal(refused, NOW)
        assert ErrorCode.BUDGET_EXCEEDED == refused_refusal.code
        assert 1 <= (refused_refusal.retry_after_s or 0) <= 10
        assert account(1_000, 100) == await store.account("o")

    async def test_a_budget_that_is_used_up_is_refused_until_midnight(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
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
        await grant(store, 100)
        assert Held(90, 100, Microcredits(100)) == await store.hold(hold_request("req_1"))

    async def test_concurrent_holds_never_set_aside_more_than_there_is(self, store: LedgerStore) -> None:
        await grant(store, 50)
        asks = [hold_request(f"req_{number:02}", fixed_tokens=9, output_tokens=1) for number in range(64)]
        answers = await together([store.hold(ask) for ask in asks])
        assert 5 == len(held(answers))
        assert account(50, 50) == await store.account("o")
        assert (0, 50) == await store.day(PROJECT, DAY)

    async def test_concurrent_holds_never_set_aside_more_than_the_budget(self, store: LedgerStore) -> None:
        await grant(store, 10_000)
        asks = [hold_request(f"req_{number:02}", output_tokens=10, budget_tokens=105) for number in range(64)]
        granted = held(await together([store.hold(ask) for ask in asks]))
        assert sum(grant.held_tokens for grant in granted) <= 105
        assert (0, sum(grant.held_tokens for grant in granted)) == await store.day(PROJECT, DAY)

    async def test_an_owners_account_pays_for_all_its_projects_and_each_has_its_budget(
        self, store: LedgerStore
    ) -> None:
        await grant(store, 1_000)
        projects = (PROJECT, ProjectId("q"))
        for number, project in enumerate(projects):
            await store.hold(hold_request(f"req_{number}", project=project, budget_tokens=100))
        assert account(1_000, 200) == await store.account("o")
        assert [(0, 100), (0, 100)] == [await store.day(project, DAY) for project in projects]

    # -- settle ----------------------------------------------------------------------------------------------------

    async def test_a_capture_charges_and_frees_the_rest(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request, 40, tokens=42))
        assert (captured(100, captured=40), account(960)) == (settled.hold, settled.account)
        assert account(960) == await store.account("o")
        assert (42, 0) == await store.day(PROJECT, DAY)

    async def test_a_void_frees_both_holds(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request))
        assert ("voided", 0) == (settled.hold.state, settled.hold.charged)
        assert account(1_000) == await store.account("o")
        assert (0, 0) == await store.day(PROJECT, DAY)

    async def test_settling_again_changes_nothing_and_tells_what_the_first_one_did(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        first = await store.settle(settlement(request, 40, tokens=42))
        assert first == await store.settle(settlement(request, 77, tokens=99))
        assert first == await store.settle(settlement(request))
        assert account(960) == await store.account("o")
        assert (42, 0) == await store.day(PROJECT, DAY)
        assert [("complete", 40)] == [(record.ending, record.microcredits) for record in await records_of(store)]

    async def test_concurrent_settlements_of_one_request_charge_it_once(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await together([store.settle(settlement(request, 40, tokens=42)) for _ in range(20)])
        assert 1 == len(set(settled))
        assert account(960) == await store.account("o")
        assert (42, 0) == await store.day(PROJECT, DAY)

    async def test_a_charge_above_the_hold_is_an_overrun(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request, 130, tokens=130))
        assert (captured(100, 100, overrun=30), account(870)) == (settled.hold, settled.account)
        assert [130] == [record.microcredits for record in await records_of(store)]

    async def test_what_the_account_cannot_pay_is_written_off_and_not_in_the_record(self, store: LedgerStore) -> None:
        await grant(store, 120)
        request = hold_request("req_1")
        await store.hold(request)
        settled = await store.settle(settlement(request, 170, tokens=170))
        assert (captured(100, 100, overrun=20, written_off=50), account(0)) == (settled.hold, settled.account)
        assert [120] == [record.microcredits for record in await records_of(store)]

    async def test_an_overrun_is_never_taken_out_of_others_holds(self, store: LedgerStore) -> None:
        await grant(store, 200)
        request, other = hold_request("req_1"), hold_request("req_2")
        await store.hold(request)
        await store.hold(other)
        settled = await store.settle(settlement(request, 170, tokens=170))
        assert (captured(100, 100, written_off=70), account(100, 100)) == (settled.hold, settled.account)
        assert account(0) == (await store.settle(settlement(other, 100, tokens=100))).account

    async def test_tokens_above_the_hold_are_written_down_and_refuse_the_next(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1", budget_tokens=100)
        await store.hold(request)
        await store.settle(settlement(request, 100, tokens=130))
        assert (130, 0) == await store.day(PROJECT, DAY)
        assert not isinstance(await store.hold(hold_request("req_2", budget_tokens=100)), Held)

    async def test_tokens_belong_to_the_day_of_admission(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        before_midnight = NOW + seconds_to_midnight(NOW) - 1
        request = hold_request("req_1", now=before_midnight)
        await store.hold(request)
        await store.settle(replace(settlement(request, 40, tokens=42), now=before_midnight + 2))
        assert [(42, 0), (0, 0)] == [await store.day(PROJECT, DAY), await store.day(PROJECT, DAY + 1)]

    async def test_budgets_of_two_days_stand_apart(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        await store.hold(hold_request("req_1", budget_tokens=100))
        assert held([await store.hold(hold_request("req_2", budget_tokens=100, now=NOW + DAY_S))])
        assert (0, 100) == await store.day(PROJECT, DAY + 1)

    async def test_a_hold_that_comes_after_its_settlement_is_refused(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.settle(settlement(request))
        late = await store.hold(request)
        assert isinstance(late, ShortBudget | ShortCredits | AlreadySettled)
        late_refusal = hold_refusal(late, NOW)
        assert ErrorCode.INTERNAL_ERROR == late_refusal.code
        assert account(1_000) == await store.account("o")
        assert (0, 0) == await store.day(PROJECT, DAY)
        assert ["refused"] == [record.ending for record in await records_of(store)]

    async def test_a_hold_that_is_repeated_after_its_settlement_is_refused(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.settle(settlement(request, 40, tokens=42))
        assert not isinstance(await store.hold(request), Held)
        assert account(960) == await store.account("o")

    async def test_a_charge_for_what_was_never_held_is_not_made(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        settled = await store.settle(settlement(hold_request("req_1"), 40, tokens=42))
        assert ("voided", 0, account(1_000)) == (settled.hold.state, settled.hold.charged, settled.account)
        assert (0, 0) == await store.day(PROJECT, DAY)
        assert [0] == [record.microcredits for record in await records_of(store)]

    # -- expire ----------------------------------------------------------------------------------------------------

    async def test_a_hold_expires_and_frees_credits_and_tokens(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        await store.hold(hold_request("req_1"))
        assert 0 == await store.expire(NOW + TTL_S - 0.001)
        assert account(1_000, 100) == await store.account("o")
        assert 1 == await store.expire(NOW + TTL_S)
        assert account(1_000) == await store.account("o")
        assert (0, 0) == await store.day(PROJECT, DAY)
        assert 0 == await store.expire(NOW + TTL_S)

    async def test_an_expired_request_is_lost_free_and_as_it_was_at_admission(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.expire(NOW + TTL_S)
        assert [replace(request.record, ending="lost", settled_at=NOW + TTL_S)] == await records_of(store)

    async def test_a_capture_after_expiry_is_charged_once_and_replaces_the_record(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.expire(NOW + TTL_S)
        for _ in range(2):
            settled = await store.settle(settlement(request, 40, tokens=42))
            assert ("captured", 40, account(960)) == (settled.hold.state, settled.hold.charged, settled.account)
        assert (42, 0) == await store.day(PROJECT, DAY)
        assert [("complete", 40)] == [(record.ending, record.microcredits) for record in await records_of(store)]

    async def test_a_capture_after_expiry_takes_only_what_is_available(self, store: LedgerStore) -> None:
        await grant(store, 100)
        request = hold_request("req_1")
        await store.hold(request)
        await store.expire(NOW + TTL_S)
        await store.hold(hold_request("req_2", output_tokens=60))
        settled = await store.settle(settlement(request, 40, tokens=42))
        assert (30, 10, account(70, 70)) == (settled.hold.charged, settled.hold.written_off, settled.account)

    async def test_a_void_after_expiry_changes_nothing(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.expire(NOW + TTL_S)
        settled = await store.settle(settlement(request))
        assert ("expired", 0, account(1_000)) == (settled.hold.state, settled.hold.charged, settled.account)
        assert ["lost"] == [record.ending for record in await records_of(store)]

    async def test_a_settled_hold_does_not_expire(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        await store.settle(settlement(request, 40, tokens=42))
        assert 0 == await store.expire(NOW + 2 * TTL_S)
        assert account(960) == await store.account("o")
        assert ["complete"] == [record.ending for record in await records_of(store)]

    async def test_only_what_is_over_expires(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        for number in range(5):
            await store.hold(hold_request(f"req_{number}", now=NOW + number))
        assert 3 == await store.expire(NOW + TTL_S + 2)
        assert account(1_000, 200) == await store.account("o")
        assert ["req_0", "req_1", "req_2"] == [record.request_id for record in await records_of(store)]

    async def test_a_hold_can_take_what_has_expired(self, store: LedgerStore) -> None:
        await grant(store, 100)
        await store.hold(hold_request("req_1"))
        assert held([await store.hold(hold_request("req_2", now=NOW + TTL_S))])
        assert account(100, 100) == await store.account("o")

    # -- the log ---------------------------------------------------------------------------------------------------

    async def test_a_request_that_runs_is_not_listed(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        await store.hold(hold_request("req_1"))
        assert [] == await records_of(store)

    async def test_every_field_of_a_record_comes_back(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        request = hold_request("req_1")
        await store.hold(request)
        record = replace(
            request.record, alias="auto", resolved_alias="smart", deployment="größe", status=200,
            code=ErrorCode.PROVIDER_ERROR, input_tokens=1, output_tokens=2, cached_tokens=3, reasoning_tokens=4,
            estimated=True, attempts=5, first_text_ms=6, total_ms=7, streamed=True, ending="upstream_error",
            finish_reason="error", auto_reasons=(("código", 0.25), ("length", -1.0)), dialect="openai", repeats=2,
            tags=(("user", "größe"), ("a", "b")), replay_of=RequestId("req_0"), settled_at=NOW + 1,
            attempt_list=(AttemptRecord("a", "transient", "status 500", 12), AttemptRecord("größe", None, None, 3)),
        )  # fmt: skip
        await store.settle(Settlement(replace(record), "o", DAY, NOW, Microcredits(40), 42))
        assert [replace(record, microcredits=Microcredits(40))] == await records_of(store)

    async def test_the_settled_record_says_what_was_charged(self, store: LedgerStore) -> None:
        await grant(store, 120)
        request = hold_request("req_1")
        await store.hold(request)
        end = settlement(request, 170, tokens=170)
        settled = await store.settle(end)
        assert 120 == settled.hold.charged
        assert [120] == [record.microcredits for record in await records_of(store)]

    async def test_a_refused_request_has_a_record_and_no_charge(self, store: LedgerStore) -> None:
        record = replace(hold_request("req_1").record, status=429, code=ErrorCode.BUDGET_EXCEEDED, ending="refused")
        await store.settle(Settlement(replace(record), "o", DAY, NOW))
        assert [record] == await records_of(store)
        assert (0, 0) == await store.day(PROJECT, DAY)

    async def test_a_record_without_a_hold_can_be_written_again(self, store: LedgerStore) -> None:
        record = replace(hold_request("req_1").record, status=429, code=ErrorCode.RATE_LIMITED, ending="refused")
        for repeats in (1, 2, 90):
            await store.log(replace(record, repeats=repeats))
        assert [replace(record, repeats=90)] == await records_of(store)

    async def test_records_come_oldest_first_however_they_ended(self, store: LedgerStore) -> None:
        for request_id, started_at in (("req_d", 3.0), ("req_a", 2.0), ("req_c", 1.0), ("req_b", 1.0)):
            await store.settle(settlement(hold_request(request_id, now=NOW + started_at)))
        assert ["req_b", "req_c", "req_a", "req_d"] == [record.request_id for record in await records_of(store)]

    async def test_records_can_be_asked_for_by_project_and_from_a_moment_on(self, store: LedgerStore) -> None:
        for number in range(6):
            project = ProjectId("prj_p" if number % 2 else "prj_q")
            await store.settle(settlement(hold_request(f"req_{number}", project=project, now=NOW + number)))

        async def listed(project: str | None, since: float | None) -> list[str]:
            return [record.request_id[4:] for record in await records_of(store, project, since)]

        assert ["1", "3", "5"] == await listed("prj_p", None)
        assert ["0", "2", "4"] == await listed("shop-prj_q", None)
        assert ["4", "5"] == await listed(None, NOW + 4)
        assert ["5"] == await listed("prj_p", NOW + 3.5)
        assert [] == await listed("x", None)

    async def test_a_long_log_is_listed_whole_and_once(self, store: LedgerStore) -> None:
        ids = [f"req_{number:03}" for number in range(45)]
        for number, request_id in enumerate(ids):
            await store.settle(settlement(hold_request(request_id, now=NOW + number // 7)))
        assert ids == [record.request_id for record in await records_of(store)]
        assert ids[14:] == [record.request_id for record in await records_of(store, "shop-p", NOW + 2)]

    async def test_pruning_deletes_old_records_and_keeps_what_is_unfinished(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        for number in range(7):
            request = hold_request(f"req_{number}", now=NOW + number)
            await store.hold(request)
            if number != 2:
                end = settlement(request, 10, tokens=10)
                await store.settle(replace(end, record=replace(end.record, settled_at=NOW + number)))
        assert [3, 2] == [await store.prune(before=NOW + 6, day=DAY, now=NOW, limit=3) for _ in range(2)]
        assert 0 == await store.prune(before=NOW + 6, day=DAY, now=NOW, limit=3)
        assert ["req_6"] == [record.request_id for record in await records_of(store)]
        assert account(940, 100) == await store.account("o")

    async def test_pruned_holds_take_no_money_with_them(self, store: LedgerStore) -> None:
        await grant(store, 1_000)
        await store.hold(hold_request("req_1"))
        await store.settle(settlement(hold_request("req_1"), 10, tokens=10))
        await store.hold(hold_request("req_2"))
        await store.prune(before=NOW - 1, day=DAY + 8, now=NOW, limit=10)
        assert account(990, 100) == await store.account("o")
        settled = await store.settle(settlement(hold_request("req_2"), 10, tokens=10))
        assert 10 == settled.hold.charged
