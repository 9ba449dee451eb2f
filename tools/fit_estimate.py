# mypy: disable-error-code="import-not-found,no-any-return"
"""Fit the estimator's table on texts with true counts, and write it.

    python -m tools.fit_estimate FOLDER [FOLDER ...] [--out TABLE.zip | --without TABLE | --unseen GROUP]

A folder holds what `make_token_truth.py` writes; `characters.jsonl`, `hostile.jsonl` and `runs.jsonl` must be among it.
The same rows give the same table. Needs numpy; the library itself does not. Run `fit_strange.py` after it. `--without`
fits without one of the tables and writes nothing: what it prints shows what that table earns. `--unseen` fits without the
rows of one group and prints how well they are estimated.

Theory: a text's tokens are the sum, over its characters, of the tokens that start there. The fit spreads each
character's mean over four tables that the estimator looks up: the pair of characters' classes, the triple of folded
letters, the place in a run, and (not Latin) a hash of three classes. Then it scales the cells until whole texts come
out right, which tells one language from another. Every cost is at least zero, which makes the sum monotone.
The margin of `upper` is the largest that keeps the mean of upper / truth within `SPENDS`; leaving groups and
languages out in turn shows what it covers.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from floop_gateway_core.policy.tokens.estimate import VOCABULARIES
from floop_gateway_core.policy.tokens.tables import DEEP, LINE_ENDS, UNIT
from tools.estimate_model import (
    SIZES,
    Bytes,
    Classes,
    Corpus,
    Floats,
    Ints,
    Row,
    cluster,
    labels,
    language_of,
)  # fmt: skip

FOLDS = 3
TARGET = Path(__file__).parent.parent / "floop_gateway_core" / "policy" / "tokens" / "tables" / "estimate.zip"
# Of each table, in the order in which they are written: its name, codewords, and the least weight of a cell that is kept.
SHAPES = {0: ("pairs", 1000, 1.0), 1: ("triples", 500, 1.5), 3: ("hashes", 400, 1.0), 2: ("places", 600, 0.3)}
DEEP_CELLS = np.arange(DEEP.start << 8, DEEP.stop << 8)
ROOT, FIXED = 0.8, 1.0  # upper = sum * margin + ROOT * sqrt(sum) + FIXED
SPENDS = 1.30  # the mean of upper / truth that the margin is chosen for
RUN_FROM = 128  # a run is measured behind so many characters
OWN = ("characters", "hostile", "runs")
ABOUT = (
    "Costs in thousandths of a token, by tools/fit_estimate.py and fit_strange.py; policy/tokens/tables.py reads them."
)
_corpus: Corpus | None = None


def fold_of(row: Row) -> int:
    """Which third a row is left out with: its whole group, a language for translations, a text for made ones."""
    key = row["id"] if row["group"] == "synthetic" else row["group"]
    if key in ("udhr", "mediawiki"):
        key = language_of(row)
    return hashlib.sha256(key.encode()).digest()[0] % FOLDS


def read(folders: list[Path]) -> tuple[list[Row], dict[str, list[Row]]]:
    """Return (ordinary rows, own rows by kind), ordered by a hash, capped for each group."""
    ordinary: list[Row] = []
    own: dict[str, list[Row]] = {kind: [] for kind in OWN}
    for folder in folders:
        for path in sorted(folder.glob("*.jsonl")):
            for line in path.open(encoding="utf-8"):
                row = json.loads(line)
                if "starts" in row:
                    own.get(row["kind"], ordinary).append(row)
    ordinary.sort(key=lambda r: hashlib.sha256(r["id"].encode()).digest())
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for row in ordinary:
        key = row["group"], row["kind"]
        if (
            taken[key] <= (3_000_000 if row["group"] in ("udhr", "mediawiki", "synthetic") else 60_000)
            and row["chars"] > 2
        ):
            taken[key] += row["chars"]
            kept.append(row)
    return kept, own


def report(rows: list[Row], expected: Floats, truth: Floats) -> None:
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
    print("bias %".ljust(24), *(f"{100 * x:+8.1f}" for x in expected.sum(0) / truth.sum(0) - 1))


def _heard(cells: list[tuple[Ints, Ints, Ints, Ints]]) -> Floats:
    """How often ordinary texts have each pair."""
    return np.bincount(np.concatenate([pair for pair, _, _, _ in cells]), minlength=SIZES[0]).astype(np.float64)


def with_defaults(
    tables: list[Floats], heard: Floats, cells: list[tuple[Ints, Ints, Ints, Ints]], starts: list[Bytes]
) -> tuple[list[Floats], Floats]:
    """Give each pair that ordinary texts never held what its second character costs after a stranger."""
    num, den = np.zeros((256, 8)), np.full((256, 1), 1e-9)
    for theirs, truth in zip(cells, starts, strict=True):
        new = heard[theirs[0]] == 0
        rest = (truth.astype(float) - sum(tables[k][theirs[k]] for k in (1, 2, 3)))[new]
        np.add.at(num, theirs[0][new] & 255, rest)
        np.add.at(den, theirs[0][new] & 255, 1)
    default = np.maximum(0, num / den)
    spread = np.tile(default, (256, 1))
    pairs = (heard[:, None] * tables[0] + 2 * spread) / (heard[:, None] + 2)
    zero = (tables[0] == 0).all(1) & (heard > 0)
    pairs[zero] = 0
    pairs[heard == 0] = spread[heard == 0]
    for d in range(256):  # a run is the place table's matter, even an unheard-of one
        if d < 128 or (heard[d << 8 | d] and zero[d << 8 | d]):
            pairs[d << 8 | d] = 0
    return [pairs, *tables[1:]], default


def run_costs(own: dict[str, list[Row]], classes: Classes) -> tuple[Floats, Floats]:
    """Return what each further character of a class costs in a long run of one sign, and of two that take turns.

    A class of many characters gets its dearest's figure; one of which no run was counted, what it costs alone.
    """
    one, two, alone = np.zeros((256, 8)), np.zeros((256, 8)), np.zeros((256, 8))
    for row in own["characters"]:
        for i in range(0, len(row["text"]), 2):
            code = classes.map[ord(row["text"][i])]
            alone[code] = np.maximum(alone[code], [int(row["starts"][v][i]) for v in VOCABULARIES])
    for row in own["runs"]:
        further = len(row["text"]) - RUN_FROM
        each = [sum(map(int, row["starts"][v][RUN_FROM:])) / further for v in VOCABULARIES]
        table = one if row["sub"] == "one" else two
        code = classes.map[ord(row["text"][-1])]
        table[code] = np.maximum(table[code], each)
    counted = one.sum(1, keepdims=True) > 0
    return np.where(counted, one, alone), two


def with_runs(tables: list[Floats], classes: Classes, one: Floats, two: Floats) -> list[Floats]:
    """Set what the place of a character deep in a run costs: what the other tables leave of what the run costs."""
    places = tables[2].copy()
    members = np.bincount(classes.map, minlength=256)
    for code in range(256):
        fold = int(classes.fold[code])
        hashed = int(classes.far[code] ^ classes.near[code]) << 8 | code
        rest = one[code] - tables[0][code << 8 | code] - tables[1][fold << 10 | fold << 5 | fold]
        rest -= tables[3][hashed] if classes.foreign[code] else 0
        many = members[code] > 1  # such a run may be of different characters of the class
        for row in DEEP:
            places[row << 8 | code] = np.maximum(places[row << 8 | code] if many else 0, rest)
        for row in LINE_ENDS:
            places[row << 8 | code] = np.maximum(places[row << 8 | code], two[code])
    return [tables[0], tables[1], places, tables[3]]


def rounded(costs: Floats, bits: int = 6) -> Floats:
    """Round costs to thousandths of a token and to so many significant bits, which pack better than all ten or eleven."""
    figures = np.round(costs * UNIT).astype(np.int64)
    unit = 1 << np.maximum(0, np.floor(np.log2(np.maximum(figures, 1))).astype(np.int64) - (bits - 1))
    return np.round(figures / unit) * unit / UNIT  # half to even: half up would make all costs dearer


def quantise(
    table: Floats, weights: Floats, flat: Floats, shape: tuple[str, int, float]
) -> tuple[Floats, Ints, Floats]:
    """Return (a codebook, each cell's codeword, the table as the library will read it).

    Codeword 0 is "as nothing else is known": the default that `flat` gives. A cell costs its codeword times the scale
    of its last class, which the codebook's first 256 rows hold: vocabularies differ by script, and the scale says so
    once, which leaves the codewords to say how a class's neighbours differ.
    """
    name, words, least = shape
    own = (np.abs(table - flat).max(1) > 0.002) & (weights >= least)
    mine = np.nonzero(own)[0]
    scale = np.ones((256, 8))
    if name in ("pairs", "hashes"):
        num, den = np.zeros((256, 8)), np.full((256, 1), 1e-9)
        root = np.sqrt(weights[mine, None])  # so that a class's rare cells have a say
        np.add.at(num, mine & 255, table[mine] * root)
        np.add.at(den, mine & 255, root)
        scale = rounded(np.maximum(0.01, num / den), 7)
    ratio = table[mine] / scale[mine & 255]
    heavy = (weights[mine] + 0.5) ** 0.8 * np.maximum(0.05, scale[mine & 255].mean(1))
    # The root keeps small costs apart: those of long runs are small, and there are many of them in a row.
    chosen = cluster(np.sqrt(ratio + 0.002), heavy, words - 1)
    book = np.zeros((words, 8))
    for i in range(words - 1):
        part = chosen == i
        if part.any():
            by = (weights[mine][part, None] + 0.5) * scale[mine & 255][part]
            book[i + 1] = (ratio[part] * by).sum(0) / by.sum(0)
    book = rounded(book, 7 if name == "pairs" else 6)
    codes = np.zeros(len(table), np.int32)
    codes[mine] = chosen + 1
    read_back = flat.copy()
    read_back[mine] = book[codes[mine]] * scale[mine & 255]
    return np.concatenate([scale, book]), codes, np.round(read_back * UNIT) / UNIT


def _column(column: int) -> list[Floats]:
    assert _corpus is not None
    return _corpus.fit(column)


def _tuned(task: tuple[int, list[Floats], Sequence[int]]) -> list[Floats]:
    assert _corpus is not None
    column, tables, free = task
    return _corpus.tune(tables, column, free)


class Fit:
    """All rows, and what is learnt from some of them."""

    def __init__(self, ordinary: list[Row], own: dict[str, list[Row]], without: str | None = None) -> None:
        self.fitted = [k for k, (name, _, _) in SHAPES.items() if name != without]
        self.rows = ordinary
        self.classes = Classes(ordinary, own["characters"])
        self.cells = [self.classes.features(row["text"]) for row in ordinary]
        self.starts = [labels(row) for row in ordinary]
        self.hostile = own["hostile"]
        self.hostile_cells = [self.classes.features(row["text"]) for row in self.hostile]
        self.hostile_starts = [labels(row) for row in self.hostile]
        self.runs = run_costs(own, self.classes)
        self.truth = np.array([[row["counts"][v] for v in VOCABULARIES] for row in ordinary], float)

    def learn(self, chosen: list[int]) -> tuple[dict[str, bytes], list[Floats]]:
        """Return the table's files, and the tables as the library will read them; works on every core."""
        global _corpus
        _corpus = Corpus(
            [self.rows[i] for i in chosen] + self.hostile,
            [self.cells[i] for i in chosen] + self.hostile_cells,
            [self.starts[i] for i in chosen] + self.hostile_starts,
            sorted(self.fitted),
        )
        columns = range(len(VOCABULARIES))
        heavy = [weight.copy() for weight in _corpus.heavy]
        heavy[2][DEEP_CELLS] = 0  # these cells have their own figures
        with multiprocessing.get_context("fork").Pool() as pool:

            def tuned(tables: list[Floats], free: Sequence[int]) -> list[Floats]:
                tasks = [(v, [table[:, v] for table in tables], free) for v in columns]
                found = pool.map(_tuned, tasks, chunksize=1)
                return [np.stack([one[k] for one in found], axis=1) for k in range(4)]

            fitted = pool.map(_column, columns, chunksize=1)
            tables = [np.stack([found[k] for found in fitted], axis=1) for k in range(4)]
            heard = _heard([self.cells[i] for i in chosen])
            tables, default = with_defaults(tables, heard, self.hostile_cells, self.hostile_starts)
            default = rounded(default)
            tables = tuned(tables, range(4))
            files = {"default": figures_bytes(default * UNIT)}
            left = list(self.fitted)
            while left:  # the tables that are not quantised yet compensate for what a codebook loses
                k = left.pop(0)
                name = SHAPES[k][0]
                flat = np.tile(default, (256, 1)) if k == 0 else np.zeros_like(tables[k])
                book, codes, read_back = quantise(tables[k], heavy[k], flat, SHAPES[k])
                files |= {f"{name}.book": figures_bytes(book * UNIT), f"{name}.cells": figures_bytes(codes)}
                if k == 2:
                    read_back[DEEP_CELLS] = tables[k][DEEP_CELLS]
                tables[k] = read_back
                if left:
                    tables = tuned(tables, left)
        one, two = self.runs
        tables = with_runs(tables, self.classes, one, two)
        tables[2][DEEP_CELLS] = np.round(tables[2][DEEP_CELLS] * UNIT) / UNIT
        files |= {"runs": figures_bytes(tables[2][DEEP_CELLS] * UNIT), "line_ends": figures_bytes(two * UNIT)}
        return files, tables


def figures_bytes(values: Any) -> bytes:
    """Return 16-bit figures as the library reads them: the low bytes of all, then the high ones."""
    both = np.round(np.asarray(values)).astype("<u2").tobytes()
    return both[::2] + both[1::2]


def write(path: Path, about: dict[str, Any], classes: Classes, files: dict[str, bytes]) -> None:
    """Write the table's files; `fit_strange.py` adds what it lacks."""
    views = b"".join(bytes(view.tolist()) for view in (classes.fold, classes.kind, classes.far, classes.near))
    files = {
        "about.json": json.dumps(about, indent=1).encode(),
        "characters": classes.map[:0x30000].tobytes(),
        "views": views,
    } | files
    write_archive(path, files)


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    """Write a ZIP archive; the order, the dates and the compression are fixed, so the same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)


def unseen(group: str, ordinary: list[Row], own: dict[str, list[Row]]) -> int:
    """Print how well a group is estimated that the fit has not seen."""
    rows = [row for row in ordinary if row["group"] == group]
    if not rows:
        print(f"no rows of the group {group}", file=sys.stderr)
        return 2
    seen = [row for row in ordinary if row["group"] != group]
    fit = Fit(seen, own)
    _, tables = fit.learn(list(range(len(seen))))
    cells = [fit.classes.features(row["text"]) for row in rows]
    expected = np.array([sum(tables[k][cell[k]].sum(0) for k in range(4)) for cell in cells])
    truth = np.array([[row["counts"][v] for v in VOCABULARIES] for row in rows], float)
    report(rows, np.round(expected), truth)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--without", choices=("triples", "hashes"))
    parser.add_argument("--unseen", metavar="GROUP")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        if not folder.is_dir():
            print(f"no folder {folder}", file=sys.stderr)
            return 2
    ordinary, own = read(arguments.folders)
    if not (ordinary and all(own.values())):
        print(f"the folders must hold ordinary rows, and rows of {', '.join(OWN)}", file=sys.stderr)
        return 2
    if arguments.unseen:
        return unseen(arguments.unseen, ordinary, own)
    fit = Fit(ordinary, own, arguments.without)
    expected = np.zeros((len(ordinary), 8))
    for fold in range(FOLDS):
        _, tables = fit.learn([i for i, row in enumerate(ordinary) if fold_of(row) != fold])
        for i, row in enumerate(ordinary):
            if fold_of(row) == fold:
                expected[i] = sum(tables[k][fit.cells[i][k]].sum(0) for k in range(4))
    beside = ((ROOT * np.sqrt(expected) + FIXED) / fit.truth).mean(0)
    margin = (np.floor(100 * (SPENDS - beside) / (expected / fit.truth).mean(0)) / 100).tolist()
    upper = np.ceil(expected * margin + ROOT * np.sqrt(expected) + FIXED)
    report(ordinary, np.round(expected), fit.truth)
    print("upper >= truth %".ljust(24), *(f"{100 * x:8.1f}" for x in (upper >= fit.truth).mean(0)))
    print("upper / truth".ljust(24), *(f"{x:8.2f}" for x in (upper / fit.truth).mean(0)))
    if arguments.without:
        return 0
    files, _ = fit.learn(list(range(len(ordinary))))
    about = {
        "about": ABOUT,
        "vocabularies": VOCABULARIES, "margin": dict(zip(VOCABULARIES, margin, strict=True)), "root": ROOT, "fixed": FIXED,
        "unknown": [code for code, group in fit.classes.group.items() if group == "NONE"],
    }  # fmt: skip
    write(arguments.out, about, fit.classes, files)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes from {len(ordinary)} texts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
