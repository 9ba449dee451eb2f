"""Finds what no language writes in a text, so that it can be counted apart, at what its characters cost alone.

The fitted costs are those of words. Letters at random cost up to four times as much, and a hold that takes them for
words is too small. A run of one blank (wide spaces, byte order marks) costs from a sixteenth to three times as much.

Theory. Of each script of letters or syllables the table knows which of them follow which in its languages
(`tools/fit_strange.py` says from how often on). Four strange pairs or more among sixteen characters are no language,
with spaces between them or without: there each letter, and each space, costs what its class costs among letters at
random. Ordinary texts have next to none of them.

Like every cost, this looks back only: what stands apart stays apart whatever is appended.
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
# The first of a run's blanks cost what the tables say: ordinary texts have as many.
_SHORT_RUN = 4
# Which byte of a 32-bit cell is which: the letter, the one before, the page.
_LETTER, _BEFORE, _PAGE = (0, 1, 2) if sys.byteorder == "little" else (3, 2, 1)


@dataclass(frozen=True, slots=True)
class Apart:
    """The classes of what is left of a text, and what is apart costs, in thousandths of a token."""

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
    """Return a number with 255 in the byte of each character with enough ones among it and the fifteen before it."""
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
