# mypy: disable-error-code="import-not-found,no-any-return"
"""Fit what long runs cost, and write it into the estimator's table as its `runs`; run it behind `fit_estimate`.

    python -m tools.fit_runs --litellm FOLDER --lenml FOLDER [--texts FILE.jsonl ...]

Ordinary texts hold runs of a few characters only ("----", "0000"), so the table's cells know nothing of `7777…`, and a
cost of nothing is what a text made to be under-estimated looks for. This program counts runs of every class with the
real tokenizers (see `make_token_truth` for the two folders) and notes what a character deep in one must cost at the
least. The same tokenizers give the same bytes.

`--texts` are ordinary texts with true counts that the fit has not seen: the margins of `upper` are set anew on them, each
the least with which `upper` holds for `HOLDS` of them.

A rule is (place rows, classes, codes): the library raises those cells of `places` to the codewords that stand there.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from floop_gateway_core.policy import _tokens
from floop_gateway_core.policy.estimate import EXACT_CHARACTERS
from tools.estimate_model import VOCABULARIES, Floats, cluster
from tools.fit_estimate import CODES, FIXED, ROOT, TARGET
from tools.make_token_truth import load_counters

WORDS = 48
HOLDS = 0.995
MARGIN = 1.2
SAMPLES = 12
SHORT, LONG = (4, 12), (256, 1280)
LEVEL_2, LEVEL_3 = range(0x23, 0x2C), range(0x3C, 0x40)
BLANKS = range(0x0C, 0x10)  # many blanks of changing kinds: level 0, deep in the run
PATTERNS = {"\r\n": "\n", "\n\r": "\r", " \t": "\t", "\t ": " "}

Counters = dict[str, Callable[[str], int]]


def run_cost(text: str, span: tuple[int, int], counts: Counters) -> Floats:
    """Give what one more character costs between two lengths of a repeated text, for each vocabulary."""
    first, last = (text * (length // len(text) + 1) for length in span)
    first, last = first[: span[0]], last[: span[1]]
    return np.array([(counts[v](last) - counts[v](first)) / (span[1] - span[0]) for v in VOCABULARIES])


def known_cost(text: str, span: tuple[int, int], *, places: bool) -> Floats:
    """Give what the table says of the same characters, in tokens: all of it, or all but the places in runs."""
    out = []
    for vocabulary in VOCABULARIES:
        costs = _tokens.load_costs(vocabulary)
        if not places:
            costs = replace(costs, places=[0] * len(costs.places))
        sums = [_tokens.add_up(_tokens.classify((text * length)[:length]), costs).total for length in span]
        out.append((sums[1] - sums[0]) / (span[1] - span[0]))
    return np.array(out)


def lacking(texts: list[str], span: tuple[int, int], counts: Counters) -> Floats | None:
    """Give what a place must cost for runs of these texts; None where the table's own figure holds, by its margin."""
    truth = np.mean([run_cost(text, span, counts) for text in texts], axis=0)
    known = np.mean([known_cost(text, span, places=True) for text in texts], axis=0)
    if (known * MARGIN >= truth - 0.004).all():
        return None
    return np.maximum(0, truth - np.mean([known_cost(text, span, places=False) for text in texts], axis=0))


def members(code: int) -> list[str]:
    """Give some characters of a class, spread over it."""
    classes = _tokens.load_classes()
    found = [chr(i) for i in range(0x30000) if classes.of_character[i] == code and not 0xD800 <= i < 0xE000]
    step = max(1, len(found) // SAMPLES)
    return found[::step][:SAMPLES]


def floors(counts: Counters) -> list[tuple[range, int, Floats]]:
    """Give (place rows, class, cost) for every class of which runs cost more than the table knows."""
    asked: list[tuple[range, int, tuple[int, int], list[str]]] = []
    for code in range(256):
        if chars := members(code):
            asked += [(LEVEL_2, code, SHORT, chars)] if code < 128 else []
            asked.append((LEVEL_3, code, LONG, chars))
    asked += [(BLANKS, ord(last), LONG, [pattern]) for pattern, last in PATTERNS.items()]
    found = [(rows, code, lacking(texts, span, counts)) for rows, code, span, texts in asked]
    return [(rows, code, cost) for rows, code, cost in found if cost is not None]


def encode(found: list[tuple[range, int, Floats]]) -> dict[str, Any]:
    points = np.array([cost for _, _, cost in found])
    chosen = cluster(np.sqrt(points + 0.002), np.ones(len(points)), WORDS)
    book = np.zeros((WORDS, 8))
    for i in set(chosen.tolist()):
        mine = points[chosen == i]
        book[i] = (mine.mean(0) + mine.max(0)) / 2  # a codeword rather too dear than too cheap
    rules: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (rows, code, _), word in zip(found, chosen.tolist(), strict=True):
        rules.setdefault((rows.start, rows.stop), []).append((code, word))
    return {
        "codebook": np.round(book * 1000).astype(int).tolist(),
        "rules": [
            [first, last, bytes(code for code, _ in cells).hex(), "".join(CODES[word] for _, word in cells)]
            for (first, last), cells in rules.items()
        ],
    }


def margins(files: list[Path]) -> dict[str, float]:
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    out = {}
    for vocabulary in VOCABULARIES:
        costs, need = _tokens.load_costs(vocabulary), []
        for row in rows:
            held = _tokens.add_up(_tokens.classify(row["text"][:EXACT_CHARACTERS]), costs).total
            if row["text"] and len(row["text"]) <= EXACT_CHARACTERS:
                need.append((row["counts"][vocabulary] - ROOT * math.sqrt(held) - FIXED) / max(held, 1))
        out[vocabulary] = math.ceil(100 * sorted(need)[int(HOLDS * len(need))]) / 100
    return out


def _count(starts: Callable[[str], list[int]], text: str) -> int:
    return sum(starts(text))


def write(table: dict[str, Any], path: Path) -> None:
    """Write the table, and let the library read it anew."""
    lines = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in table.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    for cached in (_tokens._table, _tokens.load_classes, _tokens.load_costs):
        cached.cache_clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", type=Path, required=True)
    parser.add_argument("--lenml", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    for folder in (arguments.litellm, arguments.lenml):
        if not folder.is_dir():
            print(f"no folder {folder}", file=sys.stderr)
            return 2
    table = json.loads(TARGET.read_text("utf-8"))
    table.pop("runs", None)
    write(table, TARGET)  # what runs cost without their rules is what the rules are made from
    starts = load_counters(arguments.litellm, arguments.lenml)
    table["runs"] = encode(floors({name: partial(_count, count) for name, count in starts.items()}))
    write(table, TARGET)
    if arguments.texts:
        table |= {"margin": margins(arguments.texts), "root": ROOT, "fixed": FIXED}
        write(table, TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
