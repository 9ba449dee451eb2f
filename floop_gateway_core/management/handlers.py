"""What each path of the administration does. A handler gets a `Call`, and returns what goes out."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio
import msgspec

from floop_gateway_core.admin import NewKey
from floop_gateway_core.admin.log import place_of
from floop_gateway_core.errors import AdminError, Forbidden
from floop_gateway_core.hosting.stopping import server_is_stopping
from floop_gateway_core.management import models, present
from floop_gateway_core.management.desk import Desk
from floop_gateway_core.management.export import csv_rows, json_lines
from floop_gateway_core.management.health import health_of, test_deployment
from floop_gateway_core.management.query import Query, cursor_of
from floop_gateway_core.types import ProjectId, ProjectSettings, UsageFilter
from floop_gateway_core.wire.sse import SSEEncoder

__all__ = ["Call", "Page", "Raw"]

TAIL_EVERY_S = 1.0
"""How often a tail polls for newly settled records, in seconds."""
RAW_SUMMARY_DAYS = 31
DAY_S = 86_400.0
Json: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who asks, the path's parameters, the query, and the body as its model."""

    desk: Desk
    path: Mapping[str, str]
    query: Query
    body: Any = None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and the cursor of the next part; None at the end."""

    items: list[Json]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """A body that is no envelope: an export, or a stream of events."""

    content_type: str
    chunks: AsyncIterator[bytes] = field(repr=False)


# -- projects ------------------------------------------------------------------------------------------------------


async def list_projects(call: Call) -> Page:
    """List projects by name, with their current limits and today's usage."""
    after = call.query.cursor(str)
    wanted = (call.query.text("q") or "").lower()
    found = [
        one
        for one in await call.desk.visible()
        if (after is None or one.name > str(after[0])) and (wanted in one.name.lower() or wanted in one.owner.lower())
    ]
    page = found[: call.query.limit]
    items = [await _project(call, one.id) for one in page]
    return Page(items, cursor_of(page[-1].name) if len(found) > len(page) else None)


async def _project(call: Call, name: str) -> Json:
    return present.project(*await call.desk.status(name))


async def create_project(call: Call) -> Json:
    """Create a project; the key is shown this once."""
    call.desk.must_see_all()
    call.desk.must_write()
    body: models.CreateProject = call.body
    settings = ProjectSettings(body.plan, body.requests_per_minute, body.daily_tokens)
    new = await call.desk.admin.create_project(body.name, owner=body.owner, settings=settings, credits=body.credits)
    return await _new_key(call, new)


async def _new_key(call: Call, new: NewKey) -> Json:
    return present.new_key(new, await _project(call, new.project.id))


async def show_project(call: Call) -> Json:
    """Show a project."""
    return await _project(call, call.path["p"])


async def change_project(call: Call) -> Json:
    """Change a project's plan and limits. An operator of some projects may set limits up to the plan's."""
    status, plan = await call.desk.status(call.path["p"])
    call.desk.must_write()
    body: models.ChangeProject = call.body
    changes = body.model_dump(exclude_unset=True)
    if not call.desk.sees_all:
        if "plan" in changes:
            call.desk.must_see_all()
        for name in ("requests_per_minute", "daily_tokens"):
            if (changes.get(name) or 0) > getattr(plan, name):
                raise Forbidden(f"{name} must be at most the plan's {getattr(plan, name)}")
    if "plan" in changes and changes["plan"] is None:
        raise AdminError("plan must be the name of a plan")
    if changes:
        await call.desk.admin.change_settings(status.project.id, **changes)
    return await _project(call, status.project.id)


async def delete_project(call: Call) -> None:
    """Delete a project; `erase=true` also takes its name out of its records."""
    project = await call.desk.project(call.path["p"])
    call.desk.must_see_all()
    call.desk.must_write()
    await call.desk.admin.delete_project(project.id, erase=call.query.flag("erase"))


async def rotate_key(call: Call) -> Json:
    """Replace the key; the new one is shown this once."""
    project = await call.desk.project(call.path["p"])
    call.desk.must_write()
    body: models.Rotation = call.body
    return await _new_key(call, await call.desk.admin.rotate_key(project.id, grace_s=body.grace_s))


async def suspend(call: Call) -> Json:
    """Refuse the project's requests from now on."""
    project = await call.desk.project(call.path["p"])
    call.desk.must_write()
    await call.desk.admin.suspend(project.id)
    return await _project(call, project.id)


async def resume(call: Call) -> Json:
    """Serve a suspended project again."""
    project = await call.desk.project(call.path["p"])
    call.desk.must_write()
    await call.desk.admin.resume(project.id)
    return await _project(call, project.id)


# -- the log -------------------------------------------------------------------------------------------------------


async def _selected(call: Call) -> UsageFilter:
    """Return the filter of the query, within what the operator may see."""
    name = call.path.get("p") or call.query.text("project")
    only = await call.desk.ids() if name is None else frozenset({await call.desk.logged(name)})
    return call.query.usage_filter(only)


async def usage(call: Call) -> Page | Raw:
    """List records of the usage log by settlement, or export the whole selection."""
    wanted = await _selected(call)
    oldest_first = call.query.choice("order", ("newest", "settled")) == "settled"
    admin = call.desk.admin
    await call.desk.gateway.runtime.flush_refusals(every=True)
    form = call.query.choice("format", ("json", "jsonl", "csv"))
    if form != "json":
        for name in ("limit", "cursor"):
            if call.query.text(name) is not None:
                raise AdminError(f"{name} is for format=json; {form} has the whole selection")
        records = admin.every_record(wanted, newest_first=not oldest_first)
        if form == "csv":
            return Raw("text/csv; charset=utf-8", csv_rows(records))
        return Raw("application/jsonl", json_lines(records))
    place = call.query.cursor(float, str)
    after = None if place is None else (float(str(place[0])), str(place[1]))
    limit = call.query.limit
    found = await admin.usage_page(wanted, after=after, newest_first=not oldest_first, limit=limit + 1)
    page = found[:limit]
    # A poller keeps its cursor even if there is nothing new yet.
    last = place_of(page[-1]) if page else after or (0.0, "")
    more = len(found) > limit or oldest_first
    return Page([present.record(one) for one in page], cursor_of(*last) if more else None)


async def tail(call: Call) -> Raw:
    """Stream records as they are settled, as server-sent events."""
    wanted = await _selected(call)
    return Raw("text/event-stream", _tailed(call, wanted))


async def _tailed(call: Call, wanted: UsageFilter) -> AsyncIterator[bytes]:
    admin, runtime = call.desk.admin, call.desk.gateway.runtime
    encoder = SSEEncoder()
    newest = await admin.usage_page(wanted, newest_first=True, limit=1)
    place = place_of(newest[0]) if newest else (0.0, "")
    yield encoder.comment("tail")
    while not (runtime.stopping or server_is_stopping()):
        await anyio.sleep(TAIL_EVERY_S)
        found = await admin.usage_page(wanted, after=place, newest_first=False, limit=100)
        for record in found:
            yield encoder.frame(msgspec.json.encode(present.record(record)).decode())
            place = place_of(record)
        if not found:
            yield encoder.comment("keep-alive")


async def summary(call: Call) -> Page:
    """Sum up requests, tokens, credits and latencies by one or two dimensions."""
    wanted = await _selected(call)
    by = (call.query.text("by") or "day").split(",")
    if wanted.tag is not None or wanted.code is not None:
        period = (wanted.until or call.desk.gateway.runtime.clock()) - (wanted.since or 0.0)
        if period > RAW_SUMMARY_DAYS * DAY_S:
            raise AdminError(
                f"a summary by tag or code must cover at most {RAW_SUMMARY_DAYS} days: set since and until"
            )
    return Page([present.summary(row, by) for row in await call.desk.admin.summary(wanted, by)])


async def show_request(call: Call) -> Json:
    """Show one record with its attempts."""
    return present.record(await call.desk.record(call.path["id"]), attempts=True)


async def refund(call: Call) -> Json:
    """Refund all or part of a request's charge to the account that paid."""
    record = await call.desk.record(call.path["id"])
    call.desk.must_see_all()
    call.desk.must_write()
    body: models.RefundRequest = call.body
    posted = await call.desk.admin.refund(record.request_id, body.credits, id=body.id, note=body.note)
    return present.posted(posted, await call.desk.names())


# -- accounts ------------------------------------------------------------------------------------------------------


async def list_accounts(call: Call) -> Page:
    """List accounts by owner."""
    place = call.query.cursor(str)
    after, limit = "" if place is None else str(place[0]), call.query.limit
    wanted = (call.query.text("q") or "").lower()
    items: list[Json] = []
    while len(items) <= limit:
        page = await call.desk.admin.accounts(after=after, limit=limit + 1)
        for owner, account in page:
            if wanted in owner.lower() and await _may_see(call, owner):
                items.append({"owner": owner, **present.account(account)})
        if len(page) <= limit:
            break
        after = page[-1][0]
    more = len(items) > limit
    items = items[:limit]
    return Page(items, cursor_of(items[-1]["owner"]) if more else None)


async def _may_see(call: Call, owner: str) -> bool:
    try:
        await call.desk.account(owner)
    except AdminError:
        return False
    return True


async def show_account(call: Call) -> Json:
    """Show an account's balance."""
    owner = call.path["o"]
    await call.desk.account(owner)
    return {"owner": owner, **present.account(await call.desk.admin.account(owner))}


async def list_entries(call: Call) -> Page:
    """List an account's entries, oldest first."""
    owner = call.path["o"]
    await call.desk.account(owner)
    place, limit = call.query.cursor(int), call.query.limit
    after = 0 if place is None else int(str(place[0]))
    since, until = call.query.period
    found = await call.desk.admin.entries(owner, after=after, since=since, until=until, limit=limit + 1)
    names = await call.desk.names()
    page = found[:limit]
    return Page([present.entry(one, names) for one in page], cursor_of(page[-1].number) if len(found) > limit else None)


async def statement(call: Call) -> Json:
    """Return the opening balance, the entries and the closing balance of a period."""
    owner = call.path["o"]
    await call.desk.account(owner)
    since, until = call.query.period
    found = await call.desk.admin.statement(owner, since=since, until=until)
    return present.statement(found, await call.desk.names())


async def grant(call: Call) -> Json:
    """Add credits to an account."""
    return await _post(call, "grant")


async def debit(call: Call) -> Json:
    """Take credits from an account, at most what is available."""
    return await _post(call, "debit")


async def _post(call: Call, kind: str) -> Json:
    owner = call.path["o"]
    await call.desk.account(owner)
    call.desk.must_see_all()
    call.desk.must_write()
    body: models.Posting = call.body
    admin = call.desk.admin
    post = admin.grant if kind == "grant" else admin.debit
    return present.posted(await post(owner, body.credits, id=body.id, note=body.note), await call.desk.names())


# -- the rest ------------------------------------------------------------------------------------------------------


async def audit(call: Call) -> Page:
    """List what operators have changed, newest first."""
    place, limit = call.query.cursor(int), call.query.limit
    name = call.query.text("project")
    ids: frozenset[ProjectId] | None = (
        await call.desk.ids() if name is None else frozenset({await call.desk.logged(name)})
    )
    before = None if place is None else int(str(place[0]))
    found = await call.desk.gateway.store.audit_lines(before=before, projects=ids, limit=limit + 1)
    page = found[:limit]
    return Page([present.audit_line(one) for one in page], cursor_of(page[-1].number) if len(found) > limit else None)


async def health(call: Call) -> Json:
    """Show deployments and breakers, the store, and pending settlements."""
    call.desk.must_see_all()
    return await health_of(call.desk.gateway)


async def test(call: Call) -> Json:
    """Send a deployment a short test request, without charging a project, writing a record or moving its breaker."""
    call.desk.must_see_all()
    call.desk.must_write()
    ok, reason = await test_deployment(call.desk.gateway, call.path["deployment"])
    return {"ok": ok, "reason": reason}
