"""What happens to a request, told as one closed set of events. Log, health, hooks and metrics only listen.

No event holds a key, a prompt, an answer's text or an upstream's words. A listener is called in the event loop and must
return at once; what it raises is logged and goes no further, for listening must never change a request.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy.breaker import BreakerState
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.types import Microcredits, RequestId, Usage, UsageRecord

__all__ = [
    "Admitted",
    "AttemptFailed",
    "AttemptStarted",
    "BreakerStateChanged",
    "FirstText",
    "GatewayEvent",
    "HedgeLost",
    "Listener",
    "Refused",
    "Settled",
    "notify",
]

log = logging.getLogger("floop_gateway")


@dataclass(frozen=True, slots=True)
class Admitted:
    request_id: RequestId
    project: str
    route: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    request_id: RequestId
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    request_id: RequestId
    deployment: str
    number: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    request_id: RequestId
    deployment: str
    fault: FaultKind
    reason: str


@dataclass(frozen=True, slots=True)
class HedgeLost:
    """Another deployment answered first. `microcredits` is about what the host bears for the question, by its own rates."""

    request_id: RequestId
    deployment: str
    usage: Usage
    microcredits: Microcredits


@dataclass(frozen=True, slots=True)
class FirstText:
    request_id: RequestId
    deployment: str
    after_ms: int


@dataclass(frozen=True, slots=True)
class BreakerStateChanged:
    deployment: str
    state: BreakerState


@dataclass(frozen=True, slots=True)
class Settled:
    """`record` is finished; it is the log's own, so a listener must not change it."""

    record: UsageRecord


GatewayEvent: TypeAlias = (
    Admitted | Refused | AttemptStarted | AttemptFailed | HedgeLost | FirstText | BreakerStateChanged | Settled
)
Listener: TypeAlias = Callable[[GatewayEvent], None]


def notify(listeners: Sequence[Listener], event: GatewayEvent) -> None:
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            log.exception("a lifecycle listener failed")
