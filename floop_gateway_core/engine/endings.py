"""How a request ends: what its record says, for each way of ending and for what the client had been sent by then.

    ending           nothing sent            head sent      output sent
    complete         200, the answer's       same           same
    upstream_error   the refusal's, null     200, error     200, error
    refused          the refusal's, null     200, error     200, error
    client_gone      499, null               200, null      200, null
    internal_error   the refusal's, null     200, error     200, error
    replayed         200, the answer's       same           same

Each cell has the record's status and finish reason. Its code is the refusal's, or null if there is none. The status is
what was sent: a heartbeat sends 200 before any output, and a stream that fails later stays a 200.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.types import Ending, FinishReason
from floop_gateway_core.wire.messages import CLIENT_GONE_STATUS

__all__ = ["TABLE", "Outcome", "Sent", "outcome"]


class Sent(Enum):
    """What the client has been sent so far."""

    NOTHING = auto()
    HEAD = auto()
    OUTPUT = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The part of a record that depends on how its request ended."""

    status: int
    code: ErrorCode | None
    finish_reason: FinishReason | None


Status = Literal["refusal"] | int
Finish = Literal["answer", "error"] | None

TABLE: Mapping[tuple[Ending, Sent], tuple[Status, Finish]] = {
    ("complete", Sent.NOTHING): (200, "answer"),
    ("complete", Sent.HEAD): (200, "answer"),
    ("complete", Sent.OUTPUT): (200, "answer"),
    ("upstream_error", Sent.NOTHING): ("refusal", None),
    ("upstream_error", Sent.HEAD): (200, "error"),
    ("upstream_error", Sent.OUTPUT): (200, "error"),
    ("refused", Sent.NOTHING): ("refusal", None),
    ("refused", Sent.HEAD): (200, "error"),
    ("refused", Sent.OUTPUT): (200, "error"),
    ("client_gone", Sent.NOTHING): (CLIENT_GONE_STATUS, None),
    ("client_gone", Sent.HEAD): (200, None),
    ("client_gone", Sent.OUTPUT): (200, None),
    ("internal_error", Sent.NOTHING): ("refusal", None),
    ("internal_error", Sent.HEAD): (200, "error"),
    ("internal_error", Sent.OUTPUT): (200, "error"),
    ("replayed", Sent.NOTHING): (200, "answer"),
    ("replayed", Sent.HEAD): (200, "answer"),
    ("replayed", Sent.OUTPUT): (200, "answer"),
}


def outcome(
    ending: Ending, sent: Sent, *, refusal: Refusal | None = None, finish: FinishReason | None = None
) -> Outcome:
    """Return what the record says. `refusal` is what the client gets, `finish` is why the answer was complete.

    >>> outcome("client_gone", Sent.NOTHING)
    Outcome(status=499, code=None, finish_reason=None)
    """
    status, reason = TABLE[ending, sent]
    if status == "refusal":
        if refusal is None:
            raise ValueError(f"{ending} with nothing sent must have a refusal")
        status = refusal.status
    return Outcome(status, None if refusal is None else refusal.code, finish if reason == "answer" else reason)
