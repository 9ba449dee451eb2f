"""The sub-commands. They use `Admin` and the store; only `check` needs the providers."""

import argparse
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from floop_gateway_core.admin import Admin, NewKey
from floop_gateway_core.cli.output import credits, print_fields, print_json, print_table
from floop_gateway_core.config import Settings
from floop_gateway_core.dialects.native.parse import parse
from floop_gateway_core.errors import AdminError, Refusal
from floop_gateway_core.policy.auto.classify import classify
from floop_gateway_core.policy.ledger import Account
from floop_gateway_core.stores.base import Store
from floop_gateway_core.stores.registry import inspect_store, open_store
from floop_gateway_core.stores.stores import Stores
from floop_gateway_core.types import Message, Project, ProjectSettings, TextPart

Args = argparse.Namespace


@asynccontextmanager
async def _opened(args: Args) -> AsyncIterator[tuple[Admin, Store]]:
    settings, _ = Settings.find(args.config)
    store = open_store(settings.store)
    try:
        yield Admin(settings, Stores.of(store)), store
    finally:
        await store.aclose()


# -- projects -----------------------------------------------------------------------------------------------------


async def create_project(args: Args) -> int:
    """`project create`."""
    async with _opened(args) as (admin, _):
        own = ProjectSettings(args.plan or "default", args.rpm, args.daily_tokens)
        new = await admin.create_project(args.name, owner=args.owner, settings=own, credits=args.credits)
        _print_key(args, new)
    return 0


async def rotate_key(args: Args) -> int:
    """`project rotate-key`."""
    async with _opened(args) as (admin, _):
        new = await admin.rotate_key(args.name)
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
    async with _opened(args) as (admin, _):
        projects = await admin.projects()
    if args.json:
        for project in projects:
            print_json(_project(project))
    else:
        head = ("PROJECT", "OWNER", "PLAN", "RPM", "DAILY TOKENS", "KEY", "CREATED")
        print_table(head, [tuple(_project(project).values()) for project in projects], empty="No projects yet.")
    return 0


def _project(project: Project) -> dict[str, object]:
    settings = project.settings
    return {
        "project": project.name,
        "owner": project.owner,
        "plan": settings.plan,
        "requests_per_minute": settings.requests_per_minute,
        "daily_tokens": settings.daily_tokens,
        "key_prefix": project.key_prefix,
        "created_at": datetime.fromtimestamp(project.created_at, UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z"),
    }


async def show_project(args: Args) -> int:
    """`project show`."""
    async with _opened(args) as (admin, _):
        status = await admin.status(args.name)
    document = _project(status.project) | {
        "requests_per_minute": status.requests_per_minute,
        "daily_tokens": status.daily_tokens,
        **_balance(status.account),
        "tokens_used_today": status.tokens_used_today,
        "tokens_left_today": status.tokens_left_today,
    }
    _print(args, document)
    return 0


async def change_settings(args: Args) -> int:
    """`project set`."""
    changes = {"plan": args.plan, "requests_per_minute": args.rpm, "daily_tokens": args.daily_tokens}
    given = {name: value for name, value in changes.items() if value is not None}
    async with _opened(args) as (admin, _):
        _print(args, _project(await admin.change_settings(args.name, **given)))
    return 0


# -- accounts -----------------------------------------------------------------------------------------------------


async def grant(args: Args) -> int:
    """`credits grant`."""
    async with _opened(args) as (admin, _):
        account = (await admin.grant(args.owner, args.credits)).account
    _print(args, {"owner": args.owner, **_balance(account)})
    return 0


async def show_account(args: Args) -> int:
    """`credits show`."""
    async with _opened(args) as (admin, _):
        account = await admin.account(args.owner)
    _print(args, {"owner": args.owner, **_balance(account)})
    return 0


def _balance(account: Account) -> dict[str, object]:
    return {"posted": credits(account.posted), "held": credits(account.held), "available": credits(account.available)}


def _print(args: Args, document: Mapping[str, object]) -> None:
    (print_json if args.json else print_fields)(document)


# -- the log ------------------------------------------------------------------------------------------------------


async def usage(args: Args) -> int:
    """`usage`."""
    async with _opened(args) as (admin, store):
        # an unknown project is a mistake, not an empty log
        id = None if args.project is None else (await admin.project(args.project)).id
        await admin.expire()
        records = store.usage(id, args.since)
        if args.json:
            async for record in records:
                print_json(record.as_json())
            return 0
        rows = [
            (
                record.as_json()["started_at"],
                record.project,
                record.endpoint,
                record.alias,
                record.deployment,
                record.status,
                record.code or record.ending,
                record.input_tokens,
                record.output_tokens,
                credits(record.microcredits),
                record.total_ms,
            )
            async for record in records
        ]
    head = ("STARTED", "PROJECT", "ENDPOINT", "MODEL", "SERVED BY", "STATUS", "ENDING", "IN", "OUT", "CREDITS", "MS")
    print_table(head, rows, empty="No finished requests yet.")
    return 0


# -- checks -------------------------------------------------------------------------------------------------------


async def prune(args: Args) -> int:
    """`prune`."""
    pruned = 0
    async with _opened(args) as (admin, _):
        while (count := await admin.prune()) > 0:
            pruned += count
    _print(args, {"deleted": pruned})
    return 0


async def check(args: Args) -> int:
    """Build the whole gateway, so that a missing secret shows too, and look at the store without changing it."""
    from floop_gateway_core.gateway import Gateway  # the other commands do not need its providers

    settings, source = Settings.find(args.config)
    gateway = Gateway.from_config(args.config)
    settings.hooks.load("key_rotated")
    state, projects = inspect_store(settings.store)
    await gateway.aclose()
    document = {
        "configuration": source,
        "store": settings.store,
        "state": state,
        "projects": projects,
        "deployments": ", ".join(settings.deployments) if not args.json else list(settings.deployments),
        "ok": True if args.json else "yes",
    }
    _print(args, document)
    return 0


def auto(args: Args) -> int:
    """Classify each line of a file: a request body in JSON, or a plain text."""
    settings, _ = Settings.find(args.config)
    thresholds = settings.auto.thresholds
    rows = []
    for number, (messages, system) in enumerate(_requests(args.explain), 1):
        judged = classify(messages, system, thresholds=thresholds)
        reasons = [list(reason) for reason in judged.reasons]
        if args.json:
            print_json({"line": number, "alias": judged.alias, "score": judged.score, "reasons": reasons})
        else:
            because = ", ".join(f"{name} {weight:+.2f}" for name, weight in judged.reasons)
            rows.append((number, judged.alias, f"{judged.score:.3f}", because))
    if not args.json:
        print_table(("LINE", "ALIAS", "SCORE", "REASONS"), rows, empty="The file is empty.")
    return 0


def _requests(path: str) -> Iterator[tuple[tuple[Message, ...], str | None]]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8", "replace")
    except OSError as error:
        raise AdminError(f"{path}: cannot be read: {error.strerror}") from error
    for line in filter(str.strip, text.split("\n")):
        endpoint = "generate" if '"prompt"' in line and '"messages"' not in line else "chat"
        call = parse(endpoint, line.encode("utf-8", "replace"))  # type: ignore[arg-type]
        if isinstance(call, Refusal):
            yield (Message("user", (TextPart(line),)),), None
        else:
            yield call.messages, call.system
