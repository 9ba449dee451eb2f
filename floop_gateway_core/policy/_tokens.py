"""The sum behind the token estimate: what each character of a text costs in one vocabulary, added up.

Theory. A text has as many tokens as characters at which a token starts. Whether one starts at a character follows well
from little: its class and its neighbour's (`pairs`), the letters of the last three (`triples`), its place in a run of
its kind (`places`), and, where it is not Latin, a hash of three classes (`hashes`). Each is a table of costs of 64 k
entries at most, fitted on texts with true counts; a character costs the sum of its four.

Two properties hold by construction, and `upper` rests on them. Every cost is at least zero, and a character's costs
depend on what comes before it only: the sum never falls when text is appended.

Everything runs in C: classes by `translate`, neighbours by slices, runs by shifts of one big integer (a byte for each
character), look-ups by `map` over a view of 16-bit cells. There is no loop over characters, no regular expression, and
nothing is remembered between calls but the table itself.
"""

import json
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)
_ZERO_TO_ONE = bytes([1]) + bytes(255)
_UNICODE = 0x110000
_LETTERS_AND_SPACE = (1, 2, 4)  # as kinds; what is not Latin has kinds from 128


@dataclass(frozen=True, slots=True)
class Classes:
    """What the cells see of a character; each member but `of_character` maps a class to a byte."""

    of_character: bytes
    of_ascii: bytes
    fold: bytes
    fold_low: bytes
    fold_high: bytes
    fold_far: bytes
    kind: bytes
    far: bytes
    near: bytes
    unknown: tuple[int, ...]
    scripts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Costs:
    """One vocabulary's costs, in thousandths of a token, by cell."""

    pairs: list[int]
    triples: list[int]
    places: list[int]
    hashes: list[int]
    skew: tuple[float, ...]
    margin: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Sums:
    """A text's costs in tokens, and the counts that tell one language from another; `foreign` by groups of scripts.

    `alternating` counts the characters behind at least sixteen at which two signs took turns (`._._._`).
    """

    total: float
    triples: float
    length: int
    lower: int
    upper: int
    spaces: int
    hashes: float
    foreign: tuple[int, ...]
    alternating: int


@cache
def _table() -> dict[str, object]:
    source = files("floop_gateway_core.policy").joinpath("tables/estimate.json").read_text(encoding="utf-8")
    table = json.loads(source)
    assert isinstance(table, dict)
    return table


@cache
def load_classes() -> Classes:
    """Read the table's map of characters; the first call takes tens of milliseconds."""
    table = _table()
    free, groups, views, scripts = table["free"], table["groups"], table["views"], table["scripts"]
    marks, packed = table["marks"], table["characters"]
    assert isinstance(free, list)
    assert isinstance(groups, dict)
    assert isinstance(views, dict)
    assert isinstance(scripts, list)
    assert isinstance(marks, str)
    assert isinstance(packed, str)
    first, place = {}, 1
    for name, count in groups.items():
        first[name] = place
        place += count
    unknown, unknown_astral = free[first["NONE"]], free[first["NONE"] + 1]
    classes = bytearray(range(128)) + bytes([unknown]) * (0x10000 - 128)
    classes += bytes([unknown_astral]) * (_UNICODE - 0x10000)
    for control in (*range(9), 11, 12, *range(14, 32), 127):
        classes[control] = free[0]
    names, group, at = dict(zip(marks, groups, strict=True)), "", 128
    for mark, letters in re.findall(r"(\D)((?:\d*[a-z])+)", packed):
        group = names[mark]
        for count, letter in re.findall(r"(\d*)([a-z])", letters):
            size = int(count or 1)
            classes[at : at + size] = bytes([free[first[group] + ord(letter) - 97]]) * size
            at += size
    fold, kind, far, near = (bytes.fromhex(views[name]) for name in ("fold", "kind", "far", "near"))
    return Classes(
        of_character=bytes(classes),
        of_ascii=bytes(classes[:128]) + bytes(128),
        fold=fold,
        fold_low=bytes((f & 7) << 5 for f in fold),
        fold_high=bytes(f >> 3 for f in fold),
        fold_far=bytes(f << 2 for f in fold),
        kind=kind,
        far=far,
        near=near,
        unknown=tuple(free[first["NONE"] : first["NONE"] + groups["NONE"]]),
        scripts=tuple(map(bytes, scripts)),
    )


@cache
def load_costs(vocabulary: str) -> Costs:
    """Read one vocabulary's costs."""
    table = _table()
    names, codes, default = table["vocabularies"], table["codes"], table["default"]
    skew, margin = table["skew"], table["margin"]
    assert isinstance(names, list)
    assert isinstance(codes, str)
    assert isinstance(default, list)
    root, fixed, unit = table["root"], table["fixed"], table["unit"]
    assert isinstance(skew, dict)
    assert isinstance(margin, dict)
    assert isinstance(root, float)
    assert isinstance(fixed, float)
    assert isinstance(unit, int)
    column = names.index(vocabulary)

    def cells(name: str, rows: int, width: int, missing: list[int]) -> list[int]:
        part = table[name]
        assert isinstance(part, dict)
        book, scale = part["codebook"], [costs[column] for costs in part.get("scale", ())]
        wide = len(book) > len(codes)
        words = (a + b for a in codes for b in codes) if wide else iter(codes)
        value = {code: costs[column] for code, costs in zip(words, book, strict=False)}
        step = re.compile(r"(\d*)(\D\D)" if wide else r"(\d*)(\D)")
        out = missing * rows
        for row, packed in part["cells"].items():
            at = int(row, 16) * width
            for gap, code in step.findall(packed):
                at += int(gap or 0)
                # Rounded half up, like every figure here, and the same on every machine: whole numbers only.
                out[at] = (value[code] * scale[at & 255] * 2 + unit) // (2 * unit) if scale else value[code]
                at += 1
        return out

    def with_runs(places: list[int]) -> list[int]:
        """Raise what a character deep in a run costs: ordinary texts, which the cells are from, have few long runs."""
        runs = table.get("runs", {})
        assert isinstance(runs, dict)
        for first, last, classes, words in runs.get("rules", ()):
            for row in range(first, last):
                for code, word in zip(bytes.fromhex(classes), words, strict=True):
                    at = row << 8 | code
                    places[at] = max(places[at], runs["codebook"][codes.index(word)][column])
        return places

    return Costs(
        pairs=cells("pairs", 256, 256, [costs[column] for costs in default]),
        triples=cells("triples", 32, 1024, [0] * 1024),
        places=with_runs(cells("places", 64, 256, [0] * 256)),
        hashes=cells("hashes", 256, 256, [0] * 256),
        skew=tuple(skew[vocabulary]),
        margin=(margin[vocabulary], root, fixed),
    )


def classify(text: str) -> bytes:
    """Return the class of each character."""
    classes = load_classes()
    if text.isascii():
        return text.encode("ascii").translate(classes.of_ascii)
    # A `bytes` as the table: `translate` indexes it by code point, and every code point has its entry.
    return text.translate(classes.of_character).encode("latin-1")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _cells(low: bytes, high: bytes) -> memoryview:
    both = bytearray(2 * len(low))
    both[_LOW::2] = low
    both[_HIGH::2] = high
    return memoryview(both).cast("H")


def _places(codes: bytes, kinds: bytes) -> bytes:
    """Return for each character how far it is into a run of one kind (4 bits) and of one class (2 bits above)."""
    size = len(codes)
    kind_changes = _number(kinds) ^ _number(b"\xff" + kinds[:-1])
    run = _number(kind_changes.to_bytes(size, "little").translate(_ZERO_TO_ONE))
    depth = run
    for _ in range(11):  # after k rounds `run` marks who has k + 1 of its kind just before it
        run &= run << 8
        if not run:
            break
        depth += run
    else:
        for bits in (32, 128, 256):  # 16, 32, 64 before it
            run &= run << bits
            depth += run
    class_changes = _number(codes) ^ _number(b"\0" + codes[:-1])
    same = _number(class_changes.to_bytes(size, "little").translate(_ZERO_TO_ONE))
    level = same
    same &= same << 8
    same &= same << 8
    if same:
        level += same
        same &= same << 24
        same &= same << 48
        level += same
    return (depth + (level << 4)).to_bytes(size, "little")


def add_up(codes: bytes, costs: Costs) -> Sums:
    """Add up what the characters of these classes cost."""
    size = len(codes)
    if not size:
        return Sums(0.0, 0.0, 0, 0, 0, 0, 0.0, (), 0)
    classes = load_classes()
    before = b"\n" + codes[:-1]
    before_that = b"\n" + before[:-1]
    kinds = codes.translate(classes.kind)
    low = _number(codes.translate(classes.fold)) | _number(before.translate(classes.fold_low))
    high = _number(before.translate(classes.fold_high)) | _number(before_that.translate(classes.fold_far))
    triple_cells = _cells(low.to_bytes(size, "little"), high.to_bytes(size, "little"))
    triples = sum(map(costs.triples.__getitem__, triple_cells))
    total = triples + sum(map(costs.pairs.__getitem__, _cells(codes, before)))
    total += sum(map(costs.places.__getitem__, _cells(codes, _places(codes, kinds))))
    hashes = 0
    foreign: tuple[int, ...] = ()
    if max(kinds) >= 128:  # the kinds of what is not Latin
        hashed = _number(before_that.translate(classes.far)) ^ _number(before.translate(classes.near))
        hashes = sum(map(costs.hashes.__getitem__, _cells(codes, hashed.to_bytes(size, "little"))))
        foreign = tuple(size - len(kinds.translate(None, script)) for script in classes.scripts)
    lower, upper, spaces = map(kinds.count, _LETTERS_AND_SPACE)
    alternating = _alternating(codes, before, before_that)
    return Sums(
        (total + hashes) / 1000, triples / 1000, size, lower, upper, spaces, hashes / 1000, foreign, alternating
    )


def _alternating(codes: bytes, before: bytes, before_that: bytes) -> int:
    turns = _equal(codes, before_that)
    turns ^= turns & _equal(codes, before)
    for bits in (8, 16, 32, 64):
        turns &= turns << bits  # a shift only ever loses bits to the `and`: none beyond the text stays
    return turns.bit_count()


def _equal(codes: bytes, others: bytes) -> int:
    """Give a number with a 1 in the byte of each character that is of the same class in both."""
    return _number((_number(codes) ^ _number(others)).to_bytes(len(codes), "little").translate(_ZERO_TO_ONE))


# What a character of each look costs roughly, in any vocabulary; only ratios of sums of these are used.
_ROUGH = ((b"etaoinshrdlucm", 0.2), (b"pfgybvwkjqxz", 0.35), (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 0.45), (b"0123456789", 0.5),
          (b" \t", 0.12), (b"\n\r", 0.3))  # fmt: skip
_ROUGH_MARK, _ROUGH_FOREIGN, _ROUGH_UNKNOWN = 0.5, 0.8, 3.0


def weigh(codes: bytes) -> float:
    """Return a rough mean cost of the characters of these classes: cheap, to compare two samples of a text."""
    size = len(codes)
    total, left = 0.0, codes
    for members, cost in _ROUGH:
        fewer = left.translate(None, members)
        total += (len(left) - len(fewer)) * cost
        left = fewer
    marks = left.translate(None, bytes(range(32, 127)))
    total += (len(left) - len(marks)) * _ROUGH_MARK
    unknown = sum(map(marks.count, load_classes().unknown))
    total += unknown * _ROUGH_UNKNOWN + (len(marks) - unknown) * _ROUGH_FOREIGN
    return total / size
