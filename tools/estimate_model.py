# mypy: disable-error-code="import-not-found,no-any-return"
"""What the estimator's table is made of: classes of characters, the four cells of each character, and their costs.

`fit_estimate.py` uses it. The library's `floop_gateway_core/policy/tokens/tables.py` computes the same cells without numpy.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from floop_gateway_core.policy.tokens.estimate import VOCABULARIES

SIZES = (65536, 32768, 16384, 65536)
# These have classes of their own: runs of them cost little, least for `claude`, which folds them.
WIDE_SPACES = "\u00a0\u3000"
PRIOR = 6  # the weight of "costs nothing" in each cell
RARE = 0.1
ROUNDS, SHRINK = 16, 0.1
FREE = [*range(1, 9), 11, 12, *range(14, 32), 127, *range(128, 256)]
# Classes for each group of characters, and how many of them go to its commonest characters, one each.
GROUPS = {
    "HAN": (9, 0), "HANGUL": (7, 0), "KANA": (8, 2), "CJKP": (4, 2), "RARE": (2, 0), "LATIN": (17, 9),
    "CYRILLIC": (19, 14), "GREEK": (6, 2), "ARABIC": (12, 8), "HEBREW": (5, 2), "DEVANAGARI": (5, 2), "BENGALI": (3, 0),
    "TAMIL": (3, 0), "TELUGU": (2, 0), "KANNADA": (2, 0), "MALAYALAM": (2, 0), "GUJARATI": (2, 0), "GURMUKHI": (2, 0),
    "SINHALA": (2, 0), "THAI": (5, 2), "LAO": (2, 0), "KHMER": (2, 0), "MYANMAR": (2, 0), "TIBETAN": (1, 0),
    "GEORGIAN": (1, 0), "ARMENIAN": (1, 0), "ETHIOPIC": (2, 0), "ORIYA": (1, 0), "MARK": (2, 0), "OTHER": (4, 0),
    "EMOJI": (6, 0), "SYM": (10, 5), "NONE": (3, 0),
}  # fmt: skip
Row: TypeAlias = dict[str, Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int32]
Bytes: TypeAlias = npt.NDArray[np.uint8]


def group_of(character: str) -> str:
    code, category = ord(character), unicodedata.category(character)
    for name, low, high in (("HAN", 0x4E00, 0x9FFF), ("HANGUL", 0xAC00, 0xD7A3), ("KANA", 0x3040, 0x30FF)):
        if low <= code <= high:
            return name
    if category in ("Co", "Cn", "Cs"):
        return "NONE"
    full = unicodedata.name(character, "?")
    word = full.split()[0]
    if word in ("CJK", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "KATAKANA"):
        return "CJKP" if category[0] in "PSZL" and "UNIFIED" not in full else "RARE"
    if category[0] in "LM":
        return word if word in GROUPS else "MARK" if category[0] == "M" else "OTHER"
    return "EMOJI" if code >= 0x1F000 or 0x2600 <= code <= 0x27BF else "SYM"


def cluster(points: Floats, weights: Floats, count: int) -> npt.NDArray[np.int64]:
    """k-means, started from weighted quantiles of the mean instead of random points."""
    order = np.argsort(points.mean(1), kind="stable")
    heap = np.cumsum(weights[order])
    centres = points[[order[np.searchsorted(heap, heap[-1] * (i + 0.5) / count)] for i in range(count)]].copy()
    chosen = np.zeros(len(points), np.int64)
    for _ in range(25):
        norms = (centres**2).sum(1)
        chosen = np.argmin(norms[None] - 2 * points @ centres.T, axis=1)
        for i in range(count):
            mine = chosen == i
            if mine.any():
                centres[i] = np.average(points[mine], axis=0, weights=weights[mine])
    return chosen


def labels(row: Row) -> Bytes:
    """Tokens that start at each character; a token that opens with the last blank of a run counts for what follows.

    The estimator looks back only. It cannot know at a blank that a word comes next, but it can know at the word.
    """
    starts = np.stack([np.frombuffer(row["starts"][v].encode(), np.uint8) - 48 for v in VOCABULARIES], 1)
    codes = np.frombuffer(row["text"].encode("utf-32-le", "surrogatepass"), np.uint32)
    blank = np.isin(codes, (32, 9))
    last = np.zeros(len(codes), bool)
    last[1:-1] = blank[1:-1] & np.isin(codes[:-2], (32, 9, 10, 13)) & ~np.isin(codes[2:], (32, 9, 10, 13))
    at = np.nonzero(last)[0]
    starts = starts.copy()
    starts[at + 1] += starts[at]
    starts[at] = 0
    return starts


class Classes:
    """Which of 256 classes a character belongs to, and what the four tables see of a class."""

    def __init__(self, rows: list[Row], alone: list[Row]) -> None:
        single: dict[str, Floats] = {}
        for row in alone:
            for i in range(0, len(row["text"]), 2):
                single[row["text"][i]] = np.array([int(row["starts"][v][i]) for v in VOCABULARIES], float)
        seen: Counter[str] = Counter()
        total: dict[str, Floats] = defaultdict(lambda: np.zeros(8))
        for row in rows:
            if row["text"].isascii():
                continue
            for i, character in enumerate(row["text"]):
                if character > "\x7f":
                    seen[character] += 1
                    total[character] += [int(row["starts"][v][i]) for v in VOCABULARIES]
        members: dict[str, list[str]] = defaultdict(list)
        for character in single:
            members[group_of(character)].append(character)
        self.map = np.zeros(0x110000, np.uint8)
        self.map[:128] = np.arange(128)
        self.map[[*range(9), 11, 12, *range(14, 32), 127]] = FREE[0]
        self.group: dict[int, str] = {}
        free = FREE[1:]
        ids: dict[str, list[int]] = {}
        for name, (count, own) in GROUPS.items():
            ids[name], free = free[:count], free[count:]
            self.group.update(dict.fromkeys(ids[name], name))
            common = sorted(members[name], key=lambda c: (c not in WIDE_SPACES, -seen[c], c))
            for character, i in zip(common[:own], ids[name], strict=False):
                self.map[ord(character)] = i
            rest = common[own:]
            if rest:
                costs = np.array([(total[c] + 15 * single[c]) / (seen[c] + 15) for c in rest])
                weights = np.array([seen[c] + 0.3 for c in rest]) ** 0.7
                for character, i in zip(rest, cluster(costs, weights, count - own), strict=True):
                    self.map[ord(character)] = ids[name][own + int(i)]
        none = ids["NONE"]
        self.map[128:0x10000][self.map[128:0x10000] == 0] = none[0]
        self.map[0x10000:][self.map[0x10000:] == 0] = none[1]
        self.map[0xD800:0xE000] = none[2]
        self._views()

    def _views(self) -> None:
        latin = [i for i, g in self.group.items() if g == "LATIN"]
        fold, kind = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
        for i in range(26):
            fold[[97 + i, 65 + i]] = i + 1
        fold[[32, 9]], fold[[10, 13]], fold[48:58], fold[latin] = 27, 28, 29, 30
        for i in range(33, 127):
            fold[i] = fold[i] or 31
        kind[97:123], kind[latin], kind[65:91], kind[48:58], kind[32] = 1, 1, 2, 3, 4
        for i in range(128):
            kind[i] = kind[i] or max(i, 10) - (i == 9)
        kind[13] = 10
        for i, name in self.group.items():
            if name != "LATIN":
                kind[i] = 128 + list(GROUPS).index(name)
        foreign = [i for i, g in self.group.items() if g != "LATIN"]
        far, near = np.full(256, 53, np.uint8), np.full(256, 6, np.uint8)
        far[fold == 27], far[fold == 28], far[fold > 28] = 29, 77, 101
        near[:128] = 1 + (fold[:128] >= 27) + (fold[:128] >= 28).astype(np.uint8) + (fold[:128] >= 29)
        far[foreign] = [(i * 37 + 11) % 256 for i in foreign]
        near[foreign] = foreign
        self.foreign = np.zeros(256, bool)
        self.foreign[foreign] = True
        self.fold, self.kind, self.far, self.near = fold, kind, far, near
        self.views = {"fold": fold, "kind": kind, "far": far, "near": near}

    def features(self, text: str) -> tuple[Ints, Ints, Ints, Ints]:
        """Return the four cells of each character; the library's `_cells` must agree with it."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        c = self.map[codes]
        padded = np.concatenate([np.array([10, 10], np.uint8), c])
        p, pp = padded[1:-1], padded[:-2]
        f = self.fold.astype(np.int32)
        pair = p.astype(np.int32) << 8 | c
        triple = f[pp] << 10 | f[p] << 5 | f[c]
        same_kind, same = self.kind[c] == self.kind[p], c == p
        same_kind[:1] = same[:1] = False
        run, level = _run(same_kind), _run(same)
        run = np.minimum(run, 12) + (run >= 16) + (run >= 32) + (run >= 64)
        level = (level >= 1).astype(np.int32) + (level >= 3) + (level >= 12)
        place = (level << 12 | run << 8 | c).astype(np.int32)
        hashed = (self.far[pp] ^ self.near[p]).astype(np.int32) << 8 | c
        return pair, triple, place, np.where(self.foreign[c], hashed, 0).astype(np.int32)


def _run(same: npt.NDArray[np.bool_]) -> Ints:
    index = np.arange(len(same), dtype=np.int32)
    return (index - np.maximum.accumulate(np.where(same, 0, index))).astype(np.int32)


def weigh(rows: list[Row]) -> npt.NDArray[np.float32]:
    """Weigh each character so that kinds, not megabytes, decide, and errors count relative to a text's tokens."""

    def key(row: Row) -> tuple[str, str, bool]:
        return row["kind"], row["sub"] if row["group"] == "synthetic" else "", row["group"] == "udhr"

    size: Counter[tuple[str, str, bool]] = Counter()
    for row in rows:
        size[key(row)] += row["chars"]
    values = [
        rarity(r) * min(4.0, (120_000 / size[key(r)]) ** 0.5) / max(0.1, r["counts"]["o200k"] / r["chars"]) * 0.25
        for r in rows
    ]
    return np.repeat(np.array(values, np.float32), [r["chars"] for r in rows])


def rarity(row: Row) -> float:
    """Weigh a row: languages with three-letter codes and hostile texts are rare in practice and count less."""
    return RARE if row["kind"] == "hostile" or len(language_of(row)) == 3 else 1.0


def language_of(row: Row) -> str:
    """Return the code of a row's language without its variant; nothing where none is known."""
    return str(row["sub"]).partition(":")[2].replace("_", "-").partition("-")[0]


def forced_zero() -> tuple[Ints, Ints]:
    """Cells that stay at zero, because the place table holds the cost of a run."""
    marks = [9, 10, 13, *range(32, 48), *range(58, 127)]
    pairs = [d << 8 | d for d in marks] + [a << 8 | b for a in range(48, 58) for b in range(48, 58)]
    triples = [x << 10 | k << 5 | k for x in range(32) for k in (27, 28, 29, 31)]
    return np.array(pairs, np.int32), np.array(triples + [k << 10 | k << 5 | k for k in range(1, 27)])


class Corpus:
    """The cells of some texts, joined, how heavy each cell is, and each text's distinct cells with their counts."""

    def __init__(
        self, rows: list[Row], cells: list[tuple[Ints, Ints, Ints, Ints]], starts: list[Bytes], fitted: Sequence[int]
    ) -> None:
        self.fitted = fitted
        kinds = Counter(row["kind"] for row in rows)
        self.weights = weigh(rows)
        self.importance = np.array(
            [rarity(row) * row["chars"] / (row["chars"] + 200) / kinds[row["kind"]] ** 0.6 for row in rows]
        )
        self.importance /= self.importance.mean()
        self.totals = np.array([[row["counts"][v] for v in VOCABULARIES] for row in rows], float)
        self.starts = np.concatenate(starts)
        self.cells = [np.concatenate([cell[k] for cell in cells]) for k in range(4)]
        self.heavy = [
            np.bincount(cell, weights=self.weights, minlength=size).astype(np.float64)
            for cell, size in zip(self.cells, SIZES, strict=True)
        ]
        text = np.repeat(np.arange(len(rows), dtype=np.int64), [row["chars"] for row in rows])
        self.used = []
        for cell, size in zip(self.cells, SIZES, strict=True):
            keys, counts = np.unique(text * size + cell, return_counts=True)
            self.used.append(((keys // size).astype(np.int32), (keys % size).astype(np.int32), counts))

    def fit(self, column: int) -> list[Floats]:
        """Backfit one vocabulary's tables in turn to the tokens that start at each character, clipping at zero."""
        tables = [np.zeros(size) for size in SIZES]
        heavy = [weight + PRIOR for weight in self.heavy]
        zero_pairs, zero_triples = forced_zero()
        heavy[0][zero_pairs] = heavy[1][zero_triples] = heavy[3][0] = 1e12
        rest = self.starts[:, column].astype(np.float32)
        for turn in range(10):
            for k in self.fitted:
                size = SIZES[k]
                step = np.bincount(self.cells[k], weights=rest * self.weights, minlength=size) / heavy[k]
                new = np.maximum(0, tables[k] + step * (1 if turn else 0.6))
                rest -= (new - tables[k]).astype(np.float32)[self.cells[k]]
                tables[k] = new
        return tables

    def tune(self, tables: list[Floats], column: int, free: Sequence[int]) -> list[Floats]:
        """Scale each cell of the free tables by what the texts it is used in are off by, again and again.

        A language, or a kind of text, is dearer or cheaper than its characters say one by one; the cells that are its
        own take the difference. `SHRINK` and the number of rounds keep a cell that few texts use near where it was.
        """
        tables = [table.copy() for table in tables]
        truth = self.totals[:, column]
        for _ in range(ROUNDS):
            shares = [tables[k][cell] * count for k, (_, cell, count) in enumerate(self.used)]
            sums = sum(
                np.bincount(text, weights=share, minlength=len(truth))
                for (text, _, _), share in zip(self.used, shares, strict=True)
            )
            off = np.clip(np.log((truth + 1) / (sums + 1)), -0.5, 0.5)
            each = self.importance / (sums + 3)
            for k in free:
                text, cell, _ = self.used[k]
                weight = shares[k] * each[text]
                blame = np.bincount(cell, weights=weight * off[text], minlength=SIZES[k])
                tables[k] *= np.exp(blame / (np.bincount(cell, weights=weight, minlength=SIZES[k]) + SHRINK))
        return tables
