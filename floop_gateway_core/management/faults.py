"""Maps exceptions raised by the administration to refusals from the error catalogue, with their HTTP status."""

import logging

from pydantic import ValidationError

from floop_gateway_core.clock import new_request_id, system_clock
from floop_gateway_core.errors import (
    AdminError,
    Conflict,
    ErrorCode,
    FieldError,
    Forbidden,
    NoSuchAccount,
    NoSuchProject,
    NoSuchRequest,
    ProjectExists,
    Refusal,
    StoreUnavailable,
)
from floop_gateway_core.management.health import NoSuchDeployment, TestedTooSoon

__all__ = ["Refused", "refused"]

log = logging.getLogger("floop_gateway")

NOT_FOUND = (NoSuchProject, NoSuchAccount, NoSuchRequest, NoSuchDeployment)


class Refused(Exception):
    """A refusal, raised; `status` is the refusal's own unless another one fits HTTP better."""

    def __init__(self, refusal: Refusal, status: int | None = None) -> None:
        super().__init__(refusal)
        self.refusal = refusal
        self.status = status or refusal.status


def refused(error: Exception) -> Refused:
    """Return what an exception means to the caller."""
    match error:
        case Refused():
            return error
        case ValidationError():
            fields = tuple(
                FieldError(_path(one["loc"]), one["msg"].removeprefix("Value error, "))
                for one in error.errors(include_url=False)
            )
            message = "; ".join(f"{one.path or 'body'}: {one.message}" for one in fields[:3]) + "."
            return Refused(Refusal(ErrorCode.VALIDATION_ERROR, message, fields=fields[:20]))
        case TestedTooSoon():
            return Refused(Refusal(ErrorCode.RATE_LIMITED, f"{error}.", retry_after_s=5))
        case _ if isinstance(error, NOT_FOUND):
            return Refused(Refusal(ErrorCode.NOT_FOUND, f"{error}."))
        case ProjectExists() | Conflict():
            return Refused(Refusal(ErrorCode.CONFLICT, f"{error}."))
        case Forbidden():
            return Refused(Refusal(ErrorCode.FORBIDDEN, f"{error}."))
        case AdminError():
            return Refused(Refusal(ErrorCode.VALIDATION_ERROR, f"{error}."))
        case StoreUnavailable():
            return Refused(Refusal(ErrorCode.SERVICE_UNAVAILABLE, "The store is unavailable.", retry_after_s=5))
        case _:
            request_id = new_request_id(system_clock())
            log.error("an administrative request failed (%s)", request_id, exc_info=error)
            return Refused(Refusal(ErrorCode.INTERNAL_ERROR, f"Internal error; see request {request_id} in the log."))


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
