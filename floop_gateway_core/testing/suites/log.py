"""The suite for the usage log of a whole store: pages, filters and sums."""

from collections.abc import Sequence
from dataclasses import astuple, replace

from floop_gateway_core.policy.summary import DAY_S, HOUR_S, SummaryRow, group_of, grouped, sums_of
from floop_gateway_core.stores.base import Store
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, hold_request, project, settlement
from floop_gateway_core.types import Microcredits, ProjectId, RequestId, UsageFilter, UsageRecord

__all__ = ["LogSuite"]

EVERYTHING = UsageFilter()
HOUR = NOW - NOW % HOUR_S
LATER = NOW + 100 * HOUR_S


def sums(records: Sequence[UsageRecord], span: int = HOUR_S) -> list[object]:
    """Return what the summary of these records must be."""
    rows = []
    for record in records:
        rows.append(SummaryRow(group_of(record, span)))
        rows[-1].add(record)
    return flat(rows)


def flat(rows: Sequence[SummaryRow]) -> list[object]:
    """Return the sums of rows by their groups, without groups that have gone back to 0."""
    return [astuple(row) for row in grouped(list(rows), lambda group: group) if row.requests]


def in_days(row: SummaryRow) -> SummaryRow:
    """Return a row of an hour as one of its day."""
    project_id, project, start, *rest = row.keys
    row.keys = (project_id, project, int(str(start)) // DAY_S * DAY_S, *rest)
    return row


class LogSuite:
    """What a whole store promises of its usage log."""

    async def _log(self, store: Store) -> list[UsageRecord]:
        records = []
        for number, changes in enumerate(
            [
                {"alias": "fast", "deployment": "mini", "status": 200},
                {"alias": "smart", "deployment": "big", "status": 502, "code": "PROVIDER_ERROR"},
                {"project_id": ProjectId("q"), "status": 200, "tags": (("user", "ann"), ("team", "x"))},
                {"status": 200, "dialect": "openai", "tags": (("user", "bob"),)},
            ]
        ):
            record = hold_request(f"req_{number}", now=NOW + number).record
            record = replace(record, ending="complete", settled_at=NOW + 10 - number, **changes)  # type: ignore[arg-type]
            await store.log(record)
            records.append(record)
        return records

    async def test_pages_of_the_log_go_by_settlement(self, store: Store) -> None:
        records = await self._log(store)
        page = await store.usage_page(EVERYTHING, after=None, newest_first=True, limit=3)
        assert records[:3] == page
        last = page[-1].settled_at or 0.0, page[-1].request_id
        assert records[3:] == await store.usage_page(EVERYTHING, after=last, newest_first=True, limit=3)
        assert records[::-1] == await store.usage_page(EVERYTHING, after=None, newest_first=False, limit=9)

    async def test_the_log_is_filtered(self, store: Store) -> None:
        records = await self._log(store)
        for wanted, numbers in (
            (UsageFilter(projects=frozenset({ProjectId("q")})), [2]),
            (UsageFilter(projects=frozenset()), []),
            (UsageFilter(since=NOW + 1, until=NOW + 3), [1, 2]),
            (UsageFilter(status=200, alias="fast"), [0]),
            (UsageFilter(code="PROVIDER_ERROR"), [1]),
            (UsageFilter(deployment="big"), [1]),
            (UsageFilter(dialect="openai"), [3]),
            (UsageFilter(tag=("user", None)), [2, 3]),
            (UsageFilter(tag=("user", "bob")), [3]),
            (UsageFilter(tag=("team", "ann")), []),
        ):
            found = await store.usage_page(wanted, after=None, newest_first=True, limit=9)
            assert found == [records[number] for number in numbers], wanted

    async def test_a_finished_record_is_found_by_its_id(self, store: Store) -> None:
        (first, *_) = await self._log(store)
        assert first == await store.record(RequestId("req_0"))
        assert await store.record(RequestId("req_9")) is None

    async def test_a_record_without_a_key_keeps_none(self, store: Store) -> None:
        record = replace(hold_request("req_0").record, key_prefix=None, ending="refused", settled_at=NOW)
        await store.log(record)
        assert record == await store.record(RequestId("req_0"))

    async def _busy_log(self, store: Store) -> list[UsageRecord]:
        """Fill two days and a half with records whose sums differ by group."""
        records = []
        for number in range(60):
            at = HOUR + number * 3600.0 + 1
            record = replace(
                hold_request(f"req_{number}", project=ProjectId("pq"[number % 2]), now=at).record,
                ending="complete", settled_at=at + 2, alias=("fast", "smart", None)[number % 3],
                deployment=("mini", None)[number % 4 // 3], status=(200, 200, 502, 429)[number % 4],
                input_tokens=number, output_tokens=2 * number, microcredits=Microcredits(3 * number), total_ms=10 * number,
                first_text_ms=number if number % 2 else None, repeats=1 + number % 5 // 4,
                tags=(("user", "ann"),) if number % 7 == 0 else (),
            )  # fmt: skip
            await store.log(record)
            records.append(record)
        return records

    async def test_a_summary_is_the_sum_of_the_records_before_and_after_they_are_rolled_up(self, store: Store) -> None:
        records = await self._busy_log(store)
        filters = (
            EVERYTHING,
            UsageFilter(projects=frozenset({ProjectId("q")})),
            UsageFilter(projects=frozenset()),
            UsageFilter(since=HOUR - HOUR % DAY_S + DAY_S, until=HOUR - HOUR % DAY_S + 2 * DAY_S),
            UsageFilter(since=HOUR + HOUR_S, until=HOUR + 2 * HOUR_S),
            UsageFilter(since=HOUR + 100, until=HOUR + 2000),
            UsageFilter(since=HOUR + 2 * HOUR_S),
            UsageFilter(since=HOUR + 2.5 * HOUR_S, until=HOUR + 50.5 * HOUR_S),
            UsageFilter(since=HOUR + 20 * HOUR_S, until=HOUR + 28 * HOUR_S, status=200),
            UsageFilter(until=HOUR + 1),
            UsageFilter(alias="fast"),
            UsageFilter(deployment="mini", status=502),
            UsageFilter(tag=("user", None)),
        )
        for _ in range(4):  # nothing is rolled up, then a part, then all
            for wanted in filters:
                found = [one for one in records if wanted.matches(one)]
                assert sums(found) == flat(await store.summary(wanted, HOUR_S)), wanted
                days = await store.summary(wanted, DAY_S)
                assert sums(found, DAY_S) == flat([in_days(row) for row in days]), wanted
                for by in (("alias",), ("status", "project")):
                    expected = flat(sums_of(found, DAY_S, by))
                    assert expected == flat(await store.summary(wanted, DAY_S, by)), (wanted, by)
            await store.roll_up(LATER, limit=25)

    async def test_what_may_still_change_is_not_rolled_up(self, store: Store) -> None:
        record = replace(hold_request("req_0").record, ending="refused", settled_at=NOW, status=429)
        await store.log(record)
        assert await store.roll_up(NOW + 60, limit=10) == 0
        await store.log(replace(record, repeats=7))
        await store.roll_up(LATER, limit=10)
        assert [row.requests for row in await store.summary(EVERYTHING, HOUR_S)] == [7]
        await store.log(replace(record, repeats=9))  # later than expected
        await store.roll_up(2 * LATER, limit=10)
        assert [row.requests for row in await store.summary(EVERYTHING, HOUR_S)] == [9]

    async def test_a_charge_that_comes_late_replaces_the_lost_record_in_the_sums(self, store: Store) -> None:
        await store.create_project(project(), digest="digest-1")
        request = hold_request("req_0", now=NOW)
        await store.grant_credits("o", Microcredits(1_000), NOW)
        await store.hold(request)
        await store.expire(request.expires_at + 1)
        await store.roll_up(LATER, limit=10)
        late = settlement(request, 40, tokens=40)
        await store.settle(replace(late, record=replace(late.record, settled_at=LATER)))
        for _ in range(2):
            record = await store.record(RequestId("req_0"))
            assert record is not None
            assert record.ending == "complete"
            assert sums([record]) == flat(await store.summary(EVERYTHING, HOUR_S))
            await store.roll_up(2 * LATER, limit=10)

    async def test_erasing_a_project_takes_its_name_out_of_the_sums(self, store: Store) -> None:
        await store.create_project(project(), digest="digest-1")
        await store.log(replace(hold_request("req_0").record, ending="complete", settled_at=NOW))
        await store.roll_up(LATER, limit=10)
        await store.delete_project(PROJECT, now=NOW, erase=True)
        assert [row.keys[:2] for row in await store.summary(EVERYTHING, HOUR_S)] == [(PROJECT, PROJECT)]
