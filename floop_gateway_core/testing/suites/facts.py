"""What the suites share: a moment, requests, settlements, and short names for what they compare."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TypeVar

import anyio

from floop_gateway_core.policy.admission import (
    Held,
    HoldEstimate,
    HoldRefused,
)
from floop_gateway_core.policy.budget import utc_day
from floop_gateway_core.policy.ledger import Account, Hold
from floop_gateway_core.policy.pricing import RATE_SCALE, CostLine
from floop_gateway_core.stores.base import (
    HoldRequest,
    LedgerStore,
    NoSuchProject,
    ProjectExists,
    Settlement,
)
from floop_gateway_core.types import (
    Microcredits,
    Project,
    ProjectId,
    ProjectSettings,
    RequestId,
    UsageRecord,
)

T = TypeVar("T")

NOW = 1_700_000_000.0
DAY = utc_day(NOW)
TTL_S = 600.0
PROJECT = ProjectId("p")


def hold_request(
    request_id: str,
    *,
    project: ProjectId = PROJECT,
    owner: str = "o",
    fixed_tokens: int = 10,
    output_tokens: int = 90,
    microcredits_per_token: int = 1,
    budget_tokens: int = 10_000,
    now: float = NOW,
) -> HoldRequest:
    """Ask for both holds of a request that costs `microcredits_per_token` for each of its tokens."""
    rate = microcredits_per_token * RATE_SCALE
    record = UsageRecord(RequestId(request_id), project, f"shop-{project}", "flp_sk_ab12…", "chat", started_at=now)
    ask = HoldEstimate(fixed_tokens, output_tokens, (CostLine(fixed_tokens * rate, rate),))
    return HoldRequest(record, owner, utc_day(now), budget_tokens, ask, now, expires_at=now + TTL_S)


def settlement(request: HoldRequest, charge: int | None = None, *, tokens: int = 0) -> Settlement:
    """End a request as `complete`, or as `refused` if nothing is charged."""
    record = replace(request.record, ending="refused" if charge is None else "complete", status=200)
    return Settlement(
        record, request.owner, request.day, request.now, None if charge is None else Microcredits(charge), tokens
    )


async def together(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Run all concurrently; return their results in the order in which they finished."""
    answers: list[T] = []

    async def run(call: Awaitable[T]) -> None:
        answers.append(await call)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(run, call)
    return answers


async def raised(call: Awaitable[object]) -> type[Exception] | None:
    """Return the class of what the call raises for a project, or None."""
    try:
        await call
    except (NoSuchProject, ProjectExists) as error:
        return type(error)
    return None


async def grant(store: LedgerStore, amount: int, owner: str = "o") -> Account:
    """Add to an account."""
    return await store.grant_credits(owner, Microcredits(amount), NOW)


async def records_of(store: LedgerStore, project: str | None = None, since: float | None = None) -> list[UsageRecord]:
    """Return the records that the store lists."""
    return [record async for record in store.usage(project, since)]


def account(posted: int, held: int = 0) -> Account:
    """Return an account."""
    return Account(Microcredits(posted), Microcredits(held))


def captured(amount: int, captured: int = 0, overrun: int = 0, written_off: int = 0) -> Hold:
    """Return a hold that was captured."""
    values = (Microcredits(value) for value in (captured, overrun, written_off))
    return Hold(Microcredits(amount), "captured", *values)


def held(answers: Sequence[Held | HoldRefused]) -> list[Held]:
    """Return the answers that placed a hold."""
    return [answer for answer in answers if isinstance(answer, Held)]


def project(id: str = "p", *, settings: ProjectSettings | None = None) -> Project:
    """Return a project with this id, named `shop-<id>`, of the owner `o`."""
    return Project(ProjectId(id), f"shop-{id}", "o", settings or ProjectSettings(), "flp_sk_ab12…", NOW, NOW)
