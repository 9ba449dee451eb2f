"""Finds passages of a text that belong to no language, so that their characters can be priced separately.

The fitted costs are for words. Random letters cost up to four times as much, so a hold that treats them as words is too
small. A run of one blank (wide spaces, byte order marks) costs between a sixteenth and three times as much.

Theory. For each alphabet or syllabary, the table records which letters follow which in its languages
(`tools/fit_strange.py` defines how often a pair must occur). Four or more strange pairs among sixteen characters do not
belong to a language, with or without spaces between them: there each letter and each space costs what its class costs
among random letters. Ordinary texts have almost no such passages.

Like every cost, this only looks back: a passage that was set apart stays so, whatever is appended.
"""

import re
import sys
from dataclasses import dataclass
from functools import cache

from floop_gateway_core.policy.tokens.tables import Costs, equal, load_blanks, load_classes, load_strange, number

__all__ = ["Apart", "set_apart"]

# Four strange pairs among sixteen characters: languages have such names and numbers, but hardly ever such a passage.
_NEEDED = 4
_PASSAGE = bytes(_NEEDED) + b"\xff" * (256 - _NEEDED)
_ONE_IF_ANY = bytes(1) + b"\1" * 255
_SPACE = 32
# The first blanks of a run cost what the tables say: ordinary texts have runs of this length.
_SHORT_RUN = 4
# Which byte of a 32-bit cell is which: the letter, the one before, the page.
_LETTER, _BEFORE, _PAGE = (0, 1, 2) if sys.byteorder == "little" else (3, 2, 1)


@dataclass(frozen=True, slots=True)
class Apart:
    """The classes of the remaining text, and the cost of the parts set apart, in thousandths of a token."""

    left: bytes
    letters: int
    blanks: int


def set_apart(text: str, codes: bytes, costs: Costs) -> Apart:
    """Set apart the strange passages and the runs of blanks of `text`, whose classes are `codes`."""
    codes, blanks = _without_blanks(text, codes, costs)
    strange = _strange(text, codes)
    if not strange:
        return Apart(codes.translate(None, b"\0"), 0, blanks)
    # No character is of class 0: what is masked can be deleted.
    apart, left = (
        (number(codes) & mask).to_bytes(len(codes), "little").translate(None, b"\0") for mask in (strange, ~strange)
    )
    return Apart(left, sum(map(costs.alone.__getitem__, apart)), blanks)


def _without_blanks(text: str, codes: bytes, costs: Costs) -> tuple[bytes, int]:
    """Return the classes with 0 for the blanks deep in a run of one blank, and what those cost."""
    if len(codes.translate(None, _blank_classes())) == len(codes):
        return codes, 0
    left, cost = bytearray(codes), 0
    for run in _runs().finditer(text):
        start, end = run.start() + _SHORT_RUN, run.end()
        left[start:end] = bytes(end - start)
        cost += (end - start) * costs.blanks[run[1]]
    return bytes(left), cost


@cache
def _blank_classes() -> bytes:
    of_character = load_classes().of_character
    return bytes({of_character[ord(blank)] for blank in load_blanks()})


@cache
def _runs() -> re.Pattern[str]:
    return re.compile(f"([{load_blanks()}])\\1{{{_SHORT_RUN},}}")


def _strange(text: str, codes: bytes) -> int:
    """Return a number with 255 in the byte of each character of a strange passage that is set apart."""
    size = len(codes)
    pages = codes.translate(load_classes().page)
    if not _passages(pages.translate(_ONE_IF_ANY)):  # as in Latin, where letters with accents are few
        return 0
    letters = text.encode("utf-32-le", "surrogatepass")[::4]
    same_page = equal(pages, b"\0" + pages[:-1]) * 255
    cells = bytearray(4 * size)
    cells[_LETTER::4] = letters
    cells[_BEFORE::4] = (number(b"\0" + letters[:-1]) & same_page).to_bytes(size, "little")
    cells[_PAGE::4] = pages
    pairs = bytes(map(load_strange().__getitem__, memoryview(cells).cast("I")))
    return _passages(pairs) & number(codes.translate(_set_apart()))


def _passages(marks: bytes) -> int:
    """Return a number with 255 in each character's byte if it and the fifteen before it have enough marks."""
    if marks.count(1) < _NEEDED:
        return 0
    lately = number(marks)
    for bits in (8, 16, 32, 64):  # how many of the last 2, 4, 8, 16
        lately += lately << bits
    return number(lately.to_bytes(len(marks) + 15, "little")[: len(marks)].translate(_PASSAGE))


@cache
def _set_apart() -> bytes:
    """Return which classes a strange passage sets apart: letters and spaces."""
    return bytes(0xFF if page or code == _SPACE else 0 for code, page in enumerate(load_classes().page))
