"""Calls of the server's functions, which do the ordinary case of a job in one round trip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import msgspec

from floop_gateway_core.policy.admission import Held, HoldRefused, decide_hold
from floop_gateway_core.policy.budget import DayBudget
from floop_gateway_core.policy.idempotency import KEEP_S
from floop_gateway_core.policy.ledger import MAX_MICROCREDITS, ZERO, Account, Hold
from floop_gateway_core.policy.rate_window import WINDOW_S, RateDecision, decide, microseconds
from floop_gateway_core.stores.base import HoldRequest, Settled, Settlement
from floop_gateway_core.stores.sql import usage
from floop_gateway_core.types import Microcredits, ProjectId, UsageRecord

__all__ = ["ServerCall", "hold", "settle", "spend", "storable"]

T = TypeVar("T")
MAX_BIGINT = 2**63 - 1
NOTHING_USED = DayBudget(MAX_BIGINT)
RICH = Account(Microcredits(MAX_MICROCREDITS))


@dataclass(frozen=True, slots=True)
class ServerCall(Generic[T]):
    """`sql` calls a function with its locks, whether to wait for them and whether to be durable, and `arguments`.

    `read` makes the answer of the row behind its outcome.
    """

    sql: str
    arguments: Sequence[object]
    read: Callable[[Sequence[Any]], T]


def _statement(function: str, types: str) -> str:
    marks = ", ".join(f"?::{type}" for type in f"bigint[] boolean boolean {types}".split())
    return f"SELECT * FROM floop_gateway.{function}({marks})"


_SPEND = _statement("spend", "text bigint bigint bigint")
_HOLD = _statement("hold", "text bigint bigint float8 float8 bigint bigint bigint text text json")
_SETTLE = _statement("settle", "text bigint float8 bigint bigint text text bytea float8 json")


def spend(project: ProjectId, limit: int, now: float) -> ServerCall[RateDecision]:
    """Spend one request of a project's minute, or refuse; every case is ordinary."""
    now_us, window_us = microseconds(now), microseconds(WINDOW_S)

    def read(row: Sequence[Any]) -> RateDecision:
        count, oldest_us, leaving_us = row
        return decide(
            limit=limit, count=count, oldest_us=oldest_us, leaving_us=leaving_us, now_us=now_us, window_us=window_us
        )

    return ServerCall(_SPEND, (project, limit, now_us, window_us), read)


def hold(request: HoldRequest) -> ServerCall[Held | HoldRefused] | None:
    """Place both holds in full. Nothing less is ordinary, nor is a request or an idempotency key seen before."""
    in_full = decide_hold(request.estimate, NOTHING_USED, RICH)
    if not isinstance(in_full, Held):
        return None
    claim = request.claim
    arguments = (
        request.owner, request.day, min(request.budget_tokens, MAX_BIGINT), request.now, request.expires_at,
        in_full.held_microcredits, in_full.held_tokens, in_full.output_tokens,
        claim and claim.key, claim and claim.digest, _json(request.record),
    )  # fmt: skip
    return ServerCall(_HOLD, arguments, lambda _: in_full)


def settle(settlement: Settlement) -> ServerCall[Settled]:
    """Resolve open holds of the same owner with a charge that they cover."""
    charge, claim = settlement.charge, settlement.claim
    charged = charge or ZERO
    record = settlement.record
    if record.microcredits != charged:
        record = replace(record, microcredits=charged)
    arguments = (
        settlement.owner, settlement.day, settlement.now, charge, settlement.tokens,
        claim and claim.key, claim and claim.digest, settlement.answer, settlement.now + KEEP_S, _json(record),
    )  # fmt: skip

    def read(row: Sequence[Any]) -> Settled:
        amount, posted, held, used = row
        resolved = Hold(Microcredits(amount), "voided" if charge is None else "captured", charged)
        return Settled(resolved, Account(Microcredits(posted), Microcredits(held)), used)

    return ServerCall(_SETTLE, arguments, read)


def _json(record: UsageRecord) -> str:
    columns = usage.columns_of(record)
    return msgspec.json.encode({name: storable(value) for name, value in columns.items()}).decode()


def storable(value: object) -> object:
    """Replace NUL characters, which a note or a tag may contain but PostgreSQL cannot store."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) and "\0" in value else value
