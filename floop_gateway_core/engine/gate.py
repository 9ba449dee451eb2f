"""Where every request enters, from HTTP or from within the process: whose key it is, and whether its rate allows it.

From here on there is one usage record, and whoever drives the run settles it, however the request ends.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import anyio

from floop_gateway_core.engine.routing import Caller, Engine, Plan
from floop_gateway_core.engine.run import Run
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.stores.base import Admitted
from floop_gateway_core.types import Endpoint, Project, RequestId, UsageRecord
from floop_gateway_core.wire import keys

__all__ = ["STORE_UNAVAILABLE", "CallerAdmitted", "Gate"]

STORE_RETRY_AFTER_S = 5
STORE_UNAVAILABLE = Refusal(
    ErrorCode.SERVICE_UNAVAILABLE,
    f"The gateway's store does not answer. Retry after {STORE_RETRY_AFTER_S} s.",
    retry_after_s=STORE_RETRY_AFTER_S,
)
UNAUTHORIZED = Refusal(ErrorCode.UNAUTHORIZED, "Send a valid key: Authorization: Bearer flp_sk_…")

Authenticate: TypeAlias = Callable[[str, float], Awaitable[Admitted | None]]
CallerAdmitted: TypeAlias = tuple[Run, RateDecision]


@dataclass(frozen=True, slots=True)
class Gate:
    """What requests need of their gateway. `authenticate` takes a key's digest and spends one of its project's rate."""

    engine: Engine
    authenticate: Authenticate
    plan_of: Callable[[Project], Plan]
    body_bytes: int
    body_s: float

    async def begin(
        self, key: str | None, endpoint: Endpoint, request_id: RequestId, now: float
    ) -> CallerAdmitted | Refusal:
        """Give the request's run, and what its rate says, which the caller has still to look at; None is no key at all."""
        admitted = await self.authenticate(keys.digest(key), now) if key else None
        if admitted is None:
            return UNAUTHORIZED
        project, decision = admitted
        record = UsageRecord(request_id, project.name, project.key_prefix, endpoint, now)
        run = Run(self.engine, Caller(project, self.plan_of(project)), record, started=anyio.current_time())
        return run, decision
