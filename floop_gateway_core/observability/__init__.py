"""What happens to a request, as events that a host can listen to; and the id of the request that code runs for."""

from floop_gateway_core.observability.events import (
    Admitted,
    AttemptEnded,
    AttemptStarted,
    BreakerStateChanged,
    BudgetNearlyUsed,
    FirstText,
    GatewayEvent,
    HedgeLost,
    Listener,
    PendingSettlements,
    Refused,
    RequestStarted,
    Settled,
)
from floop_gateway_core.observability.request_id import RequestIdFilter, request_id

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
    "PendingSettlements",
    "Refused",
    "RequestIdFilter",
    "RequestStarted",
    "Settled",
    "request_id",
]
