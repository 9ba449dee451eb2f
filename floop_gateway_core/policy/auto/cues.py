"""Cuts a text into segments, and names the concepts that the words of each mean.

Decides nothing. It must never backtrack without bound: the expression that cuts has no ambiguous repetition, and each
token costs a few look-ups in dictionaries.

Theory. The table `tables/cues.json` lists the cues of each concept, a line for each language: whole words, `stems*`,
phrases, and, for scripts that put no spaces between words or glue particles to them, pieces that may occur anywhere in a
run. The cues of all languages meet in the same concepts, so that a weight fitted on one language serves the others.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import NamedTuple, TypeAlias
from unicodedata import combining, normalize

TOKENS = 1_500
"""The maximum number of tokens read: a window of prose has about 500, one of punctuation only has 2 400."""

STEM, NEXT = 4, 2
"""The number of leading characters by which a stem is looked up, and the rest of a phrase after its first word."""

EASY = frozenset({"translate", "summarize", "classify", "extract", "rewrite"})
"""Tasks that stay easy however hard the text they are about."""

VERBS = EASY | {
    "ask_fact", "define", "chitchat", "make", "fixcode", "analyze", "explain", "ideas", "prove", "solve", "plan",
    "how_many",
}  # fmt: skip
TASKS = VERBS | {"code", "longform"}
"""Concepts that name what is to be done, or made; the other concepts qualify it."""

_OPENERS = frozenset({"ask_fact", "chitchat"})
"""Words that mean their concept only at the start of a sentence: elsewhere "who" and "where" join clauses."""

_IDLE = frozenset({"greet", "chitchat", "material", "prose", "negation", "code_weak"})
"""Concepts that a request's opening may mention and still ask for nothing."""

_ASKS = frozenset("?？؟")

_GLUED = (
    "\u0530-\u06ff\u0750-\u077f\u0900-\u0fff\u1000-\u10ff\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
_LETTER = "a-z\u00df-\u00f6\u00f8-\u024f\u0300-\u052f\u1e00-\u1fff"
"""Latin, Greek and Cyrillic in lower case, with their marks. Named ranges are twice as fast as "a letter but not ..."."""


@cache
def _tokens() -> Callable[[str], Iterator[re.Match[str]]]:
    """Compile the expression that cuts a text into tokens; at the first use, since that takes a few milliseconds."""
    return re.compile(
        rf" ?(?:([{_LETTER}]+(?:['’+#][{_LETTER}]*)*)"  # 1: a word
        rf"|([{_GLUED}]+)"  # 2: a run of a script without spaces, or with particles glued to its words
        r"|(\d+(?:[.,]\d+)*)"  # 3: a number
        r"|([=+*/^<>{}()\[\];|\\$%√∑∫≤≥≠×÷_#-])"  # 4: a sign of mathematics or code
        r"|(\n+)"  # 5: the end of a line
        r"|([.!?。！？؟।…](?=\s|$|[^\x00-\x7f])|：|:(?=\s|[\"“«「『]))"  # 6: the end of a sentence, or an announcement
        r'|(["“”„«»「」『』]|```))'  # 7: a quotation mark or a fence
    ).finditer


Lookup: TypeAlias = dict[str, tuple[tuple[str, str], ...]]


class Cues(NamedTuple):
    """The cue table, turned for look-up: by whole word, by a stem's or a phrase's first characters, by a glued pair."""

    words: dict[str, tuple[str, ...]]
    stems: Lookup
    heads: frozenset[str]
    phrases: Lookup
    glued: Lookup


def _plain(text: str) -> str:
    return "".join(char for char in normalize("NFD", text) if not combining(char))


_FIRST_WORD = re.compile(rf"[{_LETTER}]+(?:['’+#][{_LETTER}]*)*")
_GLUED_CHAR = re.compile(f"[{_GLUED}]")


@cache
def cues() -> Cues:
    """Return the table `tables/cues.json`, read once. `stem*` matches words that begin so; accents are optional."""
    from importlib import resources  # slow to import, and needed once

    source = resources.files(__package__).joinpath("tables/cues.json").read_text(encoding="utf-8")
    words: dict[str, list[str]] = {}
    starts: tuple[dict[str, list[tuple[str, str]]], ...] = ({}, {}, {})
    stems, phrases, glued = starts
    heads: set[str] = set()
    for concept, languages in json.loads(source).items():
        for item in {item for line in languages.values() for item in line.split(",")}:
            if _GLUED_CHAR.match(item):
                glued.setdefault(item[:2], []).append((item, concept))
                continue
            for form in sorted({item, _plain(item)} if len(item) > 5 else {item}):
                start = _FIRST_WORD.match(form)
                head = start[0] if start else ""
                rest = form[len(head) :]
                if rest == "*":
                    stems.setdefault(head[:STEM], []).append((head, concept))
                elif rest:
                    rest = rest.rstrip("*")
                    phrases.setdefault(head + rest[:NEXT], []).append((rest, concept))
                    heads.add(head)
                elif concept not in words.setdefault(head, []):
                    words[head].append(concept)
    stems_, phrases_, glued_ = (
        {key: tuple(sorted(set(found), key=lambda pair: (-len(pair[0]), pair))) for key, found in table.items()}
        for table in starts
    )
    whole = {word: tuple(sorted(found)) for word, found in words.items()}
    return Cues(whole, stems_, frozenset(heads), phrases_, glued_)


class Segment:
    """A sentence, a line or a quoted span of the window, with the concepts met in it, in order."""

    __slots__ = ("before", "concepts", "end", "fenced", "marks", "numbers", "quoted", "sign", "start", "task", "words")

    def __init__(
        self, span: tuple[int, int], concepts: list[str], counts: tuple[int, int, int, int], sign: str
    ) -> None:
        self.start, self.end = span
        self.concepts = concepts
        self.words, self.numbers, self.marks, self.before = counts
        # `before` is the number of the word that named the first concept, from 1; 0 if none did
        self.sign = sign  # what ended it
        self.quoted = self.fenced = False
        self.task: str | None = None  # the first task named
        for concept in concepts:
            if concept in TASKS:
                self.task = concept
                break

    @property
    def idle(self) -> bool:
        """Whether it mentions nothing that bears on a request: no task, number or quotation. "Task 1" is a heading."""
        heading = self.numbers <= 1 and self.words <= 2
        return (heading or not self.numbers) and self.marks <= 4 and not self.quoted and _IDLE.issuperset(self.concepts)

    @property
    def polite(self) -> bool:
        """Whether it only greets, thanks or asks nicely."""
        return (
            self.words <= 7
            and "greet" in self.concepts
            and (self.task or "chitchat") == "chitchat"
            and not self.numbers
            and (self.before <= 2 or self.words <= 4)
            and ":" not in self.sign
        )

    @property
    def asks(self) -> bool:
        """Whether it ends in a question mark."""
        return self.sign[:1] in _ASKS

    @property
    def row(self) -> bool:
        """Whether it is a line of figures, as in a table."""
        return self.sign[:1] == "\n" and not self.task and self.marks + self.numbers > self.words // 2

    @property
    def commands(self) -> bool:
        """Whether it names a task early, and does not run on as prose does."""
        return self.task is not None and 0 < self.before <= 4 and self.words <= 45


def segments(text: str) -> list[Segment]:
    """Cut a plain lower-case text into segments, and name the concepts of each."""
    whole, stems, heads, phrases, glued = cues()
    found: list[Segment] = []
    fenced = False
    opened = -1  # the index of the first segment of an open quotation
    start = words = numbers = marks = before = 0
    seen: list[str] = []
    for match in islice(_tokens()(text), TOKENS):
        kind = match.lastindex
        if kind == 1:
            word = match[1]
            words += 1
            hit = whole.get(word)
            if hit is not None and (words <= 3 or hit[0] not in _OPENERS):
                seen += hit
            near = stems.get(word[:STEM])
            if near is not None:
                seen += [concept for stem, concept in near if word.startswith(stem)]
            if word in heads:
                end = match.end()
                after = phrases.get(word + text[end : end + NEXT], ())
                seen += [concept for rest, concept in after if text.startswith(rest, end)]
            if not before and seen:
                before = words
        elif kind in (3, 4):
            numbers += kind == 3
            marks += kind == 4
        elif kind == 2:
            first = _glued_cues(text, match.start(2), match.end(), glued, seen)
            if not before and seen:
                before = words + (first - match.start(2)) // 2 + 1
            words += (match.end() - match.start(2) + 1) // 2  # about two characters make a word
        else:  # 5, 6, 7: a segment ends
            sign = match[kind or 0]
            if words or numbers or marks:
                found.append(Segment((start, match.start()), seen, (words, numbers, marks, before), sign))
                found[-1].fenced = fenced
                found[-1].quoted = fenced or opened >= 0
                seen = []
                words = numbers = marks = before = 0
            elif found:
                found[-1].sign += sign
            if sign == "```":
                fenced = not fenced
            elif kind == 7:
                opened = -1 if opened >= 0 else len(found)
            start = match.end()
    if words or numbers or marks:
        sign = "\n" if found and found[-1].sign[:1] == "\n" else ""  # the last of several lines
        found.append(Segment((start, len(text)), seen, (words, numbers, marks, before), sign))
        found[-1].fenced = found[-1].quoted = fenced
    _unquote(found, opened)
    return found


def _unquote(found: list[Segment], opened: int) -> None:
    """Undo a quotation that was never closed: an apostrophe, an inch sign or a cut. `opened` is -1 if there is none."""
    for segment in found[opened:] if opened >= 0 else ():
        segment.quoted = segment.fenced


def _glued_cues(text: str, start: int, end: int, glued: Lookup, seen: list[str]) -> int:
    """Look up every position of a run without spaces; the longest cue wins. Return where the first one begins."""
    at, first = start, end
    while at < end:
        for item, concept in glued.get(text[at : at + 2], ()):
            if text.startswith(item, at):
                seen.append(concept)
                first = min(first, at)
                at += len(item)
                break
        else:
            single = glued.get(text[at])
            if single is not None:
                seen.append(single[0][1])
                first = min(first, at)
            at += 1
    return first
