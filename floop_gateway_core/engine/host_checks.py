"""The host's hooks for a call: one may refuse or change it before money is held, the other sees the record at the end.

Both functions may be async and have a time limit. If a check fails or times out, the call is refused: the check may
enforce a customer's contract.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.observability.events import GatewayEvent, Settled
from floop_gateway_core.types import Call, Project, UsageRecord

__all__ = ["AfterAnswer", "BeforeCall", "RecordListener", "checked"]

BeforeCall: TypeAlias = Callable[[Call, Project], "Call | Refusal | Awaitable[Call | Refusal | None] | None"]
"""Returns the call to make in place of this one, a refusal, or None for the call as it is."""
AfterAnswer: TypeAlias = Callable[[UsageRecord], "Awaitable[None] | None"]

CHECK_S = 5.0
FAILED = Refusal(ErrorCode.SERVICE_UNAVAILABLE, "A check of this app has failed. Retry later.", retry_after_s=5)
log = logging.getLogger("floop_gateway")


async def checked(check: BeforeCall, call: Call, project: Project) -> Call | Refusal:
    """Return what the host's check makes of a call."""
    try:
        with anyio.fail_after(CHECK_S):
            found = check(call, project)
            result = await found if inspect.isawaitable(found) else found
    except Exception:
        log.exception("before_call failed; the call is refused")
        return FAILED
    if result is None:
        return call
    if isinstance(result, Call | Refusal):
        return result
    log.error("before_call must return a Call, a Refusal or None, got %s; the call is refused", type(result).__name__)
    return FAILED


class RecordListener:
    """Passes the record of each settled request to the host's function; listeners are bounded and cannot fail a request."""

    def __init__(self, after_answer: AfterAnswer) -> None:
        self._after_answer = after_answer

    def __call__(self, event: GatewayEvent) -> "Awaitable[None] | None":
        """Pass the record on."""
        return self._after_answer(event.record) if isinstance(event, Settled) else None
