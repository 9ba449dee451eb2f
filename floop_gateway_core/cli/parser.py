"""The command line: every sub-command and its options (contract: Command and configuration).

A command names its handler as `module:function`, so that only what is used is imported.
"""

import argparse
import math
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from floop_gateway_core.admin import MAX_COUNT
from floop_gateway_core.money import parse_credits
from floop_gateway_core.types import Microcredits

__all__ = ["build_parser"]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="floop-gateway", description="Run and administer an LLM gateway.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"floop-gateway {version('floop-gateway')}")
    commands_of = parser.add_subparsers(metavar="command", required=True)

    one = _command(
        commands_of, "demo", "serve a host app with the gateway mounted, and print lines to paste", "demo:run"
    )
    one.add_argument("--port", type=_port, default=8000, help="the port to listen on (default 8000)")
    one.add_argument(
        "--local-model", action="store_true", help="serve a small model on this machine through the gateway"
    )

    one = _command(commands_of, "serve", "serve the gateway alone", "serve:run")
    one.add_argument("--host", default="127.0.0.1")
    one.add_argument("--port", type=_port, default=8000)
    one.add_argument("--mount", type=_mount, default="/api/v1/ai")

    project = _group(commands_of, "project", "projects and their keys")
    one = _listed(project, "create", "create a project and print its key, once", "commands:create_project")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--owner", help="whose account pays (default: the project's own)")
    one.add_argument("--credits", type=_credits, default=Microcredits(0), help="credits to add to the account")
    _add_settings(one)
    _listed(project, "list", "list the projects", "commands:list_projects")
    one = _listed(project, "show", "show settings, key prefix, balance and what is left today", "commands:show_project")
    one.add_argument("name", metavar="NAME")
    one = _listed(project, "settings", "change a project's settings", "commands:change_settings")
    one.add_argument("name", metavar="NAME")
    _add_settings(one)
    one = _listed(project, "rotate-key", "replace the key and print the new one, once", "commands:rotate_key")
    one.add_argument("name", metavar="NAME")
    one.add_argument(
        "--grace-s", type=_seconds, default=0.0, metavar="S", help="how long the old key is still accepted"
    )
    for name, summary in (("suspend", "refuse a project's requests"), ("resume", "serve a suspended project again")):
        one = _listed(project, name, summary, f"commands:{name}")
        one.add_argument("name", metavar="NAME")
    one = _listed(project, "delete", "delete a project; its key stops working", "commands:delete_project")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--erase", action="store_true", help="also replace its name in its records by its id")

    account = _group(commands_of, "account", "accounts, which pay for projects")
    for name, summary in (("grant", "add credits to an account"), ("debit", "take credits from an account")):
        one = _listed(account, name, summary, f"commands:{name}")
        one.add_argument("owner", metavar="OWNER")
        one.add_argument("credits", metavar="CREDITS", type=_credits)
        _add_posting(one)
    one = _listed(account, "refund", "refund a request's charge", "commands:refund")
    one.add_argument("request", metavar="REQUEST_ID")
    one.add_argument("--credits", type=_credits, help="refund only this many credits (default: the whole charge)")
    _add_posting(one)
    _listed(account, "list", "list the accounts", "commands:list_accounts")
    for name, summary in (
        ("entries", "print every movement of money, oldest first"),
        ("statement", "print the entries of a period between two balances"),
    ):
        one = _listed(account, name, summary, f"commands:{name}")
        one.add_argument("owner", metavar="OWNER")
        _add_period(one)
    one = _listed(account, "show", "show an account's balance", "commands:show_account")
    one.add_argument("owner", metavar="OWNER")

    one = _listed(commands_of, "usage", "print the usage log, oldest first", "log:usage")
    one.add_argument("project", metavar="PROJECT", nargs="?")
    _add_period(one)
    one.add_argument("--owner", help="only the projects of this account")
    one.add_argument("--status", type=_count, metavar="N", help="only the requests that got this HTTP status")
    one.add_argument("--format", choices=["table", "csv", "jsonl"], default="table")
    one.add_argument("--totals", action="store_true", help="one line for each project")
    request = _group(commands_of, "request", "single requests")
    one = _listed(request, "show", "show a request's record and its attempts", "log:show_request")
    one.add_argument("id", metavar="REQUEST_ID")
    one = _listed(commands_of, "audit", "print what operators have changed, newest first", "log:audit")
    one.add_argument("project", metavar="PROJECT", nargs="?")
    one.add_argument("--limit", type=_count, default=100, metavar="N", help="how many lines (default 100)")
    one = _listed(commands_of, "backup", "copy a SQLite store into a new file while it runs", "maintenance:backup")
    one.add_argument("file", metavar="FILE")
    one = _listed(commands_of, "migrate", "create the store, or bring it up to date", "maintenance:migrate")
    one.add_argument("--sql", action="store_true", help="print the SQL instead of running it (PostgreSQL)")
    _listed(commands_of, "prune", "delete what is older than [retention] allows", "maintenance:prune")
    one = _listed(commands_of, "check", "check the configuration, and whether the store answers", "maintenance:check")
    one.add_argument("--providers", action="store_true", help="also ask each deployment for a few tokens")

    one = _command(
        commands_of, "bench", "measure this configuration against a mock upstream, beside floors", "bench:run"
    )
    one.add_argument("--host", choices=["asgi", "flask", "aiohttp"], default="asgi", help="what mounts the gateway")
    one.add_argument("--http", choices=["httptools", "h11"], default="httptools", help="uvicorn's parser")
    one.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop", help="the event loop")
    one.add_argument("--store", metavar="URI", help="memory:// or sqlite (a new file); default: the configured kind")
    one.add_argument("--workers", type=_counts, default=[1], metavar="N[,N…]", help="worker processes to compare")
    one.add_argument("--connections", type=_count, metavar="N", help="only the cells with so many connections")
    one.add_argument("--cell", metavar="TEXT", help="only the cells whose name contains this")
    one.add_argument("--rounds", type=_count, default=3, metavar="N", help="measured rounds, after one warm-up round")
    one.add_argument("--json", metavar="FILE", help="write the results as JSON lines")
    one.add_argument("--svg", metavar="FILE", help="draw the ratios")

    auto = _listed(commands_of, "auto", "say what `auto` would pick for each request of a file, and why", "auto:auto")
    auto.add_argument(
        "--explain", metavar="FILE", required=True, help="JSON lines of request bodies or texts; - for stdin"
    )
    return parser


def _command(parent: Any, name: str, summary: str, handler: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = parent.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    one.add_argument(
        "--config", metavar="FILE", help="default: $FLOOP_GATEWAY_CONFIG, then gateway.toml, then built-in"
    )
    one.set_defaults(handler=handler)
    return one


def _listed(parent: Any, name: str, summary: str, handler: str) -> argparse.ArgumentParser:
    one = _command(parent, name, summary, handler)
    one.add_argument("--json", action="store_true", help="print JSON: one document, or one object a line for lists")
    one.add_argument("--by", help="the name to record in entries and the audit log (default: the current OS user)")
    return one


def _group(parent: Any, name: str, summary: str) -> Any:
    group = parent.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    return group.add_subparsers(metavar="command", required=True)


def _add_settings(one: argparse.ArgumentParser) -> None:
    one.add_argument("--plan", help="the name of a plan in the configuration")
    one.add_argument("--rpm", type=_limit, metavar="N", help="the project's own requests per minute, or `plan`")
    one.add_argument("--daily-tokens", type=_limit, metavar="N", help="the project's own tokens per UTC day, or `plan`")


def _add_posting(one: argparse.ArgumentParser) -> None:
    one.add_argument("--id", help="idempotency id: repeating the command with the same id has no effect")
    one.add_argument("--note", help="why")


def _add_period(one: argparse.ArgumentParser) -> None:
    times = "an RFC 3339 time or date, or seconds since the epoch"
    one.add_argument("--since", type=_instant, metavar="T", help=f"only from this time on: {times}")
    one.add_argument("--until", type=_instant, metavar="T", help="before then")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"port must be 0 to 65535, got {text!r}")
    return int(text)


def _mount(text: str) -> str:
    if not text.startswith("/") or text.endswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r}: a mount starts with a slash and does not end with one")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text.lstrip("0")[:20] or 0) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 to {MAX_COUNT}")
    return int(text)


def _limit(text: str) -> int | str:
    return text if text == "plan" else _count(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: seconds from 0 to 86400")
    return value


def _counts(text: str) -> list[int]:
    return [_count(one) for one in text.split(",")]


def _credits(text: str) -> Microcredits:
    try:
        return parse_credits(text)
    except ValueError:
        message = f"{text!r}: credits are a number, 0 or more, with at most six decimal places"
        raise argparse.ArgumentTypeError(message) from None


def _instant(text: str) -> float:
    try:
        if math.isfinite(seconds := float(text)):
            return seconds
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        message = f"{text!r}: a time is written 2026-01-31T08:00:00Z, a day 2026-01-31, or as seconds since the epoch"
        raise argparse.ArgumentTypeError(message) from None
