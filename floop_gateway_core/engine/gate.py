"""The entry of every request, over HTTP or in process: it authenticates the key and spends the rate."""

from dataclasses import dataclass

from floop_gateway_core.engine.closing import Asked
from floop_gateway_core.engine.routing import Caller, Runtime
from floop_gateway_core.engine.run import Run
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.types import Endpoint, RequestId
from floop_gateway_core.wire import keys

__all__ = ["UNAUTHORIZED", "UNKNOWN_PROJECT", "AsProject", "CallerAdmitted", "Gate"]

UNAUTHORIZED = Refusal(ErrorCode.UNAUTHORIZED, "Send a valid key: Authorization: Bearer flp_sk_…")
UNKNOWN_PROJECT = Refusal(ErrorCode.UNAUTHORIZED, "There is no project with the name that the host returned.")


@dataclass(frozen=True, slots=True)
class CallerAdmitted:
    """A known caller: the run that will serve its request, and the decision on its rate, which the caller must enforce.

    There is no decision for a suspended project, which spends nothing, or for a request that passes uncounted.
    """

    run: Run
    decision: RateDecision | None
    is_suspended: bool = False


@dataclass(frozen=True, slots=True)
class AsProject:
    """A caller without a key: the host's own code, or a user whom the host's login lets in, for this project."""

    name: str


@dataclass(frozen=True, slots=True)
class Gate:
    """Authenticates callers of one gateway."""

    runtime: Runtime

    async def admit_caller(
        self, caller: str | AsProject | None, endpoint: Endpoint, request_id: RequestId, now: float, dialect: str
    ) -> CallerAdmitted | None:
        """Spend one request of the project's rate. `caller` is a key, or a caller that needs no key.

        Return None if the key is missing, malformed, unknown or revoked, or the project does not exist.
        """
        stores, limits = self.runtime.stores, self.runtime.routing.rate_limits
        if isinstance(caller, AsProject):
            admitted, prefix = await stores.admit_project(caller.name, limits, now), None
        elif caller is not None and keys.well_formed(caller):
            admitted = await stores.admit_key(keys.digest(caller), limits, now)
            prefix = None if admitted is None else admitted.project.key_prefix
        else:
            return None
        if admitted is None:
            return None
        project = admitted.project
        self.runtime.note_project(project.id)
        asked = Asked(request_id, prefix, endpoint, now, dialect)
        run = Run(self.runtime, Caller(project, self.runtime.routing.plan_of(project)), asked)
        return CallerAdmitted(run, admitted.decision, project.suspension is not None)
