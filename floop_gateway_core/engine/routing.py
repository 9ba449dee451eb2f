"""What the engine needs of its surroundings: deployments, the caller, the limits of a request, and `Engine` itself."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from floop_gateway_core.clock import Clock, system_clock
from floop_gateway_core.observability.events import Listener
from floop_gateway_core.policy.auto.classify import DEFAULT as DEFAULT_THRESHOLDS
from floop_gateway_core.policy.auto.classify import Classification, Thresholds
from floop_gateway_core.policy.breaker import CircuitBreaker
from floop_gateway_core.policy.pricing import Prices
from floop_gateway_core.policy.routes import Routes
from floop_gateway_core.providers.base import Provider, UpstreamCall
from floop_gateway_core.stores.base import LedgerStore, Settlement
from floop_gateway_core.types import Call, Message, Project

__all__ = ["Caller", "Classifier", "Deployment", "Engine", "Plan", "UpstreamLimits"]

HOLD_MARGIN_S = 2.0

Classifier = Callable[[Sequence[Message], str | None], Classification | Awaitable[Classification]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of one project, its own settings applied."""

    requests_per_minute: int = 10
    daily_tokens: int = 10_000
    input_tokens: int = 128_000
    output_tokens: int = 4_096


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is, as settled when its key was."""

    project: Project
    plan: Plan


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """The limits of one request and all its attempts. `settle_s` bounds the settlement behind `total_s`.

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
    """A provider and a model id, with what they cost and how to ask them."""

    id: str
    provider: Provider
    model: str
    prices: Prices = field(default_factory=Prices)
    vocabulary: str = "o200k"
    thinking_tokens: int | None = None
    thinking: str | None = None
    thinking_allowance_tokens: int = 0
    send_temperature: bool = True
    max_tokens_field: str = "max_completion_tokens"
    extra_body: Mapping[str, object] = field(default_factory=dict)
    first_event_s: float = 30.0
    between_events_s: float = 30.0

    def upstream_call(self, call: Call, max_tokens: int) -> UpstreamCall:
        return UpstreamCall(
            model=self.model,
            messages=call.messages,
            system=call.system,
            max_tokens=max_tokens,
            temperature=call.temperature,
            thinking_tokens=self.thinking_tokens,
            thinking=self.thinking,
            thinking_allowance_tokens=self.thinking_allowance_tokens,
            send_temperature=self.send_temperature,
            max_tokens_field=self.max_tokens_field,
            extra_body=self.extra_body,
        )


@dataclass(frozen=True, slots=True)
class Engine:
    """All that a run needs beside its call. One for a gateway; breakers live as long as it does."""

    ledger: LedgerStore
    deployments: Mapping[str, Deployment]
    routes: Routes
    breakers: Mapping[str, CircuitBreaker]
    limits: UpstreamLimits
    classifier: Classifier | None = None
    """A host's own; None for ours, which `thresholds` are for."""
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    classifier_s: float = 1.0
    clock: Clock = system_clock
    listeners: Sequence[Listener] = ()
    owed: deque[Settlement] = field(default_factory=deque)
    """Settlements that the store has not taken yet."""
