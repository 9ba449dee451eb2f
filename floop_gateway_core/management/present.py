"""The administration's values as the JSON that goes out."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from floop_gateway_core.admin import NewKey, ProjectStatus, Statement, SummaryRow
from floop_gateway_core.config import PlanSettings
from floop_gateway_core.money import format_credits
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.stores.base import Posted
from floop_gateway_core.types import AuditLine, Entry, Microcredits, UsageRecord

__all__ = [
    "account",
    "audit_line",
    "credits",
    "details_of",
    "entry",
    "new_key",
    "posted",
    "project",
    "record",
    "statement",
    "summary",
]

Json = dict[str, object]


def credits(amount: Microcredits) -> Decimal:
    """Return an exact number of credits."""
    return Decimal(format_credits(amount))


def instant(at: float) -> str:
    """Return RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def account(of: Account) -> Json:
    """Return an account's balance."""
    return {"posted": credits(of.posted), "held": credits(of.held), "available": credits(of.available)}


def project(status: ProjectStatus, plan: PlanSettings) -> Json:
    """Return a project with its limits, its day and its account."""
    one = status.project
    return {
        "id": one.id,
        "name": one.name,
        "owner": one.owner,
        "plan": one.settings.plan,
        "key_prefix": one.key_prefix,
        "key_created_at": instant(one.key_created_at),
        "suspended": one.suspension is not None,
        "limits": {
            "requests_per_minute": {"value": status.requests_per_minute, "plan": plan.requests_per_minute},
            "daily_tokens": {"value": status.daily_tokens, "plan": plan.daily_tokens},
        },
        "today": {
            "used": status.tokens_used_today,
            "held": status.tokens_held_today,
            "left": status.tokens_left_today,
        },
        "account": account(status.account),
    }


def new_key(new: NewKey, shown: Json) -> Json:
    """Return a project and its key, and the kind of error that the host's hook raised, if it did."""
    error = {} if new.hook_error is None else {"hook_error": type(new.hook_error).__name__}
    return {"project": shown, "key": new.key, **error}


def entry(of: Entry, names: Mapping[str, str]) -> Json:
    """Return an entry. A write-off does not change the balance, so its amount is only in the note."""
    off = of.kind == "written_off"
    return {
        "at": instant(of.at),
        "kind": of.kind,
        "credits": Decimal(0) if off else credits(of.amount),
        "posted_after": None if of.posted_after is None else credits(of.posted_after),
        "id": of.id,
        "request_id": of.request_id,
        "project": None if of.project_id is None else names.get(of.project_id, of.project_id),
        "by": of.by,
        "note": f"{format_credits(of.amount)} credits written off" if off else of.note,
    }


def posted(of: Posted, names: Mapping[str, str]) -> Json:
    """Return a posting's entry and the account after it."""
    return {"entry": entry(of.entry, names), "account": {"owner": of.entry.owner, **account(of.account)}}


def statement(of: Statement, names: Mapping[str, str]) -> Json:
    """Return a statement."""
    return {
        "opening": credits(of.opening),
        "entries": [entry(one, names) for one in of.entries],
        "closing": credits(of.closing),
    }


def record(of: UsageRecord, *, attempts: bool = False) -> Json:
    """Return a record in the usage log's fields, with its attempts if they are asked for."""
    found: Json = of.as_json()
    if attempts:
        found["attempt_list"] = [
            {"deployment": one.deployment, "fault": one.fault, "reason": one.reason, "ms": one.ms}
            for one in of.attempt_list
        ]
    return found


def summary(row: SummaryRow, by: list[str]) -> Json:
    """Return the sums of one group."""
    return {
        **dict(zip(by, row.keys, strict=True)),
        "requests": row.requests,
        "errors": row.errors,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "credits": credits(row.credits),
        "latency_p50_ms": row.latency.percentile(0.5),
        "latency_p95_ms": row.latency.percentile(0.95),
        "first_text_p50_ms": row.first_text.percentile(0.5),
        "first_text_p95_ms": row.first_text.percentile(0.95),
    }


def details_of(what: str, details: Mapping[str, object]) -> str:
    """Return the details of an audit line for a reader. A limit without a value is the plan's."""
    found = [
        f"{name}={'plan' if value is None else value}"
        for name, value in details.items()
        if value is not None or what == "settings"
    ]
    return ", ".join(found)


def audit_line(line: AuditLine) -> Json:
    """Return an audit line."""
    return {
        "at": instant(line.at),
        "by": line.by,
        "what": line.what,
        "project": line.project,
        "account": line.account,
        "origin": line.origin,
        "details": dict(line.details),
    }
