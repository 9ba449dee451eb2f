"""Parts the segments of a request into its instruction and the material that the instruction is about.

Decides nothing else. Theory. People say what they want at the head of a text or at its tail, and the rest is what they
want it done to. Whatever mentions nothing at either end (a greeting, thanks, "this is for work", a heading) is no part
of the request, so that only what names a task can part a text. The head ends when it has named a task and announces
material (a colon, a line's end, a quotation); the tail is the last line, choices and the slot for an answer left out.
Where the turn commands nothing, the system prompt does, and all of the turn is material.
"""

from typing import NamedTuple

from floop_gateway_core.policy.auto.cues import EASY, TASKS, VERBS, Segment

HEAD = 400
"""How far from its start, in characters, a text is taken to hold its instruction."""

OPENING = 16
"""A paragraph of at most so many words that mentions nothing is no part of the request behind it; one that greets as
well, none of the request ahead of it."""

LINE = 20
"""At most so many words on a line of their own, at the end, are about all of the text ahead of them."""

CHOICES, CHOICE = 14, 8
"""At most so many segments, each of so many words, at the end of a text are choices and a slot for the answer."""

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
    """Return the first task that a part names; a thing to be made only if nothing is to be done."""
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
    """Leave out politeness at both ends, and opening paragraphs that mention nothing; never all that says something."""
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
