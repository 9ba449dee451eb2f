"""The command that shows how `auto` classifies requests."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from floop_gateway_core.cli.output import print_json, print_table
from floop_gateway_core.config import Settings
from floop_gateway_core.dialects.native.parse import parse
from floop_gateway_core.errors import AdminError, Refusal
from floop_gateway_core.policy.auto.classify import classify
from floop_gateway_core.types import Message, TextPart

Args = argparse.Namespace


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
