"""The configuration that a request is served by (`RoutingTable`), and what outlives every request (`Runtime`)."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Protocol

from floop_gateway_core.clock import Clock, system_clock
from floop_gateway_core.concurrency.detached import DetachedTasks
from floop_gateway_core.engine.answers import Answers
from floop_gateway_core.engine.host_checks import BeforeCall
from floop_gateway_core.engine.refusal_log import RefusalLog
from floop_gateway_core.errors import FieldError
from floop_gateway_core.observability.events import Listener
from floop_gateway_core.policy.auto.classify import DEFAULT as DEFAULT_THRESHOLDS
from floop_gateway_core.policy.auto.classify import Classification, Thresholds
from floop_gateway_core.policy.breaker import BreakerState, CircuitBreaker
from floop_gateway_core.policy.pricing import Prices
from floop_gateway_core.policy.routes import AUTO, Routes
from floop_gateway_core.policy.schemas import SchemaRules, schema_fault
from floop_gateway_core.policy.step_guard import StepGuard
from floop_gateway_core.providers.base import Provider, UpstreamCall
from floop_gateway_core.providers.thinking import ANY_THINKING, NO_THINKING, Thinking, ThinkingRange
from floop_gateway_core.stores.base import Settlement, StoreUnavailable
from floop_gateway_core.stores.spool import SettlementSpool
from floop_gateway_core.stores.stores import Stores
from floop_gateway_core.types import Call, Capability, Message, Project, ProjectId, RequestId, Usage, Wish

__all__ = ["Caller", "Classifier", "Deployment", "Plan", "RoutingTable", "Runtime", "UpstreamLimits"]

LAST_TRANSITIONS = 50
LAST_ANSWERS = 20
"""Enough for a mean, few enough to follow a change of model."""
ROLL_UP_EVERY_S = 5.0
ROLL_UP_AGAIN_S = 0.2
"""The interval after a full step, when more records are waiting."""
ROLL_UP_RECORDS = 200
"""Records added to the sums in one step, which costs the request that does it a few milliseconds."""
PRUNE_EVERY_S = 60.0
PRUNE_RECORDS = 200
"""Records deleted per minute and process: more than most logs grow by, yet little work for one request."""
REPORT_EVERY_S = 60.0
"""An operator needs one line, not one for each request."""
HOLD_MARGIN_S = 2.0
"""Allows for delays that no limit covers: worker threads, and scheduling on a busy machine."""

Classifier = Callable[[Sequence[Message], str | None], Classification | Awaitable[Classification]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of one project, its own settings applied."""

    requests_per_minute: int = 10
    daily_tokens: int = 10_000
    input_tokens: int = 128_000
    output_tokens: int = 4_096
    concurrency: int = 50
    models: tuple[str, ...] | None = None
    """The aliases and deployments that may be named; None is all."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller: its project and its limits."""

    project: Project
    plan: Plan


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """The limits of one request and all its attempts. `settle_s` bounds the settlement after `total_s`.

    `heartbeat_s` and `hedge_after_s` of 0 turn heartbeats and hedging off.
    """

    attempts: int = 3
    total_s: float = 300.0
    heartbeat_s: float = 0.0
    hedge_after_s: float = 0.0
    settle_s: float = 8.0

    @property
    def hold_s(self) -> float:
        """The time to live of a hold: longer than any request lives, its settlement included."""
        return self.total_s + self.settle_s + HOLD_MARGIN_S


@dataclass(frozen=True, slots=True)
class Deployment:
    """A provider and a model, with its prices and time-outs."""

    id: str
    provider: Provider
    model: str
    prices: Prices = field(default_factory=Prices)
    vocabulary: str = "o200k"
    first_event_s: float = 30.0
    between_events_s: float = 30.0
    capabilities: frozenset[Capability] = frozenset()
    grants: frozenset[Wish] = frozenset()
    temperature_max: float = 2.0
    """The highest temperature that is sent as it is; less than 0 if none is sent."""
    provider_name: str = ""
    schema_rules: SchemaRules | None = None
    """What its vendor is known to refuse in the schema of an answer."""
    thinking_range: ThinkingRange = ANY_THINKING
    own_thinking: Thinking = NO_THINKING
    """How much the model thinks unless a call says otherwise."""

    def thinking_allowance(self, call: Call) -> int:
        """Return the tokens that a call may spend on thinking here."""
        return self.thinking_range.of(self.own_thinking, call.shape).allowance_tokens

    def ignored(self, call: Call) -> tuple[str, ...]:
        """Return the members of a call that this deployment has no use for."""
        wishes = call.shape.wishes
        return tuple(dict.fromkeys(name for wish, name in wishes if not self._grants(wish, call))) if wishes else ()

    def _grants(self, wish: Wish, call: Call) -> bool:
        if wish == "temperature":
            return call.temperature is None or call.temperature <= self.temperature_max
        return wish in self.grants

    def lacks(self, call: Call) -> FieldError | None:
        """Return the field that asks for what this deployment cannot do, or None."""
        for need, path in call.shape.needs:
            if need not in self.capabilities:
                return FieldError(path, "is not supported by the models of this route")
        wanted, rules = call.shape.response_format, self.schema_rules
        if rules is None or wanted is None or wanted.schema is None or (rules.strict_only and not wanted.strict):
            return None
        fault = schema_fault(wanted.schema, rules)
        return None if fault is None else FieldError(wanted.path + fault.path, fault.message)

    def upstream_call(self, call: Call, max_tokens: int, headers: tuple[tuple[str, str], ...] = ()) -> UpstreamCall:
        """Return the request that this deployment's provider is to send."""
        return UpstreamCall(
            model=self.model,
            messages=call.messages,
            system=call.system,
            max_tokens=max_tokens,
            temperature=call.temperature,
            sampling=call.sampling,
            shape=call.shape,
            headers=headers,
        )


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """The configuration as one value, which a reload replaces whole. A request keeps the one that it began with.

    `plans` has a plan for each name, `default` among them. `classifier` is the host's own, or None for the built-in
    one, to which `thresholds` apply.
    """

    deployments: Mapping[str, Deployment]
    routes: Routes
    limits: UpstreamLimits = field(default_factory=UpstreamLimits)
    plans: Mapping[str, Plan] = field(default_factory=lambda: {"default": Plan()})
    classifier: Classifier | None = None
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    classifier_s: float = 1.0
    body_bytes: int = 8_388_608
    body_s: float = 30.0
    retention_s: float = 400 * 86_400.0
    entries_s: float = 0.0
    """How long entries of accounts are kept; 0 is for ever."""
    model_names: Sequence[tuple[str, str]] = ()
    """Patterns of other names for models, with `*`, and the aliases or deployments that they mean."""
    rate_limits: Mapping[str, int] = field(init=False)
    """Requests per minute by plan, as stores take them."""

    def __post_init__(self) -> None:
        limits = {name: plan.requests_per_minute for name, plan in self.plans.items()}
        object.__setattr__(self, "rate_limits", limits)

    def mapped(self, model: str) -> str | None:
        """Resolve a name that is neither an alias nor a deployment; the longest matching pattern wins."""
        if self.routes.knows(model):
            return None
        found = [pattern for pattern, _ in self.model_names if fnmatchcase(model, _literal(pattern))]
        return dict(self.model_names)[max(found, key=len)] if found else None

    def names_for(self, plan: "Plan") -> Sequence[str]:
        """Return the aliases, deployments and mapped names that a plan's projects may ask for."""
        ours = (AUTO, *self.routes.table, *self.routes.deployments)
        allowed = ours if plan.models is None else tuple(name for name in ours if name in plan.models)
        return (*allowed, *(name for name, target in self.model_names if "*" not in name and target in allowed))

    def plan_of(self, project: Project) -> Plan:
        """Return a project's limits: those of its plan, overridden by its own settings."""
        own = project.settings
        plan = self.plans.get(own.plan) or self.plans["default"]
        if own.requests_per_minute is None and own.daily_tokens is None:
            return plan
        return replace(
            plan,
            requests_per_minute=own.requests_per_minute or plan.requests_per_minute,
            daily_tokens=own.daily_tokens or plan.daily_tokens,
        )


def _literal(pattern: str) -> str:
    """Return a pattern in which only `*` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


class Stoppable(Protocol):
    """An answer that can be ended by the server."""

    def stop(self) -> None:
        """End it soon, in its own task."""


@dataclass(slots=True, eq=False)
class Runtime:
    """What lives as long as the gateway: stores, breakers, settlements that are still pending, listeners, the clocks.

    `clock` is wall time, which processes share; `monotonic` measures the breakers, which event loops share.
    """

    routing: RoutingTable
    stores: Stores
    breakers: Mapping[str, CircuitBreaker]
    clock: Clock = system_clock
    monotonic: Clock = time.monotonic
    listeners: Sequence[Listener] = ()
    pending_settlements: deque[Settlement] = field(default_factory=deque)
    before_call: BeforeCall | None = None
    """The host's check of each call."""
    spool: SettlementSpool | None = None
    """Where settlements wait while the store is down."""
    spooled: int = 0
    """How many settlements this process has written there and not delivered yet."""
    delivers: bool = False
    """Whether the spool is being delivered."""
    retries_until: float = 0.0
    """Until when what waits for the store is retried in the background, on `monotonic`."""
    tried_settlements: set[RequestId] = field(default_factory=set)
    """The pending settlement that is being retried."""
    runs: "set[Stoppable]" = field(default_factory=set)
    """The answers that are under way."""
    open_requests: Counter[ProjectId] = field(default_factory=Counter)
    """How many requests of each project are open in this process."""
    projects_seen: set[ProjectId] = field(default_factory=set)
    """The first projects that this process has served; see `has_several_projects`."""
    transitions: dict[str, deque[tuple[float, BreakerState]]] = field(default_factory=dict)
    """The last changes of each deployment's breaker, with their wall time."""
    tested_at: dict[str, float] = field(default_factory=dict)
    """When an operator last tested each deployment, on the clock of `time.monotonic`."""
    reported_at: dict[str, float] = field(default_factory=dict)
    """When an error of each deployment was last logged."""
    _guard: StepGuard = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False)
    reasoning: dict[str, deque[int]] = field(default_factory=dict)
    """The reasoning tokens of each deployment's last complete answers."""
    refusals: RefusalLog = field(default_factory=RefusalLog)
    tasks: DetachedTasks = field(default_factory=DetachedTasks)
    """Work that continues after clients have left: answers with an idempotency key, reports of hidden thinking."""
    answers: Answers = field(init=False)
    pruned_at: float = field(init=False)
    roll_up_at: float = field(init=False)
    stopping: bool = False
    """Whether new requests are refused, because the server stops."""

    def __post_init__(self) -> None:
        self._guard = StepGuard(self.routing.limits.hold_s)
        self._lock = threading.Lock()
        self.answers = Answers(self.tasks)
        self.pruned_at = self.monotonic()
        self.roll_up_at = self.pruned_at + ROLL_UP_EVERY_S
        self.time_for_expiry()

    @property
    def has_several_projects(self) -> bool:
        """Return whether requests of at least two projects have come."""
        return len(self.projects_seen) > 1

    def time_for_expiry(self) -> float:
        """Return the time up to which holds may expire: wall time, corrected for recent clock steps."""
        with self._lock:
            return self._guard.time_for_expiry(self.clock(), self.monotonic())

    async def keep_house(self) -> None:
        """Run periodic maintenance: write refusal counts, roll up records, delete a few old ones."""
        await self.flush_refusals()
        if self.monotonic() >= self.roll_up_at:
            self.roll_up_at = self.monotonic() + ROLL_UP_EVERY_S
            with suppress(StoreUnavailable):
                if await self.stores.ledger.roll_up(self.clock(), limit=ROLL_UP_RECORDS) == ROLL_UP_RECORDS:
                    self.roll_up_at = self.monotonic() + ROLL_UP_AGAIN_S
        if self.monotonic() - self.pruned_at >= PRUNE_EVERY_S:
            self.pruned_at = self.monotonic()
            with suppress(StoreUnavailable):
                kept = self.routing
                await self.stores.prune(
                    self.clock(), retention_s=kept.retention_s, entries_s=kept.entries_s, limit=PRUNE_RECORDS
                )

    async def flush_refusals(self, *, every: bool = False) -> None:
        """Write what the log of refusals has counted; a store that does not answer is asked again later."""
        with suppress(StoreUnavailable):
            await self.refusals.flush(self.stores.ledger, now=self.clock(), monotonic=self.monotonic(), every=every)

    def note_reasoning(self, deployment: Deployment, usage: Usage) -> None:
        """Note the reasoning tokens of a complete answer; they are used to estimate those of interrupted answers."""
        if deployment.own_thinking.allowance_tokens:
            self.reasoning.setdefault(deployment.id, deque(maxlen=LAST_ANSWERS)).append(usage.reasoning_tokens)

    def expected_reasoning(self, deployment: Deployment, allowance: int) -> int:
        """Return the thinking tokens to expect of a call: the mean of the last answers, or half its allowance."""
        seen = self.reasoning.get(deployment.id)
        return min(allowance, round(sum(seen) / len(seen)) if seen else allowance // 2)

    def note_transition(self, deployment: str, state: BreakerState) -> None:
        """Note a change of a breaker."""
        kept = self.transitions.setdefault(deployment, deque(maxlen=LAST_TRANSITIONS))
        kept.append((self.clock(), state))

    def may_report(self, deployment: str) -> bool:
        """Return whether to log an error of this deployment: once a minute."""
        now = self.monotonic()
        if now - self.reported_at.get(deployment, -math.inf) < REPORT_EVERY_S:
            return False
        self.reported_at[deployment] = now
        return True

    def note_project(self, id: ProjectId) -> None:
        """Note that a request of this project has come."""
        if len(self.projects_seen) < 2:
            self.projects_seen.add(id)
