"""The pages: what each shows, through the handlers of the administration."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from floop_gateway_core.errors import NoSuchAccount
from floop_gateway_core.management import handlers, present
from floop_gateway_core.management.dashboard import plots
from floop_gateway_core.management.desk import Desk
from floop_gateway_core.management.handlers import Call
from floop_gateway_core.management.query import Query
from floop_gateway_core.types import UsageFilter

__all__ = ["Page", "audit", "health", "project", "projects", "request", "usage"]

HOUR_S, DAY_S = 3600, 86_400
PERIODS = (("1", "24 hours"), ("7", "7 days"), ("30", "30 days"))
FILTERS = ("status", "alias", "deployment")
NOTHING: Mapping[str, object] = {
    "requests": 0, "errors": 0, "input_tokens": 0, "output_tokens": 0, "credits": 0, "latency_p95_ms": None,
    "first_text_p50_ms": None,
}  # fmt: skip
LOG_ROWS = 50
ENTRIES, STATEMENT_DAYS = 200, 30


@dataclass(frozen=True, slots=True)
class Page:
    """A template and what it shows."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200


def call(desk: Desk, path: Mapping[str, str] | None = None, body: Any = None, /, **query: str) -> Call:
    """Return the call of a handler, as the administration over HTTP would make it."""
    return Call(desk, path or {}, Query(urlencode(query), frozenset(query)), body)


async def projects(desk: Desk, form: Mapping[str, str]) -> Page:
    """List the projects, with today's requests."""
    query = {name: form[name] for name in ("q", "cursor") if form.get(name)}
    page = await handlers.list_projects(call(desk, **query, limit="50"))
    since = _days_ago(desk, 1)
    rows = await desk.admin.summary(UsageFilter(await desk.ids(), since=since), ["project"])
    seen = {row.keys[0]: row for row in rows}
    for one in page.items:
        row = seen.get(one["name"])
        one["requests"], one["errors"] = (0, 0) if row is None else (row.requests, row.errors)
    values = {"projects": page.items, "next": page.next, "q": form.get("q", ""), "plans": _plans(desk)}
    return Page("projects.html", values)


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _days_ago(desk: Desk, days: int) -> float:
    """Return the start of the hour in which that time lies: sums of full hours do not read the hour's records."""
    since = desk.gateway.runtime.clock() - days * DAY_S
    return since - since % HOUR_S


def _plans(desk: Desk) -> list[str]:
    return desk.gateway.settings.plan_names


async def project(desk: Desk, name: str, form: Mapping[str, str]) -> Page:
    """Show a project's settings, its day and its statement of a period."""
    status, plan = await desk.status(name)
    shown = present.project(status, plan)
    first = form.get("first") or _date(_days_ago(desk, STATEMENT_DAYS))
    last = form.get("last") or _date(desk.gateway.runtime.clock())
    statement: Any = None
    with suppress(NoSuchAccount):  # the account also pays for projects that this operator may not see
        until = Query(urlencode({"last": last}), frozenset({"last"})).instant("last") or 0.0
        period = call(desk, {"o": status.project.owner}, since=first, until=f"{until + DAY_S:.0f}")
        statement = await handlers.statement(period)
    entries = [] if statement is None else statement["entries"][::-1]
    meter = plots.meter(status.tokens_used_today, status.tokens_held_today, status.daily_tokens)
    return Page(
        "project.html",
        {
            "project": shown,
            "own": status.project.settings,
            "plans": _plans(desk),
            "today": Markup(meter),
            "statement": statement,
            "entries": entries[:ENTRIES],
            "left_out": len(entries[ENTRIES:]),
            "first": first,
            "last": last,
            "once": secrets.token_hex(8),
        },
    )


async def usage(desk: Desk, name: str | None, form: Mapping[str, str], mount: str) -> Page:
    """Show requests, tokens, credits, errors and latency over time, and the log."""
    days = form.get("days") if form.get("days") in dict(PERIODS) else "1"
    since = _days_ago(desk, int(days or 1))
    chosen = {one: form[one] for one in FILTERS if form.get(one)}
    path = {} if name is None else {"p": name}
    query = {**chosen, "since": f"{since:.0f}"}
    shown = None if name is None else present.project(*await desk.status(name))
    by = "hour" if days == "1" else "day"
    over_time = (await handlers.summary(call(desk, path, **query, by=by))).items
    if over_time:
        over_time = _without_gaps(over_time, by, since, desk.gateway.runtime.clock())
    splits = []
    for title, dimension in (("Model", "alias"), ("Deployment", "deployment"), ("Status", "status")):
        rows = (await handlers.summary(call(desk, path, **query, by=dimension))).items
        splits.append((title, [{**row, "key": row[dimension]} for row in rows]))
    page = {"cursor": form["cursor"]} if form.get("cursor") else {}
    log = await handlers.usage(call(desk, path, **query, **page, limit=str(LOG_ROWS)))
    assert isinstance(log, handlers.Page)
    here = f"{mount}/projects/{name}/usage" if name else f"{mount}/usage"
    kept = urlencode({**chosen, "days": days or "1"})
    return Page(
        "usage.html",
        {
            "project": shown,
            "periods": PERIODS,
            "days": days,
            "filters": {one: chosen.get(one, "") for one in FILTERS},
            "plots": _plots(over_time, by),
            "splits": splits if over_time else [],
            "records": log.items,
            "next": log.next,
            "here": f"{here}?{kept}",
            "export": f"{here}/export?{urlencode(query)}",
            "tail": f"{here}/tail?{urlencode(chosen)}",
        },
    )


def _without_gaps(rows: list[dict[str, Any]], by: str, since: float, until: float) -> list[dict[str, Any]]:
    """Return a row for each hour or day of a period, including those without requests."""
    step, form = (HOUR_S, "%Y-%m-%dT%H:00:00Z") if by == "hour" else (DAY_S, "%Y-%m-%d")
    found = {row[by]: row for row in rows}
    starts = range(int(since) // step * step, int(until) + 1, step)
    labels = [datetime.fromtimestamp(at, UTC).strftime(form) for at in starts]
    return [found.get(label, {by: label, **NOTHING}) for label in labels]


def _plots(rows: list[dict[str, Any]], by: str) -> list[dict[str, object]]:
    labels = [str(row[by]) for row in rows]
    found: list[dict[str, object]] = []
    for title, value in (
        ("Requests", lambda row: row["requests"]),
        ("Tokens", lambda row: row["input_tokens"] + row["output_tokens"]),
        ("Credits", lambda row: float(row["credits"])),
        ("Errors", lambda row: row["errors"]),
        ("Latency p95, ms", lambda row: row["latency_p95_ms"] or 0),
        ("Time to first text p50, ms", lambda row: row["first_text_p50_ms"] or 0),
    ):
        values = [value(row) for row in rows]
        svg = Markup(plots.bars(labels, values, title))
        found.append({"title": title, "svg": svg, "unit": by, "rows": list(zip(labels, values, strict=True))})
    return found if rows else []


async def request(desk: Desk, id: str) -> Page:
    """Show one request with its attempts."""
    record = present.record(await desk.record(id), attempts=True)
    attempts: Any = record["attempt_list"]
    timeline = plots.bars([one["deployment"] for one in attempts], [one["ms"] for one in attempts], "Attempts, ms")
    shown = [
        (name, _plain(value)) for name, value in record.items() if name != "attempt_list" and value not in (None, {})
    ]
    values = {"record": record, "fields": shown, "once": secrets.token_hex(8)}
    return Page("request.html", {**values, "timeline": Markup(timeline)})


def _plain(value: object) -> object:
    """Return a record's value for a reader."""
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{name}={one}" for name, one in value.items())
        case list():
            return ", ".join(f"{name} {weight:+g}" for name, weight in value)
        case _:
            return value


async def health(desk: Desk) -> Page:
    """Show deployments, breakers and the store."""
    return Page("health.html", {"health": await handlers.health(call(desk))})


async def audit(desk: Desk, form: Mapping[str, str]) -> Page:
    """Show what operators have changed."""
    query = {"cursor": form["cursor"]} if form.get("cursor") else {}
    page = await handlers.audit(call(desk, **query, limit="100"))
    items: list[dict[str, Any]] = page.items
    lines = [{**one, "shown": present.details_of(one["what"], one["details"])} for one in items]
    return Page("audit.html", {"lines": lines, "next": page.next})
