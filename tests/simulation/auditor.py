"""The auditor: books of its own, and the rules that hold after every step.

It knows what clients have seen, what upstreams have done and what operators have said, and reads facts from the store. It
shares no code with the gateway: prices, days, windows and sums are worked out here.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

from tests.simulation.client import Seen
from tests.simulation.facts import Facts, Hold, Record
from tests.simulation.lane import Attempt, Lane

__all__ = ["Auditor", "Process", "Said", "Violation"]

DAY_S = 86_400
MINUTE_S = 60.0
TOKENS_PER_TEXT = 3
ESTIMATE = 60
"""More tokens than the estimator takes the prompt, or all texts of one answer, for."""
IN_FLIGHT_S = 2.0
"""Within this time of a step of the clock, calls with the old time may still be under way."""
UNCOUNTED = frozenset({"RATE_LIMITED", "UNAUTHORIZED", "SERVICE_UNAVAILABLE"})
"""Refusals of which the client cannot know whether they have spent one of the rate."""
SIGNS = {"grant": 1, "refund": 1, "debit": -1}
NEVER_COUNTED = frozenset({"RATE_LIMITED", "UNAUTHORIZED"})
CHARGES = ("capture", "overrun")


class Violation(Exception):
    """A rule was broken; `step` is the number of the step after which it was seen."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(rule, what)
        self.rule = rule
        self.what = what
        self.step = -1

    def __str__(self) -> str:
        return f"after step {self.step}: {self.rule}: {self.what}"


@dataclass(slots=True)
class Process:
    """A process, by its number; `place` is that of the one it replaces."""

    number: int
    place: int
    variant: int
    started_at: float
    alive: bool = True
    crashed: bool = False
    stopped_at: float | None = None


class Answered(Protocol):
    """What a store says of a posting."""

    @property
    def entry(self) -> Any:
        """The entry."""


@dataclass(slots=True)
class Said:
    """What operators have said under one id: the kind, the amounts and whether the store has agreed."""

    kind: str
    request_id: str | None
    amounts: set[int] = field(default_factory=set)
    agreed: int | None = None

    def posted(self, answer: Answered) -> None:
        """Note the store's answer, which must always be the same."""
        amount = int(answer.entry.amount)
        if self.agreed not in (None, amount):
            raise Violation("a repeated posting is one", f"{self.kind} of {self.agreed} and of {amount}")
        self.agreed = amount


def _check(holds: bool, rule: str, *what: object) -> None:
    if not holds:
        raise Violation(rule, " ".join(map(str, what)))


class Auditor:
    """Call `look` after every step, and `close` after the last."""

    def __init__(self, owner: str, credits: int, *, settings: Sequence[Mapping[str, Any]], total_s: float) -> None:
        self._total_s = total_s
        self._owner = owner
        self._credits = credits
        self._settings = settings
        self.processes: list[Process] = []
        self.seen: list[Seen] = []
        self.unexpected: list[str] = []
        self._said: dict[str, Said] = {}
        self._facts = Facts({}, [], {}, {}, {})
        self._holds: dict[str, Hold] = {}
        self._records: dict[str, Record] = {}
        self._lost: set[str] = set()
        self._excused: set[str] = set()
        self._charges: dict[str, Counter[str]] = {}
        self._checked: set[int] = set()
        self._count_from = -math.inf
        self._steps: list[tuple[float, float]] = []
        self._rotations: list[tuple[str, float]] = []
        self._budget = 0

    # -- what it is told -------------------------------------------------------------------------------------------

    def said(self, id: str, kind: str, amount: int, request_id: str | None) -> Said:
        """Note that an operator is about to move money."""
        said = self._said.setdefault(id, Said(kind, request_id))
        said.amounts.add(amount)
        return said

    def clock_stepped(self, now: float, seconds: float) -> None:
        """Note a step of the wall clock. Windows do not outlive one that is longer than they are."""
        self._steps.append((now, seconds))
        if abs(seconds) >= MINUTE_S:
            self._count_from = now + IN_FLIGHT_S

    def rotates(self, project_id: str, now: float) -> None:
        """Note that an operator is about to replace a project's key."""
        self._rotations.append((project_id, now))

    def balance(self) -> str:
        """Return what is in the store, in short."""
        facts = self._facts
        states = Counter(hold.state for hold in facts.holds.values())
        return f"{dict(facts.accounts)} {dict(sorted(states.items()))} {sorted(facts.days.values())}"

    # -- the rules -------------------------------------------------------------------------------------------------

    def look(self, facts: Facts) -> None:
        """Check every rule; raise `Violation`."""
        self._facts = facts
        _check(not self.unexpected, "no unexpected error", *self.unexpected)
        self._check_money(facts)
        self._check_holds(facts)
        self._check_records(facts)
        self._check_days(facts)
        self._check_rate()
        self._check_keys(facts)
        self._check_owed(facts)
        for number, seen in enumerate(self.seen):
            if seen.over and number not in self._checked:
                self._check_client(seen, facts)
                self._checked.add(number)

    def close(self) -> None:
        """Check what must be so at the end: nothing is left, and nobody was forgotten."""
        facts = self._facts
        left = [id for id, hold in facts.holds.items() if hold.state == "open"]
        _check(not left, "no hold past its time", left)
        for seen in self.seen:
            _check(seen.over, "every request ends", seen)
            self._check_client(seen, facts)
            for id in seen.lane.holds:
                self._check_end(id, seen, facts)

    def _check_end(self, id: str, seen: Seen, facts: Facts) -> None:
        hold, record = facts.holds.get(id), facts.records.get(id)
        if hold is None:
            return  # never arrived, or refused
        if record is None:
            raise Violation("every hold has a record", f"{id} of {seen}")
        process = self.processes[seen.process]
        # What is void changes nothing when it comes after its hold has expired: its record stays `lost`.
        late = seen.lane.met_outage or id in self._excused
        could_not = process.crashed or (late and (process.stopped_at is not None or not self._owes(seen)))
        _check(could_not or record.ending != "lost", "no settlement is lost", f"{id} of {seen}")
        if seen.how in ("failed", "refused") and not seen.lane.unheard and seen.took_s < self._total_s:
            _check(record.ending != "complete", "a record says what its client has seen", seen, record)
        if not could_not:
            self._check_price_of_rest(id, seen)

    def _check_owed(self, facts: Facts) -> None:
        """What met an outage is settled with the next settlement of its process that succeeds."""
        for seen in self.seen:
            if not (seen.over and seen.lane.met_outage) or seen.step.key is not None:
                continue
            left = [id for id in seen.lane.holds if id in facts.holds and facts.holds[id].state == "open"]
            later = [
                one
                for one in self.seen
                if left
                and one.process == seen.process
                and one.how == "complete"
                and one.over
                and not (one.lane.met_outage or one.replayed or one.step.key is not None)
                and one.sent_at > seen.ended_at
            ]
            _check(
                not later, "what is owed is settled with the next settlement", seen, left, [str(one) for one in later]
            )

    def _owes(self, seen: Seen) -> bool:
        """Return whether a request is known to cost something."""
        last = seen.lane.attempts[-1] if seen.lane.attempts else None
        if seen.texts or last is None or seen.how != "left":
            return bool(seen.texts)
        hedges = any("hedge_after_s" in self._settings[int(one.model.split("@")[1])] for one in seen.lane.attempts)
        return last.sent and last.script.fault is None and not hedges

    # -- money -----------------------------------------------------------------------------------------------------

    def _check_money(self, facts: Facts) -> None:
        running: Counter[str] = Counter()
        by_kind: Counter[str] = Counter()
        ids: set[str] = set()
        charges: dict[str, Counter[str]] = defaultdict(Counter)
        refunds: Counter[str] = Counter()
        for entry in facts.entries:
            kind = entry.kind
            by_kind[kind] += abs(entry.amount)
            if kind != "written_off":
                running[entry.owner] += entry.amount
            _check(running[entry.owner] == entry.posted_after, "an entry has the balance after it", entry)
            if kind in SIGNS:
                self._check_posting(kind, entry.amount, entry.id, ids)
                if kind == "refund":
                    refunds[str(entry.request_id)] += entry.amount
            else:
                _check(kind in (*CHARGES, "written_off") and entry.amount != 0, "entries are of known kinds", entry)
                of = charges[str(entry.request_id)]
                _check(kind not in of, "a request is charged once", entry)
                of[kind] = abs(entry.amount)
        for id, said in self._said.items():
            _check(said.agreed is None or id in ids, "what was agreed is in the books", id, said)
        for request_id, amount in refunds.items():
            _check(amount <= _charged(charges.get(request_id)), "at most the charge is refunded", request_id, amount)
        self._charges = charges
        posted, held = facts.accounts.get(self._owner, (0, 0))
        spent = by_kind["capture"] + by_kind["overrun"] + by_kind["debit"]
        _check(
            posted + spent == by_kind["grant"] + by_kind["refund"],
            "posted + captured + overruns + debited = granted + refunded",
            posted, dict(by_kind),
        )  # fmt: skip
        _check(0 <= held <= posted, "available is never below zero", posted, held)

    def _check_posting(self, kind: str, amount: int, id: str | None, ids: set[str]) -> None:
        if id is None:
            _check(kind == "grant" and amount == self._credits, "nobody moves money unasked", kind, amount)
            id = "the first"
        else:
            said = self._said.get(id)
            _check(
                said is not None and said.kind == kind and abs(amount) in said.amounts,
                "nobody moves money unasked",
                kind, amount, id,
            )  # fmt: skip
            _check(amount * SIGNS[kind] > 0, "a posting moves money in its direction", kind, amount)
        _check(id not in ids, "a repeated posting is one", kind, amount, id)
        ids.add(id)

    # -- holds and records -----------------------------------------------------------------------------------------

    def _check_holds(self, facts: Facts) -> None:
        aside: Counter[str] = Counter()
        tokens: Counter[tuple[str, int]] = Counter()
        for id, hold in facts.holds.items():
            before = self._holds.get(id)
            if hold.state == "open":
                aside[str(hold.owner)] += hold.amount
                tokens[hold.day or ("", 0)] += hold.tokens or 0
                _check(before is None or before.state == "open", "a hold resolves once", id, before, hold)
            elif before is None or before.state == "open" or before != hold:
                resolves = before is None or before.state == "open"
                again = before is not None and before.state == "expired" and hold.state == "captured"
                same = before is not None and _resolution(before) == _resolution(hold)
                _check(resolves or again or same, "a hold resolves once", id, before, hold)
                self._check_resolution(id, hold)
            self._holds[id] = hold
        gone = [id for id, hold in self._holds.items() if hold.state == "open" and id not in facts.holds]
        _check(not gone, "a hold resolves once", "vanished:", gone)
        for owner, (_, held) in facts.accounts.items():
            _check(held == aside[owner], "held is the sum of open holds", owner, held, aside[owner])
        for place, (_, held) in facts.days.items():
            _check(held == tokens[place], "a day holds the tokens of its open holds", place, held, tokens[place])

    def _check_resolution(self, id: str, hold: Hold) -> None:
        of = self._charges.get(id, Counter())
        told = (hold.captured, hold.overrun, hold.written_off)
        entered = (of["capture"], of["overrun"], of["written_off"])
        _check(told == entered, "entries are of what was resolved", id, hold, dict(of))
        _check(hold.captured <= hold.amount, "no more is captured than was held", id, hold)
        _check(hold.state == "captured" or not any(told), "only a capture charges", id, hold)

    def _check_records(self, facts: Facts) -> None:
        owners = {id: seen for seen in self.seen for id in seen.lane.holds}
        for id, record in facts.records.items():
            before = self._records.get(id)
            if before is not None and before != record:
                shared = record.code == "RATE_LIMITED" and record.repeats > before.repeats
                _check(shared or before.ending == "lost", "a record settles once", id, before, record)
            hold = facts.holds.get(id)
            late = (
                hold is not None and hold.state == "captured" and hold.amount > 0 == hold.captured and record.tokens > 0
            )
            if (record.ending == "lost" or late) and id not in self._lost:
                self._lost.add(id)
                seen = owners.get(id)
                must_live = seen is not None and self.processes[seen.process].alive and not seen.lane.met_outage
                excused = seen is None or self._clock_excuses(seen.lane.holds[id].elapsed)
                _check(excused or not must_live, "a hold expires only when its process has died", id, seen)
                if excused:
                    self._excused.add(id)
            _check(
                record.microcredits == _charged(self._charges.get(id)), "a record has the charge of its entries",
                id, record, dict(self._charges.get(id, {})),
            )  # fmt: skip
            _check(hold is None or hold.state != "open", "a record is finished when its hold is", id, record)
            self._records[id] = record
        _check(self._records.keys() == facts.records.keys(), "records stay")

    def _clock_excuses(self, admitted: float) -> bool:
        """Return whether steps of the wall clock may have cost a living request its hold: three cases are known.

        A process that began after a step forward cannot know of it, nor one that was idle from before a step back until
        after one forward: to it, they are one. And a call with the time from before a step back may arrive after it, and
        takes what was held meanwhile for what is long over.
        """
        stepped_back = False
        for at, seconds in self._steps:
            began_later = any(one.started_at >= at for one in self.processes)
            if seconds > 0 and at >= admitted and (began_later or stepped_back):
                return True
            if seconds < 0 and at <= admitted <= at + IN_FLIGHT_S:
                return True
            stepped_back = stepped_back or seconds < 0
        return False

    def _check_days(self, facts: Facts) -> None:
        used: Counter[tuple[str, int]] = Counter()
        beyond = 0
        for seen in self.seen:
            for id, admitted in seen.lane.holds.items():
                hold, record = facts.holds.get(id), facts.records.get(id)
                day = seen.project_id, int(admitted.wall // DAY_S)
                if hold is not None and hold.state == "captured" and record is not None:
                    used[day] += record.tokens
                    beyond += max(0, record.tokens - admitted.granted) if id not in self._lost else record.tokens
                elif hold is not None and hold.state == "open":
                    _check(hold.day == day, "a request belongs to the day of its admission", id, hold, day)
        self._budget = max(self._budget, *(self._settings[one.variant]["tokens"] for one in self.processes))
        for place in facts.days.keys() | used.keys():
            told, held = facts.days.get(place, (0, 0))
            _check(told == used[place], "a day's tokens are those of its requests", place, told, used[place])
            _check(told + held <= self._budget + beyond, "the budget is kept", place, told, held, self._budget)

    # -- rate and keys ---------------------------------------------------------------------------------------------

    def _check_rate(self) -> None:
        admitted: dict[str, list[Seen]] = defaultdict(list)
        for seen in self.seen:
            if seen.sent_at >= self._count_from and _was_admitted(seen):
                admitted[seen.project_id].append(seen)
        for of_project in admitted.values():
            for last in of_project:
                if any(last.sent_at <= at <= last.sent_at + IN_FLIGHT_S for at, _ in self._steps):
                    continue  # it may have arrived after one with the time from after the step, for which others had left
                # A minute by the wall clock that is one by the time that has gone by, too: the clock may have stepped.
                window = [
                    one
                    for one in of_project
                    if last.sent_wall - MINUTE_S < one.sent_wall <= last.sent_wall
                    and last.sent_at - MINUTE_S < one.sent_at <= last.sent_at
                ]
                most = max(one.rpm for one in window)
                _check(len(window) <= most, "admitted <= RPM in any 60 s", len(window), most, [str(s) for s in window])

    def _check_keys(self, facts: Facts) -> None:
        served: dict[tuple[str, int], list[str]] = defaultdict(list)
        for seen in self.seen:
            if seen.step.key is None:
                continue
            for id in seen.lane.holds:
                record = facts.records.get(id)
                if record is not None and record.ending in ("complete", "upstream_error") and record.status == 200:
                    served[seen.project_id, seen.step.key].append(id)
        for key, ids in served.items():
            _check(len(ids) < 2 or not self._lost.isdisjoint(ids), "a key is answered once", key, ids)

    # -- clients ---------------------------------------------------------------------------------------------------

    def _check_client(self, seen: Seen, facts: Facts) -> None:
        too_slow = seen.took_s >= self._total_s  # a client that reads so slowly is told that it took too long
        _check(
            seen.error is None and (too_slow or seen.code != "INTERNAL_ERROR"), "no unexpected error", seen, seen.error
        )
        _check(not (seen.key_is_dead and _was_admitted(seen)), "a key that was replaced opens nothing", seen)
        process = self.processes[seen.process]
        own = [id for id in seen.lane.holds if id in facts.holds]
        if seen.how == "complete":
            self._check_complete(seen, facts)
        elif seen.how == "refused":
            self._check_refusal(seen)
            paid = {id: _charged(self._charges.get(id)) for id in own}
            # A capture that the store has made and never told of is not known to be one: the client hears 503.
            known = seen.code != "SERVICE_UNAVAILABLE" or not seen.lane.unheard
            _check(not (known and any(paid.values())), "a refusal costs nothing", seen, paid)
        goes_on = seen.step.key is not None and seen.how == "left"
        if process.alive and not seen.lane.met_outage and not goes_on:
            left = [id for id in own if facts.holds[id].state == "open"]
            _check(not left, "who has ended leaves no hold", seen, left)

    def _check_refusal(self, seen: Seen) -> None:
        """Check that what a client is told to be the reason is one."""
        if seen.code == "UNAUTHORIZED":
            rotated = any(project == seen.project_id for project, at in self._rotations if at <= seen.ended_at)
            _check(seen.key_is_dead or rotated, "a key that is valid is accepted", seen)
        elif seen.code == "RATE_LIMITED" and not self._steps:
            began = seen.sent_at - MINUTE_S
            others = [one for one in self.seen if one.project_id == seen.project_id and one is not seen]
            near = [one for one in others if began < one.sent_at <= seen.ended_at and one.code not in NEVER_COUNTED]
            _check(len(near) >= seen.rpm, "who is refused by the rate has used it up", seen, [str(one) for one in near])
        elif seen.code == "IDEMPOTENCY_IN_PROGRESS":
            same = [one for one in self.seen if one.step.key == seen.step.key and one.project_id == seen.project_id]
            others = [one for one in same if one is not seen and one.lane.holds]
            shown = seen, [str(one) for one in same]
            claimed = any(self._may_hold_key(one, seen) for one in others)
            _check(claimed, "a key is free, or has its answer, when its request has ended", *shown)
            _check(not any(_could_be_joined(one, seen) for one in others), "a running answer is joined", *shown)

    def _may_hold_key(self, other: Seen, seen: Seen) -> bool:
        """Return whether the key of a request may have been another one's when it was refused."""
        if other.lane.met_outage or self.processes[other.process].crashed or self._steps:
            return True  # it may still be claimed, until the hold expires
        return not other.over or other.ended_at >= seen.sent_at or other.how == "left"

    def _check_complete(self, seen: Seen, facts: Facts) -> None:
        id = str(seen.request_id)
        record = facts.records.get(id)
        if record is None:
            raise Violation("an answer has a record when its usage has left", str(seen))
        lane = seen.lane
        if record.replay_of is not None:
            _check(record.ending == "replayed" and record.microcredits == 0, "a replay is free", seen, record)
            _check(id not in facts.holds or facts.holds[id].amount == 0, "a replay is free", seen)
            id = record.replay_of
            lane = next((one.lane for one in self.seen if id in one.lane.holds), lane)
        else:
            _check(not seen.replayed, "a replay says whose answer it is", seen, record)
            _check(record.ending == "complete", "an answer is complete when its usage has left", seen, record)
        of = self._charges.get(id, Counter())
        _check(_charged(of) == seen.charged, "an answer is charged once, as it says", seen, dict(of))
        hold = facts.holds.get(id)
        _check(hold is not None and hold.state == "captured", "an answer is charged once, as it says", seen, hold)
        self._check_price(seen, lane, _charged(of) + of["written_off"])

    def _check_price(self, seen: Seen, lane: Lane, cost: int) -> None:
        """Compare an answer, its usage and its price with what upstreams have done."""
        text = "".join(seen.texts)
        for number, attempt in enumerate(lane.attempts):
            usage = attempt.script.input_tokens, attempt.tokens
            if attempt.finished and usage == seen.tokens and text == _text(lane, number, attempt):
                _check(cost == self._price(attempt.model, *usage), "a charge is the price of the usage", seen, cost)
                return
        cut = any(attempt.script.excess_tokens and not attempt.finished for attempt in lane.attempts)
        _check(cut, "an answer is that of an upstream", seen, lane.attempts)

    def _check_price_of_rest(self, id: str, seen: Seen) -> None:
        """Bound the charge of what was cut short by what came and what was produced."""
        of = self._charges.get(id, Counter())
        cost = _charged(of) + of["written_off"]
        attempts = seen.lane.attempts
        if seen.how == "failed" and seen.charged is not None:
            _check(cost == seen.charged or _charged(of) == seen.charged, "an answer is charged as it says", seen, cost)
        if seen.how in ("failed", "left") and seen.step.stream:
            served = [one for number, one in enumerate(attempts) if seen.texts and _began(seen, number)]
            for one in served:
                if one.script.reports == "each" and one.script.pace_s is not None:
                    least = self._price(one.model, one.script.input_tokens, TOKENS_PER_TEXT * len(seen.texts))
                    _check(cost >= least, "what has left is charged", seen, cost, least)
        if seen.how == "complete" or not of:
            return
        nothing_left = not seen.step.stream and seen.step.key is None
        _check(
            not (nothing_left and all(one.failed for one in attempts)),
            "a failed attempt that nobody saw is free",
            seen,
            cost,
        )
        most = max((self._most(one) for one in attempts if one.sent), default=0)
        _check(cost <= most, "no more is charged than was produced", seen, cost, most)

    def _most(self, attempt: Attempt) -> int:
        script = attempt.script
        exact = script.reports == "each" and attempt.texts
        tokens = attempt.tokens if exact else max(attempt.tokens, ESTIMATE)
        return self._price(attempt.model, script.input_tokens if exact else max(script.input_tokens, ESTIMATE), tokens)

    def _price(self, model: str, input_tokens: int, output_tokens: int) -> int:
        name, variant = model.split("@")
        of_input, of_output = self._settings[int(variant)]["prices"][name]
        return math.ceil(Fraction(of_input) * input_tokens + Fraction(of_output) * output_tokens)


def _charged(of: Mapping[str, int] | None) -> int:
    return 0 if of is None else sum(of.get(kind, 0) for kind in CHARGES)


def _resolution(hold: Hold) -> tuple[object, ...]:
    return hold.state, hold.captured, hold.overrun, hold.written_off


def _text(lane: Lane, number: int, attempt: Attempt) -> str:
    return "".join(f"{lane.name}.{number}.{text} " for text in range(1, attempt.texts + 1))


def _began(seen: Seen, number: int) -> bool:
    return seen.texts[0].startswith(f"{seen.lane.name}.{number}.")


def _could_be_joined(other: Seen, seen: Seen) -> bool:
    """Return whether a request runs in the same process, from before another one came until after it was refused."""
    if other.process != seen.process or other.how == "left":
        return False
    began = min(admission.elapsed for admission in other.lane.holds.values())
    return began < seen.sent_at and (not other.over or other.ended_at > seen.ended_at)


def _was_admitted(seen: Seen) -> bool:
    if seen.lane.holds or seen.texts:
        return True
    return seen.how == "refused" and seen.code not in UNCOUNTED
