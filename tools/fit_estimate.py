# mypy: disable-error-code="import-not-found,no-any-return"
"""Fit the estimator's table on texts with true counts, and write it.

    python -m tools.fit_estimate FOLDER [FOLDER ...] [--out TABLE.json]

A folder holds what `make_token_truth.py` writes; `characters.jsonl` and `hostile.jsonl` must be among it. Rows without
`starts` (totals only) are passed over. The same rows give the same bytes. Needs numpy; the library itself does not.

Theory: a text's tokens are the sum, over its characters, of the tokens that start there. The fit spreads each
character's mean over four tables that the estimator looks up: the pair of characters' classes, the triple of folded
letters, the place in a run, and (not Latin) a hash of three classes. Every cost is at least zero, which makes the sum
monotone. Leaving groups out in turn gives the margin that `upper` needs and the correction for Latin languages.
"""

import argparse
import hashlib
import json
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from tools.estimate_model import (
    FREE,
    GROUPS,
    SIZES,
    VOCABULARIES,
    Classes,
    Floats,
    Ints,
    Row,
    cluster,
    fit,
    labels,
    weigh,
)  # fmt: skip

UNIT = 1000  # costs are whole thousandths of a token
FOLDS = 3
CODES = "".join(chr(i) for i in range(33, 127) if chr(i) not in '"\\0123456789')
TARGET = Path(__file__).parent.parent / "floop_gateway_core" / "policy" / "tables" / "estimate.json"
MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&()"
SKEW_LIMIT = 0.35
# Name, rows, codewords (more than fit one character take two), least weight of a cell that is kept.
SHAPES = (
    ("pairs", 256, len(CODES), 5.0), ("triples", 32, len(CODES), 1.5),
    ("places", 64, 200, 1.0), ("hashes", 256, len(CODES), 4.0),
)  # fmt: skip
SCRIPTS = (
    "CYRILLIC GREEK", "ARABIC", "DEVANAGARI", "BENGALI TAMIL TELUGU KANNADA MALAYALAM GUJARATI GURMUKHI SINHALA ORIYA",
    "HAN KANA CJKP HANGUL", "HEBREW THAI LAO KHMER MYANMAR TIBETAN GEORGIAN ARMENIAN ETHIOPIC OTHER",
)  # fmt: skip
ROOT, FIXED = 0.8, 1.0  # upper = sum * margin + ROOT * sqrt(sum) + FIXED


def fold_of(row: Row) -> int:
    """Which third a row is left out with: its whole group, a language for the declaration, a text for made ones."""
    key = row["id"] if row["group"] == "synthetic" else row["group"]
    if key == "udhr":
        key = "udhr/" + row["id"].split("/")[1].split(".")[0].split("_")[0]
    return hashlib.sha256(key.encode()).digest()[0] % FOLDS


def read(folders: list[Path]) -> tuple[list[Row], list[Row], list[Row]]:
    """Return (ordinary rows, hostile rows, rows of single characters), ordered by a hash, capped for each group."""
    ordinary: list[Row] = []
    hostile: list[Row] = []
    alone: list[Row] = []
    for folder in folders:
        for path in sorted(folder.glob("*.jsonl")):
            for line in path.open(encoding="utf-8"):
                row = json.loads(line)
                if "starts" in row:
                    {"hostile": hostile, "characters": alone}.get(row["kind"], ordinary).append(row)
    ordinary.sort(key=lambda r: hashlib.sha256(r["id"].encode()).digest())
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for row in ordinary:
        key = row["group"], row["kind"]
        if taken[key] <= (500_000 if row["group"] in ("udhr", "synthetic") else 60_000) and row["chars"] > 2:
            taken[key] += row["chars"]
            kept.append(row)
    return kept, hostile, alone


def skew_features(text: str, classes: Classes, letters_cost: float, foreign_cost: float) -> list[float]:
    """What tells one language from another of its script; the library's `_skew` must agree with it."""
    c = classes.map[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    kinds = np.bincount(classes.kind[c], minlength=256)
    lower, upper, spaces = int(kinds[1]), int(kinds[2]), int(kinds[4])
    letters = lower + upper
    share, cost = letters / len(c), (letters_cost + 1.25) / (letters + 5)
    scripts = [sum(int(kinds[128 + list(GROUPS).index(g)]) for g in members.split()) for members in SCRIPTS]
    each = foreign_cost / (sum(scripts) + 5)
    foreign = [s / len(c) * x for s in scripts for x in (1.0, each, max(0.0, each - 0.25), max(0.0, each - 0.5))]
    return [
        share, share * cost, share * max(0.0, cost - 0.12), share * max(0.0, cost - 0.2), share * max(0.0, cost - 0.3),
        share * min(0.4, spaces / max(1, letters)), share * upper / max(1, letters),
        *foreign,
    ]  # fmt: skip


def fit_skew(xs: Floats, ratios: Floats, weights: Floats) -> Floats:
    scale = xs.std(0) + 1e-6
    z = xs / scale
    ridge = np.eye(xs.shape[1]) * len(z) * 0.003
    return np.asarray(np.linalg.solve(z.T @ (z * weights[:, None]) + ridge, z.T @ (ratios * weights)) / scale)


def weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values, kind="stable")
    heap = np.cumsum(weights[order])
    return float(values[order[min(len(order) - 1, int(np.searchsorted(heap, heap[-1] * share)))]])


def report(rows: list[Row], expected: Floats, upper: Floats, truth: Floats) -> None:
    """Print what leaving groups out gives: mean error of each kind, and the bars."""
    print("groups left out".ljust(18), "texts", *(v[:8].rjust(8) for v in VOCABULARIES))
    errors: dict[str, list[Floats]] = defaultdict(list)
    for row, e, t in zip(rows, expected, truth, strict=True):
        errors[row["kind"]].append(np.abs(e / t - 1))
    means = {kind: np.mean(found, axis=0) for kind, found in sorted(errors.items())}
    for kind, mean in means.items():
        print(kind.ljust(18), f"{len(errors[kind]):5}", *(f"{100 * x:8.1f}" for x in mean))
    print("mean of kinds %".ljust(24), *(f"{100 * x:8.1f}" for x in np.mean(list(means.values()), axis=0)))
    enough = truth[:, 0] >= 100
    p95 = np.percentile(np.abs(expected / truth - 1)[enough], 95, axis=0)
    print("95th percentile %".ljust(24), *(f"{100 * x:8.1f}" for x in p95))
    print("upper >= truth %".ljust(24), *(f"{100 * x:8.1f}" for x in (upper >= truth).mean(0)))
    print("upper / truth".ljust(24), *(f"{x:8.2f}" for x in (upper / truth).mean(0)))


def with_defaults(
    tables: list[Floats], cells: list[Ints], hostile: list[tuple[list[Ints], Floats]]
) -> tuple[list[Floats], Floats]:
    """Give each pair that ordinary texts never held what its second character costs after a stranger."""
    heard = np.bincount(cells[0], minlength=SIZES[0]).astype(float)
    num, den = np.zeros((256, 8)), np.full((256, 1), 1e-9)
    for their, starts in hostile:
        new = heard[their[0]] == 0
        rest = (starts - sum(tables[k][their[k]] for k in (1, 2, 3)))[new]
        np.add.at(num, their[0][new] & 255, rest)
        np.add.at(den, their[0][new] & 255, 1)
    default = np.maximum(0, num / den)
    spread = np.tile(default, (256, 1))
    pairs = (heard[:, None] * tables[0] + 2 * spread) / (heard[:, None] + 2)
    zero = (tables[0] == 0).all(1) & (heard > 0)
    pairs[zero] = 0
    pairs[heard == 0] = spread[heard == 0]
    for d in range(256):  # a run is the place table's matter, even an unheard-of one
        if heard[d << 8 | d] and zero[d << 8 | d]:
            pairs[d << 8 | d] = 0
    return [pairs, *tables[1:]], default


def encode_codes(codes: list[int], wide: bool) -> str:
    """Write codes as one character or two, and a number for that many cells that hold the default."""
    out, gap = [], 0
    for code in codes:
        if code < 0:
            gap += 1
            continue
        name = CODES[code // len(CODES)] + CODES[code % len(CODES)] if wide else CODES[code]
        out.append(f"{gap or ''}{name}")
        gap = 0
    return "".join(out)


def quantise(
    table: Floats, weights: Floats, default: Floats, shape: tuple[str, int, int, float]
) -> tuple[dict[str, Any], Floats]:
    """Return a table as (scales, a codebook, a string for each row of cells) and as the library will read it.

    A cell's cost is its codeword times the scale of its last class: vocabularies differ by script, and the scale says
    so once for all cells of a class, which leaves the codewords to say how a class's neighbours differ.
    """
    name, rows, words, least = shape
    flat = np.tile(default, (len(table) // len(default), 1))
    own = (np.abs(table - flat).max(1) > 0.002) & (weights >= least)
    mine = np.nonzero(own)[0]
    scale = np.ones((256, 8))
    if name in ("pairs", "hashes"):
        num, den = np.zeros((256, 8)), np.full((256, 1), 1e-9)
        np.add.at(num, mine & 255, table[mine] * weights[mine, None])
        np.add.at(den, mine & 255, weights[mine, None])
        scale = np.round(np.maximum(0.01, num / den) * UNIT) / UNIT
    ratio = table[mine] / scale[mine & 255]
    heavy = (weights[mine] + 0.5) ** 0.8 * np.maximum(0.05, scale[mine & 255].mean(1))
    # The root keeps small costs apart: those of long runs are small, and there are many of them in a row.
    chosen = cluster(np.sqrt(ratio + 0.002), heavy, words)
    book = np.zeros((words, 8))
    for i in range(words):
        part = chosen == i
        if part.any():
            by = (weights[mine][part, None] + 0.5) * scale[mine & 255][part]
            book[i] = (ratio[part] * by).sum(0) / by.sum(0)
    book = np.round(book * UNIT) / UNIT
    codes = np.full(len(table), -1)
    codes[mine] = chosen
    width = len(table) // rows
    lines = {
        f"{i:02x}": encode_codes(codes[i * width : (i + 1) * width].tolist(), words > len(CODES)) for i in range(rows)
    }
    read_back = flat.copy()
    read_back[mine] = book[chosen] * scale[mine & 255]
    described: dict[str, Any] = {"codebook": np.round(book * UNIT).astype(int).tolist()}
    if name in ("pairs", "hashes"):
        described["scale"] = np.round(scale * UNIT).astype(int).tolist()
    return described | {"cells": {row: line for row, line in lines.items() if line}}, np.round(read_back * UNIT) / UNIT


def write_characters(classes: Classes) -> str:
    """Write the classes of U+0080 to U+2FFFF: a mark opens each group, then letters count its classes, 5a is aaaaa."""
    mark = dict(zip(GROUPS, MARKS, strict=True))
    first: dict[str, int] = {}
    for i, c in enumerate(FREE[1:]):
        if c in classes.group:
            first.setdefault(classes.group[c], i)
    place = {c: i for i, c in enumerate(FREE[1:])}
    values = classes.map[128:0x30000].tolist()
    out, group, i = [], "", 0
    while i < len(values):
        j = i
        while j < len(values) and values[j] == values[i]:
            j += 1
        now = classes.group[values[i]]
        letter = chr(97 + place[values[i]] - first[now])
        out.append((mark[now] if now != group else "") + (f"{j - i}{letter}" if j - i > 2 else letter * (j - i)))
        group, i = now, j
    return "".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        if not folder.is_dir():
            print(f"no folder {folder}", file=sys.stderr)
            return 2
    ordinary, hostile, alone = read(arguments.folders)
    if not (ordinary and hostile and alone):
        print("the folders must hold ordinary rows, hostile.jsonl and characters.jsonl", file=sys.stderr)
        return 2
    classes = Classes(ordinary, alone)
    cells = [classes.features(row["text"]) for row in ordinary]
    starts = [labels(row).astype(np.float32) for row in ordinary]
    hostile_cells = [(list(classes.features(row["text"])), labels(row).astype(float)) for row in hostile]
    truth = np.array([[row["counts"][v] for v in VOCABULARIES] for row in ordinary], float)

    def learn(rows: list[int]) -> list[Floats]:
        joined = [np.concatenate([cells[i][k] for i in rows]) for k in range(4)]
        weights = weigh([ordinary[i] for i in rows])
        tables = fit(joined, np.concatenate([starts[i] for i in rows]), weights)
        defaulted, default = with_defaults(tables, joined, hostile_cells)
        out, book = [], []
        for k, shape in enumerate(SHAPES):
            heavy = np.bincount(joined[k], weights=weights, minlength=SIZES[k]).astype(np.float64)
            described, table = quantise(defaulted[k], heavy, default if k == 0 else np.zeros((1, 8)), shape)
            out.append(table)
            book.append((shape[0], described))
        learn.described = dict(book) | {"default": np.round(default * UNIT).astype(int).tolist()}  # type: ignore[attr-defined]
        return out

    sums = np.zeros((len(ordinary), 8))
    triples, hashes = np.zeros((len(ordinary), 8)), np.zeros((len(ordinary), 8))
    for f in range(FOLDS):
        tables = learn([i for i, r in enumerate(ordinary) if fold_of(r) != f])
        for i, row in enumerate(ordinary):
            if fold_of(row) == f:
                sums[i] = sum(tables[k][cells[i][k]].sum(0) for k in range(4))
                triples[i], hashes[i] = tables[1][cells[i][1]].sum(0), tables[3][cells[i][3]].sum(0)
    kinds = Counter(row["kind"] for row in ordinary)
    weights = np.array([row["chars"] / (row["chars"] + 200) / kinds[row["kind"]] ** 0.6 for row in ordinary])
    weights /= weights.mean()
    skew, margin = [], []
    expected, upper = sums.copy(), sums.copy()
    for v in range(8):
        xs = np.array([skew_features(r["text"], classes, triples[i, v], hashes[i, v]) for i, r in enumerate(ordinary)])
        ratios = np.clip(np.log((truth[:, v] + 1) / (sums[:, v] + 1)), -0.5, 0.5)
        ratios[np.array([r["group"] == "synthetic" for r in ordinary])] *= 0.3
        beta = fit_skew(xs, ratios, weights)
        skew.append([round(float(b), 4) for b in beta])
        expected[:, v] = sums[:, v] * np.exp(np.clip(xs @ beta, -SKEW_LIMIT, SKEW_LIMIT))
        need = (truth[:, v] - ROOT * np.sqrt(sums[:, v]) - FIXED) / np.maximum(sums[:, v], 1)
        margin.append(math.ceil(100 * weighted_quantile(need, weights, 0.992)) / 100)
        upper[:, v] = np.ceil(margin[v] * sums[:, v] + ROOT * np.sqrt(sums[:, v]) + FIXED)
    report(ordinary, np.round(expected), upper, truth)
    learn(list(range(len(ordinary))))
    table = {
        "about": "Costs of characters in thousandths of a token, written by tools/fit_estimate.py; see policy/_tokens.py.",
        "unit": UNIT, "vocabularies": VOCABULARIES, "codes": CODES, "free": FREE, "marks": MARKS,
        "skew": dict(zip(VOCABULARIES, skew, strict=True)), "margin": dict(zip(VOCABULARIES, margin, strict=True)),
        "root": ROOT, "fixed": FIXED,
        "scripts": [[128 + list(GROUPS).index(g) for g in members.split()] for members in SCRIPTS],
        "views": {name: bytes(view.tolist()).hex() for name, view in classes.views.items()},
        "groups": {name: count for name, (count, _) in GROUPS.items()}, "characters": write_characters(classes),
        **learn.described,  # type: ignore[attr-defined]
    }  # fmt: skip
    lines = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in table.items()]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes from {len(ordinary)} texts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
