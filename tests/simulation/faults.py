"""Mistakes planted in the engine and the stores, to see that the auditor finds them.

Each is one that could be made: a guard left out, the wrong moment, the wrong amount. `plant` puts it in place for a block.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from floop_gateway_core.engine.answers import Answers as RunningAnswers
from floop_gateway_core.engine.attempt_runner import AttemptRunner
from floop_gateway_core.engine.closing import Closing
from floop_gateway_core.engine.routing import Runtime
from floop_gateway_core.engine.run import Run
from floop_gateway_core.policy import ledger
from floop_gateway_core.policy.ledger import Account, Capture, Hold
from floop_gateway_core.policy.rate_window import RateLimiter, Window
from floop_gateway_core.stores.base import HoldRequest, Posted, Posting, PostingRefused, Settled, Settlement
from floop_gateway_core.stores.memory import MemoryStore
from floop_gateway_core.stores.memory_answers import Answers
from floop_gateway_core.stores.memory_books import Books
from floop_gateway_core.stores.sql import answers as sqlite_answers
from floop_gateway_core.stores.sql import books as sqlite_books
from floop_gateway_core.types import Microcredits
from tests.simulation.schedule import random_schedule
from tests.simulation.world import run

__all__ = ["FAULTS", "Fault", "Found", "find"]

DAY_S = 86_400
Plant = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Fault:
    """`within` is how many schedules must be enough to find it."""

    name: str
    plant: Plant
    within: int = 400
    sqlite: bool = False


@dataclass(frozen=True)
class Found:
    """Which of the schedules found a fault, counted from 1, and the rule that was broken."""

    schedules: int
    rule: str


def find(fault: Fault, *, first_seed: int = 0) -> Found | None:
    """Return how a fault was found; None if it was not."""
    with fault.plant():
        for number in range(fault.within):
            violation = run(random_schedule(first_seed + number), sqlite=fault.sqlite).violation
            if violation is not None:
                return Found(number + 1, violation.rule)
    return None


FAULTS: list[Fault] = []


def _fault(*, within: int = 400, sqlite: bool = False) -> Callable[[Callable[[], Iterator[None]]], None]:
    def add(plant: Callable[[], Iterator[None]]) -> None:
        FAULTS.append(Fault(plant.__name__.replace("_", " ").strip(), contextmanager(plant), within, sqlite))

    return add


# -- the ledger --------------------------------------------------------------------------------------------------------


@_fault()
def a_repeated_settlement_charges_again() -> Iterator[None]:
    apply = ledger.apply

    def twice(account: Account, hold: Hold | None, command: ledger.Command) -> Any:
        if isinstance(command, Capture) and hold is not None and hold.state == "captured":
            hold = replace(hold, state="expired")
        return apply(account, hold, command)

    with patch.object(ledger, "apply", twice):
        yield


@_fault()
def an_overrun_is_paid_out_of_the_holds_of_others() -> Iterator[None]:
    capture = ledger._capture

    def greedy(account: Account, hold: Hold, amount: Microcredits) -> Any:
        after, resolved, _ = capture(account, hold, amount)
        more = Microcredits(min(resolved.written_off, after.posted))
        resolved = replace(
            resolved,
            overrun=Microcredits(resolved.overrun + more),
            written_off=Microcredits(resolved.written_off - more),
        )
        return Account(Microcredits(after.posted - more), after.held), resolved, ledger.Resolved(resolved)

    with patch.object(ledger, "_capture", greedy):
        yield


@_fault()
def what_is_captured_is_the_hold_and_not_the_usage() -> Iterator[None]:
    capture = ledger._capture
    with patch.object(
        ledger, "_capture", lambda account, hold, amount: capture(account, hold, max(amount, hold.amount))
    ):
        yield


@_fault()
def an_expired_hold_keeps_its_money() -> Iterator[None]:
    free = ledger._free

    def keep(account: Account, hold: Hold, state: Any) -> Any:
        after, freed, outcome = free(account, hold, state)
        return (account if state == "expired" else after), freed, outcome

    with patch.object(ledger, "_free", keep):
        yield


@_fault(within=1_500)
def a_capture_after_the_hold_has_expired_is_dropped() -> Iterator[None]:
    apply = ledger.apply

    def strict(account: Account, hold: Hold | None, command: ledger.Command) -> Any:
        if isinstance(command, Capture) and hold is not None and hold.state == "expired":
            return account, hold, ledger.Resolved(hold)
        return apply(account, hold, command)

    with patch.object(ledger, "apply", strict):
        yield


# -- the engine --------------------------------------------------------------------------------------------------------


@_fault()
def a_complete_answer_is_void() -> Iterator[None]:
    settle = Closing._settle

    async def void(self: Closing, charge: Microcredits | None, *values: Any) -> Any:
        return await settle(self, None if self.record.ending == "complete" else charge, *values)

    with patch.object(Closing, "_settle", void):
        yield


@_fault()
def a_disconnect_forgets_the_hold() -> Iterator[None]:
    async def forget(self: Run) -> None: ...

    with patch.object(Run, "close", forget):
        yield


@_fault()
def who_leaves_pays_nothing() -> Iterator[None]:
    close = Closing.close

    async def free(self: Closing, ending: Any, **named: Any) -> Any:
        return await close(self, ending, **named | ({"attempt": None} if ending == "client_gone" else {}))

    with patch.object(Closing, "close", free):
        yield


@_fault()
def a_refused_answer_is_charged_for_its_attempts() -> Iterator[None]:
    settle = Closing._settle

    async def charged(self: Closing, charge: Microcredits | None, *values: Any) -> Any:
        is_refused = self.record.ending == "upstream_error" and charge is None
        return await settle(self, Microcredits(7) if is_refused else charge, *values)

    with patch.object(Closing, "_settle", charged):
        yield


@_fault(within=1_500)
def an_outage_loses_the_settlement() -> Iterator[None]:
    async def lose(runtime: Runtime) -> None:
        runtime.pending_settlements.clear()

    with (
        patch("floop_gateway_core.engine.settle.retry_pending_settlements", lose),
        patch("floop_gateway_core.gateway.retry_pending_settlements", lose),
    ):
        yield


@_fault(within=1_500)
def what_is_owed_waits_for_the_end_of_the_process() -> Iterator[None]:
    async def wait(runtime: Runtime) -> None: ...

    with patch("floop_gateway_core.engine.settle.retry_pending_settlements", wait):
        yield


@_fault(within=1_500)
def who_leaves_pays_for_an_attempt_that_failed() -> Iterator[None]:
    with patch.object(AttemptRunner, "forget", lambda self: None):
        yield


@_fault(within=1_500)
def a_reload_changes_the_price_of_running_requests() -> Iterator[None]:
    close = Closing.close

    async def repriced(self: Closing, ending: Any, *, attempt: Any = None, **named: Any) -> Any:
        if attempt is not None:
            attempt.deployment = self._runtime.routing.deployments[attempt.deployment.id]
        return await close(self, ending, attempt=attempt, **named)

    with patch.object(Closing, "close", repriced):
        yield


@_fault()
def the_budget_is_released_on_the_day_of_the_end() -> Iterator[None]:
    settle = MemoryStore.settle

    async def today(self: MemoryStore, settlement: Settlement) -> Settled:
        return await settle(self, replace(settlement, day=int(settlement.now // DAY_S)))

    with patch.object(MemoryStore, "settle", today):
        yield


@_fault(within=1_500)
def the_day_is_that_of_the_first_byte() -> Iterator[None]:
    hold, settle = MemoryStore.hold, MemoryStore.settle

    async def held(self: MemoryStore, request: HoldRequest) -> Any:
        return await hold(self, replace(request, day=int(request.record.started_at // DAY_S)))

    async def settled(self: MemoryStore, settlement: Settlement) -> Any:
        return await settle(self, replace(settlement, day=int(settlement.record.started_at // DAY_S)))

    with patch.object(MemoryStore, "hold", held), patch.object(MemoryStore, "settle", settled):
        yield


# -- the stores --------------------------------------------------------------------------------------------------------


@_fault()
def living_holds_are_swept() -> Iterator[None]:
    expire = MemoryStore.expire

    async def early(self: MemoryStore, now: float) -> int:
        return await expire(self, now + 35.0)

    with patch.object(MemoryStore, "expire", early):
        yield


@_fault()
def dead_holds_are_never_swept() -> Iterator[None]:
    async def never(self: MemoryStore, now: float) -> int:
        return 0

    with patch.object(MemoryStore, "expire", never):
        yield


@_fault(within=1_500)
def a_hold_that_comes_after_its_settlement_is_placed() -> Iterator[None]:
    hold_of = MemoryStore._hold_of

    def only_open(self: MemoryStore, request_id: Any) -> Any:
        found = hold_of(self, request_id)
        return None if found is not None and found.credits.state == "voided" else found

    with patch.object(MemoryStore, "_hold_of", only_open):
        yield


@_fault()
def a_capture_has_no_entry() -> Iterator[None]:
    enter = Books.enter

    def silent(self: Books, owner: str, kind: Any, *values: Any, **named: Any) -> Any:
        return None if kind == "overrun" else enter(self, owner, kind, *values, **named)

    with patch.object(Books, "enter", silent):
        yield


@_fault()
def a_grant_is_agreed_and_not_made() -> Iterator[None]:
    post = Books.post

    def ignored(self: Books, posting: Posting) -> Posted | PostingRefused:
        before, entries = dict(self.accounts), self._entries.copy()
        answer = post(self, posting)
        if posting.kind == "grant":
            self.accounts.update(before)
            self._entries = entries
        return answer

    with patch.object(Books, "post", ignored):
        yield


@_fault(within=1_500)
def a_refund_is_made_twice() -> Iterator[None]:
    post = Books.post

    def again(self: Books, posting: Posting) -> Posted | PostingRefused:
        if posting.kind == "refund" and posting.id is not None:
            self._answers.pop((posting.owner, posting.id), None)
        return post(self, posting)

    with patch.object(Books, "post", again):
        yield


@_fault()
def a_debit_takes_what_is_held() -> Iterator[None]:
    left = Books._left

    def all_of_it(self: Books, posting: Posting, before: Account) -> Microcredits:
        return before.posted if posting.kind == "debit" else left(self, posting, before)

    with patch.object(Books, "_left", all_of_it):
        yield


# -- rate and keys -----------------------------------------------------------------------------------------------------


@_fault()
def one_is_admitted_over_the_rate() -> Iterator[None]:
    acquire = RateLimiter.acquire

    def generous(self: RateLimiter, key: str, now: float, *, limit: int | None = None, spends: bool = True) -> Any:
        return acquire(self, key, now, limit=(limit or self.limit) + 1, spends=spends)

    with patch.object(RateLimiter, "acquire", generous):
        yield


@_fault(within=1_500)
def the_window_is_a_minute_of_the_clock_and_does_not_move() -> Iterator[None]:
    acquire = Window.acquire

    def fixed(self: Window, limit: int, now_us: int, *, spends: bool = True) -> Any:
        while self._instants and self._instants[0] // self.window_us < now_us // self.window_us:
            self._instants.popleft()
        return acquire(self, limit, now_us, spends=spends)

    with patch.object(Window, "acquire", fixed):
        yield


@_fault()
def one_is_refused_below_the_rate() -> Iterator[None]:
    acquire = RateLimiter.acquire

    def mean(self: RateLimiter, key: str, now: float, *, limit: int | None = None, spends: bool = True) -> Any:
        return acquire(self, key, now, limit=(limit or self.limit) - 1, spends=spends)

    with patch.object(RateLimiter, "acquire", mean):
        yield


@_fault(within=1_500)
def a_running_answer_is_not_joined() -> Iterator[None]:
    with patch.object(RunningAnswers, "get", lambda self, project, key: None):
        yield


@_fault(within=1_500)
def a_key_is_never_free_again() -> Iterator[None]:
    settle = Answers.settle

    def keep(self: Answers, settlement: Settlement, settled: Settled) -> None:
        if settlement.answer is not None:
            settle(self, settlement, settled)

    with patch.object(Answers, "settle", keep):
        yield


@_fault()
def a_repeated_request_is_charged_again() -> Iterator[None]:
    with patch.object(Answers, "kept", lambda self, project, key, now: None):
        yield


@_fault()
def a_replay_is_another_requests_answer() -> Iterator[None]:
    kept = Answers.kept

    def mixed(self: Answers, project: Any, key: str, now: float) -> Any:
        found = kept(self, project, key, now)
        others = [one.answer for one in self._kept.values() if found and one.answer.digest != found.digest]
        if found is None or found.state != "kept":
            return found
        return replace(found, answer=next((one.answer for one in others if one.answer), found.answer))

    with patch.object(Answers, "kept", mixed):
        yield


@_fault(within=1_500)
def whoever_is_refused_frees_the_key() -> Iterator[None]:
    settle = Answers.settle

    def stays(self: Answers, settlement: Settlement, settled: Settled) -> None:
        if settlement.answer is not None or settlement.claim is None:
            return settle(self, settlement, settled)
        place = settlement.record.project_id, settlement.claim.key  # whosever it is
        with suppress(KeyError):
            del self._kept[place]
        return None

    with patch.object(Answers, "settle", stays):
        yield


@_fault(within=1_500)
def a_key_that_was_replaced_is_accepted() -> Iterator[None]:
    rotate = MemoryStore.rotate_key

    async def keep(self: MemoryStore, *values: Any, **named: Any) -> Any:
        before = dict(self._keys)
        project = await rotate(self, *values, **named)
        self._keys.update(before)
        return project

    with patch.object(MemoryStore, "rotate_key", keep):
        yield


# -- SQLite ------------------------------------------------------------------------------------------------------------


@_fault(sqlite=True, within=100)
def a_capture_is_entered_twice_in_the_file() -> Iterator[None]:
    insert = sqlite_books.insert_capture_entries

    def twice(*values: Any) -> None:
        insert(*values)
        insert(*values)

    with patch.object(sqlite_books, "insert_capture_entries", twice):
        yield


@_fault(sqlite=True, within=100)
def every_third_account_is_not_saved_in_the_file() -> Iterator[None]:
    save = sqlite_books.save_account

    def stale(connection: Any, owner: str, after: Account) -> None:
        (entries,) = connection.execute("SELECT count(*) FROM entries WHERE kind = 'capture'").fetchone()
        if entries % 3 != 2:
            save(connection, owner, after)

    with patch.object(sqlite_books, "save_account", stale):
        yield


@_fault(sqlite=True, within=200)
def a_key_is_not_claimed_in_the_file() -> Iterator[None]:
    with (
        patch.object(sqlite_answers, "kept", lambda *_: None),
        patch.object(sqlite_answers, "taken", lambda *_: None),
    ):
        yield
