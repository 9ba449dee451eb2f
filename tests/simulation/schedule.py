"""Schedules: what happens in a simulation, as values that a seed gives and that can be left out one by one.

A step names what it refers to (a request by its `name`, a process by its place), so that the rest means the same when
steps are removed. A request carries its own seed for what the chances of its way are: how long each call to the store
takes, and when its client reads.
"""

import random
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

__all__ = [
    "Leave",
    "Outage",
    "Post",
    "Reload",
    "Replace",
    "Rotate",
    "Schedule",
    "Script",
    "Send",
    "Step",
    "StepClock",
    "Wait",
    "random_schedule",
]

PROCESSES = 3
PROJECTS = 2
VARIANTS = 5
KEYED = (True, True), (True, False), (False, True), (False, False)
"""For each idempotency key, whether its requests go over HTTP and whether they are streams: they must be the same."""

Fault = Literal["transient", "rate_limited", "unusable", "rejected", "stall"]
Effect = Literal["before", "after", "mixed"]

WEIGHTS = {
    "send": 38.0,
    "again": 12.0,
    "leave": 9.0,
    "wait": 18.0,
    "clock": 3.0,
    "outage": 6.0,
    "replace": 5.0,
    "reload": 3.0,
    "rotate": 2.0,
    "post": 8.0,
    "scene": 1.0,
}
"""How frequent the kinds of steps are."""


@dataclass(frozen=True, slots=True)
class Script:
    """What an upstream does in one attempt. `at` is how many texts come before the fault; -1 is before it was asked."""

    texts: int = 2
    pace_s: float = 0.0
    reports: Literal["each", "end"] = "each"
    input_tokens: int = 12
    excess_tokens: int = 0
    fault: Fault | None = None
    at: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """A client sends a request; `leave_after` is how many writes it reads, None all of them."""

    name: int
    process: int = 0
    project: int = 0
    over_http: bool = True
    stream: bool = True
    key: int | None = None
    body: int = 0
    max_tokens: int = 40
    attempts: tuple[Script, ...] = ()
    leave_after: int | None = None
    old_key: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """The client of a request goes away. `native` is a host that cancels the task and knows no scopes."""

    name: int
    native: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Time goes by."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StepClock:
    """The wall clock is set, and the time that goes by is not."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Outage:
    """The store fails, for one process or for all (None): before it does what it is asked to, or after."""

    seconds: float
    effect: Effect
    process: int | None = None


@dataclass(frozen=True, slots=True)
class Replace:
    """A process dies, or (`gently`) is stopped, and another one begins in its place."""

    process: int
    gently: bool = False


@dataclass(frozen=True, slots=True)
class Reload:
    """A process takes other settings."""

    process: int
    variant: int


@dataclass(frozen=True, slots=True)
class Rotate:
    """A project gets another key."""

    project: int
    process: int = 0
    grace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Post:
    """An operator moves money: a refund is of a request's, and of half of its charge if `halves`."""

    kind: Literal["grant", "debit", "refund"]
    id: int
    amount: int = 0
    process: int = 0
    request: int = 0
    halves: bool = False


Step: TypeAlias = Send | Leave | Wait | StepClock | Outage | Replace | Reload | Rotate | Post


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps, and how the world is before the first of them."""

    steps: tuple[Step, ...]
    credits: int = 1_000_000
    variant: int = 0
    to_midnight_s: float = 60.0
    seed: int = 0

    def __str__(self) -> str:
        head = f"credits={self.credits}, variant={self.variant}, to_midnight_s={self.to_midnight_s}, seed={self.seed}"
        return "\n".join([f"Schedule({head})", *(f"  {step}" for step in self.steps)])


def random_schedule(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    chance = random.Random(seed)
    # Each schedule has its own mind: what is frequent in one is rare in another.
    weights = [weight * chance.choice((0.2, 1.0, 1.0, 4.0)) for weight in WEIGHTS.values()]
    steps = list[Step]()
    sent = list[Send]()
    posted = list[Post]()
    for _ in range(chance.randint(5, 16)):
        kind = chance.choices(tuple(WEIGHTS), weights)[0]
        steps += _scene(chance, sent) if kind == "scene" else [_step(kind, chance, sent, posted)]
    return Schedule(
        tuple(steps),
        credits=chance.choice((1_500, 4_000, 12_000, 1_000_000)),
        variant=chance.randrange(VARIANTS),
        to_midnight_s=chance.choice((0.3, 3.0, 20.0, 70.0, 4_000.0)),
        seed=seed,
    )


def _step(kind: str, chance: random.Random, sent: list[Send], posted: list[Post]) -> Step:
    process = chance.randrange(PROCESSES)
    match kind:
        case "again" if sent:
            return _again(chance, process, sent)
        case "leave" if sent:
            return Leave(chance.choice(sent[-3:]).name, native=chance.random() < 0.4)
        case "wait":
            return Wait(chance.choice((0.05, 0.3, 1.0, 3.0, 9.0, 25.0, 61.0, 130.0)))
        case "clock":
            return StepClock(chance.choice((-4_000.0, -70.0, -5.0, 5.0, 45.0, 90.0, 4_000.0)))
        case "outage":
            effect: Effect = chance.choice(("before", "after", "mixed"))
            return Outage(chance.choice((0.1, 3.0, 12.0, 12.0, 60.0)), effect, chance.choice((None, process)))
        case "replace":
            return Replace(process, gently=chance.random() < 0.25)
        case "reload":
            return Reload(process, chance.randrange(VARIANTS))
        case "rotate":
            return Rotate(chance.randrange(PROJECTS), process, chance.choice((0.0, 0.0, 2.0, 30.0)))
        case "post":
            return _post(chance, process, sent, posted)
        case _:
            return _send(chance, process, sent)


def _scene(chance: random.Random, sent: list[Send]) -> list[Step]:
    """Return steps that seldom meet by chance: an outage between two requests, a client that leaves between attempts."""
    process = chance.randrange(PROCESSES)
    first = replace(_send(chance, process, sent), leave_after=None)
    if chance.random() < 0.5:
        outage = Outage(12.0, chance.choice(("before", "after", "mixed")), chance.choice((None, process)))
        return [first, Wait(0.05), outage, Wait(13.0), _send(chance, process, sent)]
    fails = Script(texts=2, fault="transient", at=chance.choice((0, 1)))
    first = replace(first, attempts=(fails, *first.attempts[1:]))
    return [first, Wait(chance.choice((0.05, 0.2, 0.5))), Leave(first.name, native=chance.random() < 0.4)]


def _send(chance: random.Random, process: int, sent: list[Send]) -> Send:
    key = chance.randrange(len(KEYED)) if chance.random() < 0.35 else None
    over_http, stream = (chance.random() < 0.6, chance.random() < 0.6) if key is None else KEYED[key]
    one = Send(
        name=len(sent),
        process=process,
        project=chance.choices(range(PROJECTS), (3, 1))[0],
        over_http=over_http,
        stream=stream,
        key=key,
        body=int(chance.random() < 0.05),
        max_tokens=chance.choice((6, 40)) if key is None else 40,
        attempts=tuple(_script(chance) for _ in range(3)),
        leave_after=chance.choice((0, 1, 1, 2, 3)) if chance.random() < 0.2 else None,
        old_key=chance.random() < 0.1,
        seed=chance.getrandbits(32),
    )
    sent.append(one)
    return one


def _again(chance: random.Random, process: int, sent: list[Send]) -> Send:
    """Return a repeated request: same project, key and body, perhaps elsewhere."""
    keyed = [one for one in sent if one.key is not None][-2:]
    if not keyed:
        return _send(chance, process, sent)
    like = chance.choice(keyed)
    one = Send(
        name=len(sent),
        process=chance.choice((process, like.process)),
        project=like.project,
        over_http=like.over_http,
        stream=like.stream,
        key=like.key,
        body=like.body,
        max_tokens=like.max_tokens,
        attempts=tuple(_script(chance) for _ in range(3)),
        leave_after=chance.choice((1, 2)) if chance.random() < 0.15 else None,
        seed=chance.getrandbits(32),
    )
    sent.append(one)
    return one


def _script(chance: random.Random) -> Script:
    faults: tuple[Fault, ...] = ("transient", "transient", "transient", "rate_limited", "unusable", "rejected", "stall")
    return Script(
        texts=chance.choice((0, 1, 2, 4, 6)),
        pace_s=chance.choice((0.0, 0.02, 0.4, 0.4, 2.0)),
        reports=chance.choice(("each", "each", "end")),
        input_tokens=chance.choice((5, 12, 30)),
        excess_tokens=chance.choice((300, 5_000)) if chance.random() < 0.08 else 0,
        fault=chance.choice(faults) if chance.random() < 0.3 else None,
        at=chance.choice((-1, 0, 0, 1, 2)),
    )


def _post(chance: random.Random, process: int, sent: list[Send], posted: list[Post]) -> Post:
    if posted and chance.random() < 0.5:  # said again, perhaps to another process
        like = chance.choice(posted[-2:])
        return Post(like.kind, like.id, like.amount, process, like.request, like.halves)
    kinds: tuple[Literal["grant", "debit", "refund"], ...] = ("grant", "debit", "refund", "refund")
    kind = chance.choice(kinds if sent else kinds[:1])
    request = chance.choice(sent[:-1] or sent).name if sent else 0
    one = Post(kind, len(posted), chance.choice((100, 2_500)), process, request, halves=chance.random() < 0.5)
    posted.append(one)
    return one
