"""The entry of every request, over HTTP or in process: it authenticates the key and spends the rate."""

from dataclasses import dataclass

from floop_gateway_core.engine.routing import Caller, Runtime
from floop_gateway_core.engine.run import Run
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.types import Endpoint, RequestId, UsageRecord
from floop_gateway_core.wire import keys

__all__ = ["UNAUTHORIZED", "CallerAdmitted", "Gate"]

UNAUTHORIZED = Refusal(ErrorCode.UNAUTHORIZED, "Send a valid key: Authorization: Bearer flp_sk_…")


@dataclass(frozen=True, slots=True)
class CallerAdmitted:
    """A known caller: the run that will serve its request, and the decision on its rate, which the caller must enforce.

    A suspended project has no decision: it spends nothing.
    """

    run: Run
    decision: RateDecision | None


@dataclass(frozen=True, slots=True)
class Gate:
    """Authenticates callers of one gateway."""

    runtime: Runtime

    async def admit_caller(
        self, key: str | None, endpoint: Endpoint, request_id: RequestId, now: float, dialect: str
    ) -> CallerAdmitted | None:
        """Spend one request of the project's rate. Return None if the key is missing, malformed, unknown or revoked."""
        if key is None or not keys.well_formed(key):
            return None
        runtime = self.runtime
        admitted = await runtime.stores.admit_key(keys.digest(key), runtime.routing.rate_limits, now)
        if admitted is None:
            return None
        project = admitted.project
        runtime.note_project(project.id)
        record = UsageRecord(request_id, project.id, project.name, project.key_prefix, endpoint, now, dialect=dialect)
        caller = Caller(project, runtime.routing.plan_of(project))
        return CallerAdmitted(Run(runtime, caller, record), admitted.decision)
