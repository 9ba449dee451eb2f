"""The sub-commands. They use `Admin` and the store; only `check` needs the providers."""

import argparse
import getpass
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from floop_gateway_core.admin import Admin, NewKey, Operator
from floop_gateway_core.assembly import open_configured
from floop_gateway_core.cli.output import credits, print_document, print_fields, print_json, print_table
from floop_gateway_core.config import Settings
from floop_gateway_core.errors import AdminError
from floop_gateway_core.management import present
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.stores.base import Store
from floop_gateway_core.stores.memory import MemoryStore
from floop_gateway_core.stores.stores import Stores
from floop_gateway_core.types import Project, ProjectSettings

Args = argparse.Namespace


@asynccontextmanager
async def opened(args: Args) -> AsyncIterator[tuple[Admin, Store]]:
    """Open the configured store; changes are attributed to `--by`, or to the operating system's user."""
    settings, _ = Settings.find(args.config)
    store = open_configured(settings, os.environ)
    if isinstance(store, MemoryStore):
        raise AdminError(
            "the store is memory://, which only the gateway's own process has; configure sqlite:///… or another"
        )
    operator = Operator(getattr(args, "by", None) or _user())
    try:
        yield Admin(settings, Stores.of(store)).acting(operator), store
    finally:
        await store.aclose()


def _user() -> str:
    """Return the operating system's user, whose name is recorded in entries and in the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no such user
        return "unknown"


# -- projects -----------------------------------------------------------------------------------------------------


async def create_project(args: Args) -> int:
    """`project create`."""
    async with opened(args) as (admin, _):
        own = ProjectSettings(args.plan or "default", _own(args.rpm), _own(args.daily_tokens))
        new = await admin.create_project(args.name, owner=args.owner, settings=own, credits=args.credits)
        _print_key(args, new)
    return 0


async def rotate_key(args: Args) -> int:
    """`project rotate-key`."""
    async with opened(args) as (admin, _):
        new = await admin.rotate_key(args.name, grace_s=args.grace_s)
        _print_key(args, new)
        if new.hook_error is not None:
            raise AdminError(f"the key was rotated, but the hook key_rotated failed: {type(new.hook_error).__name__}")
    return 0


def _print_key(args: Args, new: NewKey) -> None:
    if args.json:
        print_json({"project": new.project.name, "owner": new.project.owner, "key": new.key})
    else:
        print_fields({"project": new.project.name, "owner": new.project.owner, "key": new.key})
        print("The key is shown this once; only its digest is kept.", file=sys.stderr)
    sys.stdout.flush()


async def list_projects(args: Args) -> int:
    """`project list`."""
    async with opened(args) as (admin, _):
        projects = [_project(admin, project) for project in await admin.projects()]
    if args.json:
        for project in projects:
            print_json(project)
    else:
        head = ("PROJECT", "OWNER", "PLAN", "RPM", "DAILY TOKENS", "KEY", "SUSPENDED", "CREATED")
        print_table(head, [tuple(project.values()) for project in projects], empty="No projects yet.")
    return 0


def _project(admin: Admin, project: Project) -> dict[str, object]:
    """Return a project with the limits that hold now."""
    settings, plan = project.settings, admin.plan_of(project)
    return {
        "project": project.name,
        "owner": project.owner,
        "plan": settings.plan,
        "requests_per_minute": settings.requests_per_minute or plan.requests_per_minute,
        "daily_tokens": settings.daily_tokens or plan.daily_tokens,
        "key_prefix": project.key_prefix,
        "suspended": project.suspension is not None,
        "created_at": _instant(project.created_at),
    }


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def show_project(args: Args) -> int:
    """`project show`."""
    async with opened(args) as (admin, _):
        status = await admin.status(args.name)
    document = _project(admin, status.project) | {
        **_balance(status.account),
        "tokens_used_today": status.tokens_used_today,
        "tokens_left_today": status.tokens_left_today,
    }
    print_document(args, document)
    return 0


async def change_settings(args: Args) -> int:
    """`project set`."""
    changes = {"plan": args.plan, "requests_per_minute": args.rpm, "daily_tokens": args.daily_tokens}
    given = {name: value if name == "plan" else _own(value) for name, value in changes.items() if value is not None}
    async with opened(args) as (admin, _):
        print_document(args, _project(admin, await admin.change_settings(args.name, **given)))
    return 0


def _own(limit: int | str | None) -> int | None:
    """Return a limit of the project's own; None is the plan's."""
    return limit if isinstance(limit, int) else None


async def suspend(args: Args) -> int:
    """`project suspend`."""
    async with opened(args) as (admin, _):
        print_document(args, _project(admin, await admin.suspend(args.name)))
    return 0


async def resume(args: Args) -> int:
    """`project resume`."""
    async with opened(args) as (admin, _):
        print_document(args, _project(admin, await admin.resume(args.name)))
    return 0


async def delete_project(args: Args) -> int:
    """`project delete`."""
    async with opened(args) as (admin, _):
        await admin.delete_project(args.name, erase=args.erase)
    print_document(args, {"project": args.name, "deleted": True if args.json else "yes"})
    return 0


# -- accounts -----------------------------------------------------------------------------------------------------


async def grant(args: Args) -> int:
    """`account grant`."""
    async with opened(args) as (admin, _):
        posted = await admin.grant(args.owner, args.credits, id=args.id, note=args.note)
    print_document(args, {"owner": args.owner, **_balance(posted.account)})
    return 0


async def debit(args: Args) -> int:
    """`account debit`."""
    async with opened(args) as (admin, _):
        posted = await admin.debit(args.owner, args.credits, id=args.id, note=args.note)
    print_document(args, {"owner": args.owner, **_balance(posted.account)})
    return 0


async def refund(args: Args) -> int:
    """`account refund`."""
    async with opened(args) as (admin, _):
        posted = await admin.refund(args.request, args.credits, id=args.id, note=args.note)
    owner, amount = posted.entry.owner, credits(posted.entry.amount)
    print_document(args, {"owner": owner, "refunded": amount, **_balance(posted.account)})
    return 0


async def list_accounts(args: Args) -> int:
    """`account list`."""
    found: list[tuple[str, Account]] = []
    async with opened(args) as (admin, _):
        while page := await admin.accounts(after=found[-1][0] if found else ""):
            found += page
    if args.json:
        for owner, account in found:
            print_json({"owner": owner, **_balance(account)})
    else:
        rows = [(owner, *_balance(account).values()) for owner, account in found]
        print_table(("OWNER", "POSTED", "HELD", "AVAILABLE"), rows, empty="No accounts yet.")
    return 0


async def entries(args: Args) -> int:
    """`account entries`: a statement's entries, without its balances."""
    async with opened(args) as (admin, _):
        _, entries, _ = await _statement(admin, args)
    if args.json:
        for entry in entries:
            print_json(entry)
    else:
        _print_entries(entries)
    return 0


async def statement(args: Args) -> int:
    """`account statement`."""
    async with opened(args) as (admin, _):
        opening, entries, closing = await _statement(admin, args)
    if args.json:
        print_json({"opening": opening, "entries": entries, "closing": closing})
    else:
        print(f"opening balance: {opening}")
        _print_entries(entries)
        print(f"closing balance: {closing}")
    return 0


async def _statement(admin: Admin, args: Args) -> tuple[object, list[dict[str, object]], object]:
    """Return a statement's opening balance, entries and closing balance, with the projects' names."""
    found = await admin.statement(args.owner, since=args.since, until=args.until)
    names: dict[str, str] = {project.id: project.name for project in await admin.projects(deleted=True)}
    entries = [
        present.entry(one, names)
        | {
            "credits": credits(one.amount),
            "posted_after": None if one.posted_after is None else credits(one.posted_after),
            "note": one.note,
        }
        for one in found.entries
    ]
    return credits(found.opening), entries, credits(found.closing)


def _print_entries(entries: Sequence[Mapping[str, object]]) -> None:
    head = ("AT", "KIND", "CREDITS", "POSTED", "ID", "REQUEST", "PROJECT", "BY", "NOTE")
    print_table(head, [tuple(entry.values()) for entry in entries], empty="No entries.")


async def show_account(args: Args) -> int:
    """`credits show`."""
    async with opened(args) as (admin, _):
        account = await admin.account(args.owner)
    print_document(args, {"owner": args.owner, **_balance(account)})
    return 0


def _balance(account: Account) -> dict[str, object]:
    return {"posted": credits(account.posted), "held": credits(account.held), "available": credits(account.available)}
