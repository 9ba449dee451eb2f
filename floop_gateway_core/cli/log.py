"""The commands that read the log: `usage`, `request show`, `audit`."""

import argparse
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from floop_gateway_core.admin import Admin, SummaryRow
from floop_gateway_core.cli.commands import opened
from floop_gateway_core.cli.output import credits, print_fields, print_json, print_table
from floop_gateway_core.errors import AdminError, NoSuchProject
from floop_gateway_core.management.export import csv_row, csv_rows
from floop_gateway_core.management.present import audit_line, details_of
from floop_gateway_core.types import ProjectId, UsageFilter, UsageRecord

Args = argparse.Namespace


async def usage(args: Args) -> int:
    """`usage`."""
    if args.json and args.format == "csv":
        raise AdminError("--json and --format csv exclude each other")
    wanted = UsageFilter(since=args.since, until=args.until, status=args.status)
    async with opened(args) as (admin, _):
        projects = await _projects_of(admin, args)
        await admin.expire()
        if args.totals:
            _print_totals(args, await admin.summary(replace(wanted, projects=projects), ["project"]))
            return 0
        records = _oldest_first(admin, replace(wanted, projects=projects))
        if args.format == "csv":
            async for chunk in csv_rows(records):
                sys.stdout.write(chunk.decode())
        elif args.json or args.format == "jsonl":
            async for record in records:
                print_json(record.as_json())
        else:
            _print_records([record async for record in records])
    return 0


async def _projects_of(admin: Admin, args: Args) -> frozenset[ProjectId] | None:
    """Return the projects asked for. An unknown one is a mistake, not an empty log."""
    if args.project is not None:
        return await _projects_named(admin, args.project)
    if args.owner is not None:
        await admin.account(args.owner)
        every = await admin.projects(deleted=True)
        return frozenset(project.id for project in every if project.owner == args.owner)
    return None


async def _projects_named(admin: Admin, name: str) -> frozenset[ProjectId]:
    """Return the project of a name or id; if there is none now, those that had the name and were deleted."""
    try:
        return frozenset({(await admin.project(name)).id})
    except NoSuchProject:
        gone = frozenset(one.id for one in await admin.projects(deleted=True) if name in (one.name, one.id))
        if not gone:
            raise
        return gone


async def _oldest_first(admin: Admin, wanted: UsageFilter) -> AsyncIterator[UsageRecord]:
    found = [record async for record in admin.every_record(wanted)]
    for record in sorted(found, key=lambda record: (record.started_at, record.request_id)):
        yield record


NOTHING = "No finished requests, or none that match."


def _print_records(records: Sequence[UsageRecord]) -> None:
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
        for record in records
    ]
    head = ("STARTED", "PROJECT", "ENDPOINT", "MODEL", "SERVED BY", "STATUS", "ENDING", "IN", "OUT", "CREDITS", "MS")
    print_table(head, rows, empty=NOTHING)


def _print_totals(args: Args, rows: Sequence[SummaryRow]) -> None:
    names = ("project", "requests", "errors", "input_tokens", "output_tokens", "credits")
    values = [
        (row.keys[0], row.requests, row.errors, row.input_tokens, row.output_tokens, credits(row.credits))
        for row in rows
    ]
    if args.json or args.format == "jsonl":
        for value in values:
            print_json(dict(zip(names, value, strict=True)))
    elif args.format == "csv":
        for cells in (names, *values):
            sys.stdout.write(csv_row(tuple(map(str, cells))).decode())
    else:
        print_table(tuple(name.upper().replace("_", " ") for name in names), values, empty=NOTHING)


async def show_request(args: Args) -> int:
    """`request show`."""
    async with opened(args) as (admin, _):
        record = await admin.request(args.id)
    attempts = [
        {"deployment": one.deployment, "fault": one.fault, "reason": one.reason, "ms": one.ms}
        for one in record.attempt_list
    ]
    if args.json:
        print_json({**record.as_json(), "attempt_list": attempts})
        return 0
    print_fields({name: value for name, value in record.as_json().items() if value is not None})
    head = ("DEPLOYMENT", "FAULT", "REASON", "MS")
    print_table(head, [tuple(one.values()) for one in attempts], empty="No attempt was made.")
    return 0


async def audit(args: Args) -> int:
    """`audit`, newest first."""
    async with opened(args) as (admin, _):
        lines = await admin.audit_lines(project=args.project, limit=args.limit)
    if args.json:
        for line in lines:
            print_json(audit_line(line))
    else:
        head = ("AT", "BY", "WHAT", "PROJECT", "ACCOUNT", "FROM", "DETAILS")
        rows = [(*tuple(audit_line(line).values())[:-1], details_of(line.what, line.details)) for line in lines]
        print_table(head, rows, empty="No changes yet.")
    return 0
