"""Fits the weights of the `auto` classifier and writes them as a table: the same bytes from the same requests.

    python -m tools.fit_classify [--check]

Reads only our own requests in `tools/prompts/`, so that anyone can rebuild the table and requests from other sources
can measure it (`benchmarks/classify.py`). The table contains no text, only weights of named features. `--check` writes
nothing, and fails if the table in the package differs from a new fit.

The model is a multinomial logistic regression with a quadratic penalty, fitted by full-batch gradient steps in pure
Python. Requests that are made from a template and a text count half. The three labels have equal weight except `fast`,
because a request that is routed too expensively costs money each time.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast, get_args

from floop_gateway_core.policy.auto.features import features
from floop_gateway_core.types import Message, Role

PROMPTS = Path(__file__).parent / "prompts"
TABLE = Path(__file__).parents[1] / "floop_gateway_core" / "policy" / "auto" / "tables" / "classify.json"
KINDS = ("fast", "smart", "reason")
PENALTY = 8.0
LABELS = {"fast": 1.35, "smart": 1.0, "reason": 1.0}
STEPS = 600
TEXTS_PER_TEMPLATE = 4


class Example(NamedTuple):
    """A labelled request. `group` is what cross-validation leaves out as a whole."""

    label: str
    group: str
    system: str | None
    messages: tuple[Message, ...]
    language: str = "en"


def _message(role: str, text: str) -> Message:
    if role not in get_args(Role):
        raise ValueError(f"no such role: {role}")
    return Message.of(cast(Role, role), text)


def own_examples() -> list[Example]:
    """Read the requests that we wrote: one a line in `*.tsv`, conversations in `conversations.jsonl`."""
    found: list[Example] = []
    for path in sorted(PROMPTS.glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line and not line.startswith("#"):
                label, group, text = line.split("\t", 2)
                text = text.replace("\\n", "\n").replace("\\\\", "\\")
                found.append(Example(label, f"own:{group}", None, (Message.of("user", text),)))
    for line in (PROMPTS / "conversations.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        turns = tuple(_message(role, text) for role, text in row["messages"])
        found.append(Example(row["label"], f"own:{row['group']}", row.get("system"), turns))
    return found


def wrapped_examples() -> list[Example]:
    """Wrap hard texts in easy tasks: each template of `wrapped.json` around a few of its texts."""
    table = json.loads((PROMPTS / "wrapped.json").read_text(encoding="utf-8"))
    hard = [text for _, text in table["hard"]]
    found: list[Example] = []
    for number, (language, template) in enumerate(table["easy"]):
        for turn in range(TEXTS_PER_TEMPLATE):
            text = hard[(number * 3 + turn * 5) % len(hard)]
            message = Message.of("user", template.replace("{}", text))
            found.append(Example("fast", f"wrap:{language}", None, (message,)))
    return found


def around_examples() -> list[Example]:
    """Put easy tasks and analysis around long texts that name no task themselves: as a request, and as a system prompt."""
    table = json.loads((PROMPTS / "around.json").read_text(encoding="utf-8"))
    texts = [text for _, text in table["texts"]]
    found: list[Example] = []
    for label in ("fast", "smart"):
        for number, (language, template) in enumerate(table[label]):
            for turn in range(TEXTS_PER_TEMPLATE):
                message = Message.of("user", template.replace("{}", texts[(number * 3 + turn * 5) % len(texts)]))
                found.append(Example(label, f"around:{language}", None, (message,)))
        for system in table["system"][label]:
            found += [Example(label, "around:system", system, (Message.of("user", text),)) for text in texts[::2]]
    return found


def our_examples() -> list[Example]:
    """All requests that the table is fitted on."""
    return own_examples() + wrapped_examples() + around_examples()


def routes(folder: Path) -> list[Example]:
    """Read `routes.jsonl` of a folder of data."""
    found: list[Example] = []
    for line in (folder / "routes.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        turns = tuple(_message(turn["role"], turn["content"]) for turn in row["messages"])
        found.append(Example(row["label"], row["group"], None, turns, row.get("lang", "en")))
    return found


def source_of(group: str) -> str:
    """Name the source that a group is of."""
    return re.split(r"[:/]", group, maxsplit=1)[0]


def weights_of(examples: Sequence[Example]) -> list[float]:
    """Weigh each example: those of our own whole, those made from a template and a text half, and all by their label."""
    weights = [1.0 if source_of(example.group) == "own" else 0.5 for example in examples]
    sums = {label: sum(w for w, e in zip(weights, examples, strict=True) if e.label == label) for label in KINDS}
    return [
        LABELS[example.label] * weight * len(examples) / len(KINDS) / sums[example.label]
        for weight, example in zip(weights, examples, strict=True)
    ]


def fit(rows: Sequence[dict[str, float]], labels: Sequence[int], weights: Sequence[float]) -> dict[str, list[float]]:
    """Fit three weights for each feature, and for `bias`, by accelerated gradient steps from zero."""
    names = sorted({name for row in rows for name in row})
    place = {name: number for number, name in enumerate(names)}
    width = len(names) + 1
    sparse = [[(place[name], value) for name, value in row.items() if value] + [(width - 1, 1.0)] for row in rows]
    point = [[0.0] * 3 for _ in range(width)]
    ahead = [[0.0] * 3 for _ in range(width)]
    # A diagonal bound of the curvature serves as the step of each feature.
    curve = [0.0] * width
    for weight, row in zip(weights, sparse, strict=True):
        total = sum(abs(value) for _, value in row)
        for number, value in row:
            curve[number] += 0.25 * weight * abs(value) * total
    momentum = 1.0
    for _ in range(STEPS):
        slope = [[PENALTY * ahead[n][k] if n < width - 1 else 0.0 for k in range(3)] for n in range(width)]
        for row, label, weight in zip(sparse, labels, weights, strict=True):
            a = b = c = 0.0
            for number, value in row:
                at = ahead[number]
                a += at[0] * value
                b += at[1] * value
                c += at[2] * value
            top = max(a, b, c)
            e = [math.exp(a - top), math.exp(b - top), math.exp(c - top)]
            norm = weight / (e[0] + e[1] + e[2])
            e = [e[0] * norm, e[1] * norm, e[2] * norm]
            e[label] -= weight
            for number, value in row:
                at = slope[number]
                at[0] += e[0] * value
                at[1] += e[1] * value
                at[2] += e[2] * value
        later = (1 + math.sqrt(1 + 4 * momentum * momentum)) / 2
        push = (momentum - 1) / later
        momentum = later
        for number in range(width):
            step = 1.0 / (curve[number] + PENALTY)
            for kind in range(3):
                moved = ahead[number][kind] - step * slope[number][kind]
                ahead[number][kind] = moved + push * (moved - point[number][kind])
                point[number][kind] = moved
    return {name: point[place[name]] for name in names} | {"bias": point[-1]}


def render(table: dict[str, list[float]]) -> str:
    """Write a table, one feature a line, weights in hundredths; features that say nothing are left out."""
    kept = {
        name: [round(100 * weight) for weight in row]
        for name, row in sorted(table.items())
        if name == "bias" or max(row) - min(row) >= 0.08
    }
    lines = (f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'))}" for name, row in kept.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fit the weights of the auto classifier.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the table differs")
    options = parser.parse_args(arguments)
    examples = our_examples()
    rows = [features(example.messages, example.system) for example in examples]
    labels = [KINDS.index(example.label) for example in examples]
    text = render(fit(rows, labels, weights_of(examples)))
    if options.check:
        same = TABLE.read_text(encoding="utf-8") == text
        print("The table is up to date." if same else "The table differs from a fit of the requests.")
        return 0 if same else 1
    TABLE.write_text(text, encoding="utf-8")
    print(f"{len(examples)} requests, {text.count(chr(10)) - 2} features, {len(text)} bytes: {TABLE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
