"""Idempotency keys: a request that is sent again gets the first answer again. Decisions only; no I/O.

A key belongs to a project. It is claimed together with the holds, and serves the answer while its request runs and for
a day after the answer has ended. A request that ends without an answer frees its key.
"""

import hashlib
from dataclasses import astuple, dataclass, replace
from typing import Literal

from floop_gateway_core.errors import NO_RETRY, ErrorCode, Refusal
from floop_gateway_core.types import Call, Microcredits, RequestId
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = [
    "BAD_KEY",
    "IN_PROGRESS",
    "KEEP_S",
    "MAX_ANSWER_BYTES",
    "MISMATCH",
    "NOT_KEPT",
    "TOO_LONG",
    "Claim",
    "KeptAnswer",
    "KeyTaken",
    "digest_of",
    "is_valid_key",
    "refusal_of",
]

KEEP_S = 86_400.0
"""How long an answer is kept after its end."""
MAX_ANSWER_BYTES = 2**20
"""A longer answer is not kept; its key is refused until it would have been dropped."""
TOO_LONG = b""
"""Stands for an answer that was longer than `MAX_ANSWER_BYTES`."""

BAD_KEY = Refusal(
    ErrorCode.VALIDATION_ERROR, "Send one Idempotency-Key of 1 to 255 visible ASCII characters without a comma."
)


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key, and the digest of the call that it stands for."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a store has for a key: the request that claimed it, and its answer once that has ended.

    `answer` is the engine's, opaque to a store. `charged` and `posted` are what its settlement charged, and the account
    after it.
    """

    request_id: RequestId
    digest: str
    state: Literal["running", "kept"]
    answer: bytes = b""
    charged: Microcredits = ZERO_CREDITS
    posted: Microcredits = ZERO_CREDITS


@dataclass(frozen=True, slots=True)
class KeyTaken:
    """A hold that was not placed, because another request has claimed the key meanwhile."""

    by: KeptAnswer
    claim: Claim


IN_PROGRESS = Refusal(
    ErrorCode.IDEMPOTENCY_IN_PROGRESS,
    "A request with this Idempotency-Key is still running. Retry after 1 s.",
    retry_after_s=1,
)
MISMATCH = Refusal(
    ErrorCode.IDEMPOTENCY_MISMATCH,
    "This Idempotency-Key was used with another body, endpoint or dialect. Send a new key.",
)
NOT_KEPT = Refusal(
    ErrorCode.IDEMPOTENCY_IN_PROGRESS,
    "The answer to this Idempotency-Key was too long to be kept. Send a new key to ask again.",
    extra_headers=NO_RETRY,
)


def is_valid_key(key: str) -> bool:
    """Return whether a client may send this key.

    >>> is_valid_key("order-17"), is_valid_key("a,b"), is_valid_key("")
    (True, False, False)
    """
    return 1 <= len(key) <= 255 and all("!" <= one <= "~" and one != "," for one in key)


def digest_of(call: Call, dialect: str) -> str:
    """Return the digest of what a repeated request must match: dialect, operation, and the call with defaults."""
    return hashlib.sha256(
        repr((dialect, astuple(replace(call, ignored=())))).encode("utf-8", "surrogatepass")
    ).hexdigest()


def refusal_of(kept: KeptAnswer, claim: Claim) -> Refusal | None:
    """Return why a request gets no replay of what is kept for its key; None if it gets one."""
    if kept.digest != claim.digest:
        return MISMATCH
    if kept.state == "running":
        return IN_PROGRESS
    return NOT_KEPT if kept.answer == TOO_LONG else None
