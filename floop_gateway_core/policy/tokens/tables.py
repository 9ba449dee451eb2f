"""The sum that the token estimate is based on: what each character of a text costs in one vocabulary, added up.

Theory. The number of tokens equals the number of characters at which a token starts. Little is needed to predict
whether a token starts at a character: its class and its neighbour's (`pairs`), the last three letters (`triples`), its
position in a run of its kind (`places`), and, for scripts other than Latin, a hash of three classes (`hashes`). Each is
a table of at most 64 k costs, fitted on texts with known counts; the cost of a character is the sum of its four.

Two properties hold by construction, and `upper` rests on them. Every cost is at least zero, and a character's costs
depend on what comes before it only: the sum never falls when text is appended.

Everything runs in C: classes by `translate`, neighbours by slices, runs by shifts of one big integer (a byte for each
character), look-ups by `map` over a view of 16-bit cells. There is no loop over characters, no regular expression, and
nothing is remembered between calls but the table itself.
"""

import json
import sys
from array import array
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from zipfile import ZipFile

_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)
_ZERO_TO_ONE = bytes([1]) + bytes(255)
_UNICODE = 0x110000
UNIT = 1000
_FOREIGN = 128  # the kinds of what is not Latin begin here
# Positions from the twelfth repetition of one character on, and of two alternating kinds of line break; their costs
# were determined separately.
DEEP, LINE_ENDS = range(0x3C, 0x40), range(0x0C, 0x10)


@dataclass(frozen=True, slots=True)
class Classes:
    """How cells see a character: `of_…` map characters to classes; the others, except `unknown`, map classes to bytes.

    No character has class 0. `page` is 0 for everything but letters of scripts whose pairs are known.
    """

    of_character: bytes
    of_ascii: bytes
    fold: bytes
    fold_low: bytes
    fold_high: bytes
    fold_far: bytes
    kind: bytes
    far: bytes
    near: bytes
    page: bytes
    unknown: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Costs:
    """One vocabulary's costs, in thousandths of a token, by cell; and `upper`'s (factor, root, fixed).

    `alone` is the cost of a letter of each class among random letters, `blanks` that of each further blank in a run.
    """

    pairs: list[int]
    triples: list[int]
    places: list[int]
    hashes: list[int]
    alone: list[int]
    blanks: dict[str, int]
    margin: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Sums:
    """A text's cost in tokens.

    `alternating` counts characters in a run of two alternating characters (`._._._`), after the first sixteen of the
    run. `strange` is the part of the total that is due to random letters.
    """

    total: float
    alternating: int
    strange: float = 0.0


class _Table:
    """The archive that `fit_estimate.py` and `fit_strange.py` in tools write: JSON, a byte a class, two for each cost."""

    def __init__(self) -> None:
        source = files(__package__).joinpath("tables/estimate.zip").read_bytes()
        with ZipFile(BytesIO(source)) as archive:
            self._files = {name: archive.read(name) for name in archive.namelist()}
        self.about = json.loads(self._files["about.json"])

    def bytes_of(self, name: str) -> bytes:
        return self._files[name]

    def figures(self, name: str) -> "array[int]":
        """Return a file's 16-bit figures; it holds their low bytes and then their high ones, which packs better."""
        planes = self._files[name]
        half = len(planes) // 2
        found = bytearray(len(planes))
        found[_LOW::2], found[_HIGH::2] = planes[:half], planes[half:]
        return array("H", bytes(found))

    def costs(self, name: str, column: int) -> list[int]:
        """Return a file's figures for one vocabulary; each row has one figure per vocabulary, in their order."""
        return self.figures(name)[column :: len(self.about["vocabularies"])].tolist()


@cache
def _table() -> _Table:
    return _Table()


@cache
def load_classes() -> Classes:
    """Read the table's map of characters; the first call takes some ten milliseconds."""
    table = _table()
    unknown = table.about["unknown"]
    known = table.bytes_of("characters")
    fold, kind, far, near, page = (table.bytes_of("views")[at : at + 256] for at in range(0, 1280, 256))
    return Classes(
        of_character=known + bytes([unknown[1]]) * (_UNICODE - len(known)),
        of_ascii=known[:128] + bytes(128),
        fold=fold,
        fold_low=bytes((f & 7) << 5 for f in fold),
        fold_high=bytes(f >> 3 for f in fold),
        fold_far=bytes(f << 2 for f in fold),
        kind=kind,
        far=far,
        near=near,
        page=page,
        unknown=tuple(unknown),
    )


@cache
def load_costs(vocabulary: str) -> Costs:
    """Read one vocabulary's costs; the first call takes some twenty milliseconds."""
    table = _table()
    column = table.about["vocabularies"].index(vocabulary)
    pairs = _cells_of("pairs", column, table.costs("default", column))
    triples, places, hashes = (_cells_of(name, column, [0] * 256) for name in ("triples", "places", "hashes"))
    places[DEEP.start << 8 : DEEP.stop << 8] = table.costs("runs", column)
    line_ends = table.costs("line_ends", column)
    for row in LINE_ENDS:
        places[row << 8 : (row + 1) << 8] = map(max, places[row << 8 : (row + 1) << 8], line_ends)
    about = table.about
    blanks = dict(zip(load_blanks(), table.costs("blanks.costs", column), strict=True))
    alone = table.costs("alone", column)
    return Costs(
        pairs, triples, places, hashes, alone, blanks, (about["margin"][vocabulary], about["root"], about["fixed"])
    )


@cache
def load_blanks() -> str:
    """Read the blanks of which runs are counted apart."""
    return "".join(map(chr, _table().figures("blanks")))


@cache
def load_strange() -> bytes:
    """Read which pairs of letters occur in no language: a byte, 0 or 1, for each page, previous letter and letter.

    A letter is the low byte of its code point; the previous letter is 0 if it is on another page. Page 0 has no pairs.
    """
    eight = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
    known = b"".join(map(eight.__getitem__, _table().bytes_of("known")))
    return bytes(1 << 16) + known.translate(_ZERO_TO_ONE)


def _cells_of(name: str, column: int, default: list[int]) -> list[int]:
    """Return each cell's cost: its codeword times the scale of its class (the book's first 256 rows), or the default."""
    book = _table().costs(f"{name}.book", column)
    scale, words = book[:256], book[256:]
    # Rounded half up and in whole numbers, so the same on every machine.
    return [
        (words[word] * scale[cell & 255] + UNIT // 2) // UNIT if word else default[cell & 255]
        for cell, word in enumerate(_table().figures(f"{name}.cells"))
    ]


def classes_of(text: str) -> bytes:
    """Return the class of each character."""
    classes = load_classes()
    if text.isascii():
        return text.encode("ascii").translate(classes.of_ascii)
    # A `bytes` as the table: `translate` indexes it by code point, and every code point has its entry.
    return text.translate(classes.of_character).encode("latin-1")


def number(data: bytes) -> int:
    """Return a number whose bytes are `data`, the first one lowest, so that a shift left moves to later characters."""
    return int.from_bytes(data, "little")


def _cells(low: bytes, high: bytes) -> memoryview:
    both = bytearray(2 * len(low))
    both[_LOW::2] = low
    both[_HIGH::2] = high
    return memoryview(both).cast("H")


def _places(codes: bytes, kinds: bytes) -> bytes:
    """Return for each character how far it is into a run of one kind (4 bits) and of one class (2 bits above)."""
    size = len(codes)
    kind_changes = number(kinds) ^ number(b"\xff" + kinds[:-1])
    run = number(kind_changes.to_bytes(size, "little").translate(_ZERO_TO_ONE))
    depth = run
    for _ in range(11):  # after k rounds `run` marks characters preceded by k + 1 of their kind
        run &= run << 8
        if not run:
            break
        depth += run
    else:
        for bits in (32, 128, 256):  # 16, 32, 64 before it
            run &= run << bits
            depth += run
    class_changes = number(codes) ^ number(b"\0" + codes[:-1])
    same = number(class_changes.to_bytes(size, "little").translate(_ZERO_TO_ONE))
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
        return Sums(0.0, 0)
    classes = load_classes()
    before = b"\n" + codes[:-1]
    before_that = b"\n" + before[:-1]
    kinds = codes.translate(classes.kind)
    low = number(codes.translate(classes.fold)) | number(before.translate(classes.fold_low))
    high = number(before.translate(classes.fold_high)) | number(before_that.translate(classes.fold_far))
    triples = _cells(low.to_bytes(size, "little"), high.to_bytes(size, "little"))
    total = sum(map(costs.triples.__getitem__, triples))
    total += sum(map(costs.pairs.__getitem__, _cells(codes, before)))
    total += sum(map(costs.places.__getitem__, _cells(codes, _places(codes, kinds))))
    if max(kinds) >= _FOREIGN:
        hashed = number(before_that.translate(classes.far)) ^ number(before.translate(classes.near))
        total += sum(map(costs.hashes.__getitem__, _cells(codes, hashed.to_bytes(size, "little"))))
    return Sums(total / UNIT, _alternating(codes, before, before_that))


def _alternating(codes: bytes, before: bytes, before_that: bytes) -> int:
    turns = equal(codes, before_that)
    turns ^= turns & equal(codes, before)
    for bits in (8, 16, 32, 64):
        turns &= turns << bits  # the `and` drops every bit that was shifted past the end of the text
    return turns.bit_count()


def equal(codes: bytes, others: bytes) -> int:
    """Return a number with a 1 in the byte of each character that has the same class in both."""
    return number((number(codes) ^ number(others)).to_bytes(len(codes), "little").translate(_ZERO_TO_ONE))


# The rough cost of a character of each kind, in any vocabulary; only ratios of their sums are used.
_ROUGH = ((b"etaoinshrdlucm", 0.2), (b"pfgybvwkjqxz", 0.35), (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 0.45), (b"0123456789", 0.5),
          (b" \t", 0.12), (b"\n\r", 0.3))  # fmt: skip
_ROUGH_MARK, _ROUGH_FOREIGN, _ROUGH_UNKNOWN = 0.5, 0.8, 3.0


def rough_cost(codes: bytes) -> float:
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
