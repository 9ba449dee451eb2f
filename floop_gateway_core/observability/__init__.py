"""What happens to a request, as events that a host can listen to."""

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
    "RequestStarted",
    "Settled",
]
