"""What happens to a request, as a closed set of events. Logging, health, hooks and metrics only listen.

    RequestStarted → Refused
                   → Admitted → (AttemptStarted → [FirstText] → AttemptEnded)* → Settled

`BreakerStateChanged`, `HedgeLost` and `PendingSettlements` may come between them, `BudgetNearlyUsed` before the end.
Every request with a usage record of its own ends with `Settled`, even if it was refused. A `Refused` without `Settled`
is a request without a record of its own: an unknown key, an unavailable store, a refusal that shares a record. No event
contains a key, a prompt, the text of an answer or an upstream's message.

A listener is a callable, plain or async. A plain one is called on the event loop and must return quickly. An async one is
awaited before the request goes on. What a listener raises is logged and ignored: listening never changes a request.

A listener with a method `upstream_headers(request_id, attempt)` may add headers to upstream requests, for a trace. One
whose `wants_content` is true has a method `content(request_id, call, answer)`, which is called before `Settled`.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeAlias

import anyio

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy.breaker import BreakerState
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.types import Call, Microcredits, RequestId, Usage, UsageRecord
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = [
    "Admitted",
    "AttemptEnded",
    "AttemptStarted",
    "BreakerStateChanged",
    "BudgetNearlyUsed",
    "FirstText",
    "GatewayEvent",
    "HedgeLost",
    "Listener",
    "Notifier",
    "PendingSettlements",
    "Refused",
    "RequestStarted",
    "Settled",
]

log = logging.getLogger("floop_gateway")

ASYNC_LISTENERS_S = 5.0
"""The maximum time that async listeners may add to a request."""


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """A known key has sent a request; `dialect` is `native` or `in_process`, `operation` is `chat` for example.

    `trace` has the client's headers `traceparent` and `tracestate`, as they came.
    """

    request_id: RequestId
    project: str
    dialect: str
    operation: str
    trace: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """Both holds are placed; `route` names the deployments in order of preference."""

    request_id: RequestId
    project: str
    route: tuple[str, ...]
    held_tokens: int = 0
    held_microcredits: Microcredits = ZERO_CREDITS


@dataclass(frozen=True, slots=True)
class Refused:
    """The request gets an error instead of an answer."""

    request_id: RequestId
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A deployment is asked; attempts of a request are numbered from 1. `model` is the provider's own name of it."""

    request_id: RequestId
    deployment: str
    number: int
    provider: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt is over. `fault` and `reason` are None unless it failed; `duration_ms` counts from its start."""

    request_id: RequestId
    deployment: str
    number: int
    outcome: Literal["succeeded", "failed", "cancelled"]
    fault: FaultKind | None
    reason: str | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class HedgeLost:
    """Another deployment answered first. `microcredits` is about what the host pays for this one, at its own rates."""

    request_id: RequestId
    deployment: str
    usage: Usage
    microcredits: Microcredits


@dataclass(frozen=True, slots=True)
class FirstText:
    """The first text of an answer has come, `after_ms` after the request."""

    request_id: RequestId
    deployment: str
    after_ms: int


@dataclass(frozen=True, slots=True)
class BreakerStateChanged:
    """A deployment's circuit breaker has opened or closed; `request_id` is the request that caused it."""

    deployment: str
    state: BreakerState
    request_id: RequestId | None = None


@dataclass(frozen=True, slots=True)
class BudgetNearlyUsed:
    """This request has taken its project past 80 % of its tokens of a UTC day, which is days since the epoch."""

    request_id: RequestId
    project: str
    day: int
    used_tokens: int
    daily_tokens: int


@dataclass(frozen=True, slots=True)
class PendingSettlements:
    """`count` settlements of this process wait for the store; that of `request_id` was just added or delivered."""

    count: int
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Settled:
    """The request is over; `record` is its line in the usage log."""

    record: UsageRecord


GatewayEvent: TypeAlias = (
    RequestStarted
    | Admitted
    | Refused
    | AttemptStarted
    | AttemptEnded
    | HedgeLost
    | FirstText
    | BreakerStateChanged
    | BudgetNearlyUsed
    | PendingSettlements
    | Settled
)
Listener: TypeAlias = Callable[[GatewayEvent], object | Awaitable[object]]
P = ParamSpec("P")


class Notifier:
    """Passes one request's events to the listeners. `flush` awaits what async listeners still have to do."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._awaited: list[Awaitable[object]] = []

    def notify(self, kind: Callable[P, GatewayEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call every listener with a new event; keep the awaitables of async ones for `flush`."""
        if not self._listeners:
            return
        event = kind(*args, **kwargs)
        for listener in self._listeners:
            try:
                result = listener(event)
            except Exception:
                log.exception("a listener failed on %s", type(event).__name__)
                continue
            if inspect.isawaitable(result):
                self._awaited.append(result)

    async def flush(self) -> None:
        """Await the async listeners, in order, for at most `ASYNC_LISTENERS_S`; cancellation waits for them."""
        if not self._awaited:
            return
        awaited, self._awaited = self._awaited, []
        with anyio.move_on_after(ASYNC_LISTENERS_S, shield=True):
            for one in awaited:
                try:
                    await one
                except Exception:
                    log.exception("an async listener failed")

    def upstream_headers(self, request_id: RequestId, attempt: int) -> tuple[tuple[str, str], ...]:
        """Return the headers that listeners add to an attempt's upstream request."""
        headers: dict[str, str] = {}
        for listener in self._listeners:
            add: Callable[[RequestId, int], Mapping[str, str]] | None = getattr(listener, "upstream_headers", None)
            if add is not None:
                try:
                    headers |= add(request_id, attempt)
                except Exception:
                    log.exception("a listener's upstream_headers failed")
        return tuple(headers.items())

    @property
    def wants_content(self) -> bool:
        """Whether a listener wants prompts and answers."""
        return any(getattr(listener, "wants_content", False) for listener in self._listeners)

    def content(self, request_id: RequestId, call: Call, answer: str) -> None:
        """Pass a prompt and its answer to the listeners that want them."""
        for listener in self._listeners:
            if getattr(listener, "wants_content", False):
                try:
                    listener.content(request_id, call, answer)  # type: ignore[attr-defined]
                except Exception:
                    log.exception("a listener's content failed")
