"""Splits the segments of a request into its instruction and the material that the instruction is about.

Decides nothing else. Theory. People say what they want at the start of a text or at its end; the rest is the text it
should be done to. Anything at either end that mentions nothing (a greeting, thanks, "this is for work", a heading) is
not part of the request, so only words that name a task can divide a text. The head ends once it has named a task and
announces material (a colon, a line break, a quotation); the tail is the last line, without choices and the slot for an
answer. If the turn contains no command, the command is in the system prompt, and the whole turn is material.
"""

from typing import NamedTuple

from floop_gateway_core.policy.auto.cues import EASY, TASKS, VERBS, Segment

HEAD = 400
"""The number of characters from the start of a text in which its instruction is expected."""

OPENING = 16
"""A paragraph of at most this many words that mentions nothing is not part of the request that follows it; if it also
greets, it is not part of the request before it either."""

LINE = 20
"""A last line of at most this many words refers to all of the text before it."""

CHOICES, CHOICE = 14, 8
"""The most segments, and the most words in each, that choices and a slot for the answer have at the end of a text."""

_ENDS = ':："“„«「『`\n'
"""What announces material, once a task has been named."""


class Parts(NamedTuple):
    """The instruction, which is the head's and the tail's, and the material; each in order."""

    head: list[Segment]
    tail: list[Segment]
    body: list[Segment]

    @property
    def asked(self) -> bool:
        """Whether the instruction commands something: in its first sentence, or at its end."""
        return any(segment.commands for segment in self.head[:1] + self.tail)


def lead(part: list[Segment]) -> str | None:
    """Return the first task that a part names: an action if there is one, else a thing to be made."""
    named = [concept for segment in part if segment.task for concept in segment.concepts if concept in TASKS]
    if not named:
        return None
    first = next((concept for concept in named if concept in VERBS), named[0])
    following = named[named.index(first) + 1 :]
    if first in ("make", "ideas", "fixcode") and following and following[0] in EASY:
        return following[0]  # "write a summary", "make it shorter", "fix the spelling"
    return first


def part(kept: list[Segment]) -> Parts:
    """Part the `essence` of a text."""
    head, rest = _head(kept)
    tail = _tail(rest or kept)
    apart = bool(tail) and tail[0] is not kept[0] and "\n" in kept[kept.index(tail[0]) - 1].sign
    short = sum(segment.words for segment in tail) <= LINE
    commanded = any(segment.commands for segment in head if segment not in tail)
    if rest and lead(head) in EASY:
        tail = []  # "translate this: prove that ..."
    elif apart and short and (lead(tail) in EASY or (not commanded and any(s.task or s.asks for s in tail))):
        head = []  # a text, and what to do with it at the end
    elif not rest:
        tail = []
    chosen = {id(segment) for segment in head + tail}
    return Parts(head, tail, [segment for segment in kept if id(segment) not in chosen])


def commanded(parts: Parts, background: list[Segment]) -> Parts | None:
    """Return new parts if the system prompt gives the command and the turn is its material, else None."""
    task = lead(background)
    if task is None:
        return None
    early = task in EASY and any(segment.before <= 6 and segment.task in EASY for segment in background[:3])
    if parts.asked and not early:
        return None
    first = next(number for number, segment in enumerate(background) if segment.task)
    start = background[first].start
    head = [segment for segment in background[first:] if segment.start - start <= HEAD]
    return Parts(head, [], [*parts.head, *parts.body, *parts.tail])


def essence(found: list[Segment]) -> list[Segment]:
    """Drop polite phrases at both ends, and opening paragraphs that mention nothing; always keep some substance."""
    first, last = 0, len(found)
    while last > first:
        end = last - 1 if found[last - 1].polite else _closing(found, last)
        if end == last:
            break
        last = end
    while first < last:
        end = first + 1 if found[first].polite else _opening(found, first, last)
        if end == first:
            break
        first = end
    return found[first:last]


def _opening(found: list[Segment], first: int, last: int) -> int:
    """Return where a paragraph or question at `first` ends, or `first` if it mentions anything or nothing follows it."""
    words = 0
    for at in range(first, last - 1):
        segment = found[at]
        words += segment.words
        if words > OPENING or not segment.idle:
            return first
        if "\n\n" in segment.sign or segment.asks:
            return at + 1
    return first


def _closing(found: list[Segment], last: int) -> int:
    """Return where a last paragraph begins that greets and mentions nothing else, or `last` if it does not."""
    words, greets = 0, False
    for at in range(last - 1, 0, -1):
        segment = found[at]
        words += segment.words
        greets = greets or "greet" in segment.concepts
        if words > OPENING or not segment.idle:
            return last
        if "\n\n" in found[at - 1].sign:
            return at if greets else last
    return last


def _head(kept: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """Return the head and what follows it."""
    head: list[Segment] = []
    named = False
    for at, segment in enumerate(kept):
        if segment.start - kept[0].start > HEAD:
            return head, kept[at:]
        if segment.quoted or segment.row:
            continue
        head.append(segment)
        named = named or segment.task is not None
        if named and not set(_ENDS).isdisjoint(segment.sign):
            return head, kept[at + 1 :]
    return head, []


def _tail(rest: list[Segment]) -> list[Segment]:
    """Return the last line of what follows the head, without choices after a question."""
    last = len(rest)
    while last and last > len(rest) - CHOICES and rest[last - 1].words <= CHOICE and not rest[last - 1].task:
        last -= 1
    if not last or not rest[last - 1].task:
        last = len(rest)
    tail: list[Segment] = []
    for segment in reversed(rest[:last]):
        if segment.quoted or segment.row or (tail and "\n" in segment.sign):
            break
        tail.append(segment)
    tail.reverse()
    return tail
