"""Parts the segments of a request into its instruction and the material that the instruction is about.

Decides nothing else. Theory. People say what they want at the head of a text or at its tail, and the rest is what they
want it done to. The head ends when it announces material (a colon, a blank line, a quotation); the tail is the last
line, choices and the slot for an answer left out. Where the turn commands nothing, the system prompt does, and all of
the turn is material.
"""

from typing import NamedTuple

from floop_gateway_core.policy.auto.cues import EASY, TASKS, VERBS, Segment

HEAD, TAIL = 280, 300
"""How far from its start and its end a text is taken to hold its instruction."""

BRIEF = 40
"""At most so many words before a blank line, or a colon at the end of a line, are an instruction of their own."""

LONG_TURN = 200
"""A turn of more characters that commands nothing early is what the system prompt's task is done to."""

CHOICES, CHOICE = 14, 8
"""At most so many segments, each of so many words, at the end of a text are choices and a slot for the answer."""

APART = 20
"""A separate line of at most this many words is an instruction about the text beside it."""

MATERIAL = 25
"""At least this many words after a separate line are what it is about."""

_COLONS, _ASKS, _QUOTES = ":：", "?？؟", '"“„«「『`'


class Parts(NamedTuple):
    """The instruction, which is the head's and the tail's, and the material; each in order."""

    head: list[Segment]
    tail: list[Segment]
    body: list[Segment]

    @property
    def asked(self) -> bool:
        """Whether the instruction commands something."""
        return any(segment.commands for segment in self.head + self.tail)


def lead(part: list[Segment]) -> tuple[str | None, str | None]:
    """The first task that a part names (a thing to be made only if there is no other), and the next other one."""
    named = [concept for segment in part if segment.task for concept in segment.concepts if concept in TASKS]
    if not named:
        return None, None
    first = next((concept for concept in named if concept in VERBS), named[0])
    at = named.index(first) + 1
    if first in ("make", "fixcode") and at < len(named) and named[at] in EASY:
        first = named[at]  # "write a summary", "make it shorter", "fix the spelling"
    return first, next((concept for concept in named if concept != first), None)


def part(found: list[Segment], size: int) -> Parts:
    """Part a text of `size` characters; politeness around it is left out."""
    kept = _without_politeness(found)
    total = sum(segment.words for segment in kept)
    head, tail = _lines_apart(kept, total) or _head_and_tail(kept, total, size)
    chosen = {id(segment) for segment in head + tail}
    return Parts(head, tail, [segment for segment in kept if id(segment) not in chosen])


def commanded(parts: Parts, background: list[Segment], size: int) -> Parts | None:
    """Return new parts if the system prompt gives the command and the turn is its material, else None."""
    task, _ = lead(background)
    if task is None:
        return None
    early = task in EASY and any(segment.before <= 6 and segment.task in EASY for segment in background[:3])
    silent = not parts.asked and (size > LONG_TURN or lead(parts.head + parts.tail)[0] is None)
    if not (early or silent):
        return None
    first = next(number for number, segment in enumerate(background) if segment.task)
    start = background[first].start
    head = [segment for segment in background[first:] if segment.start - start <= HEAD]
    return Parts(head, [], [*parts.head, *parts.body, *parts.tail])


def _without_politeness(found: list[Segment]) -> list[Segment]:
    first, last = 0, len(found)
    while first < last and found[first].polite:
        first += 1
    while last > first and found[last - 1].polite:
        last -= 1
    return found[first:last]


def _lines_apart(kept: list[Segment], total: int) -> tuple[list[Segment], list[Segment]] | None:
    """Return the short lines before and after a text if they are its whole instruction, and an easy one.

    "Which dates come up in this?", a blank line, and an exam sheet.
    """
    if total < BRIEF or len(kept) < 3:
        return None
    first, last = _first_line(kept), _last_line(kept)
    ahead, behind = (sum(segment.words for segment in line) for line in (first, last))
    sign = first[-1].sign
    apart = (
        ahead <= APART
        and not any(segment.numbers or segment.quoted for segment in first)
        and ("\n\n" in sign or (sign[:1] in _COLONS and ahead > 1) or (sign[:1] in _ASKS and "\n" in sign))
    )
    named = _tasks(first)
    easy = apart and bool(named) and named <= EASY
    signs = sum(segment.marks for segment in last)
    if 1 <= behind <= APART and signs < behind and not any(segment.quoted for segment in last):
        tasks = _tasks(last)
        points = any({"material", "short_answer"} & set(segment.concepts) for segment in last)
        if tasks <= EASY | {"chitchat"} and (tasks & EASY or points):
            if easy:
                return first, last
            if total >= 3 * behind and not (apart and named):
                return [], last  # the text is by far the longer, and nothing is asked ahead of it
    return (first, []) if easy and total - ahead >= MATERIAL else None


def _tasks(line: list[Segment]) -> set[str]:
    return {concept for segment in line for concept in segment.concepts if concept in TASKS}


def _first_line(kept: list[Segment]) -> list[Segment]:
    """Return the segments, three at most, up to the first line's end, a colon or a question mark."""
    for end in range(1, 4):
        sign = kept[end - 1].sign
        if "\n" in sign or sign[:1] in _COLONS + _ASKS:
            break
    return kept[:end]


def _last_line(kept: list[Segment]) -> list[Segment]:
    """Return the segments after the last blank line, or none if there is no blank line."""
    at = len(kept) - 1
    while at and "\n\n" not in kept[at - 1].sign:
        at -= 1
    return kept[at:] if at else []


def _head_and_tail(kept: list[Segment], total: int, size: int) -> tuple[list[Segment], list[Segment]]:
    """Return what of a text's beginning and of its end is instruction.

    A text whose head commands nothing, but whose last line does, is material up to there.
    """
    head, rest, parted = _head(kept, total)
    tail = _tail(rest, size)
    if parted and tail and (tail[0] is rest[0] or "\n" not in rest[rest.index(tail[0]) - 1].sign):
        tail = []  # the end of the material, and not a separate line
    task, _ = lead(tail)
    if rest and lead(head)[0] in EASY and any(segment.before <= 9 and segment.task in EASY for segment in head):
        tail = []  # "translate this: prove that ..."
    elif task is not None and (
        (total > 50 and not any(segment.commands for segment in head))
        or (task in EASY - {"extract"} and sum(segment.words for segment in tail) <= 15)
    ):
        head = []  # a text, and what to do with it at the end
    return head, tail


def _head(kept: list[Segment], total: int) -> tuple[list[Segment], list[Segment], bool]:
    """Return the head, what follows it, and whether a line's end parts them."""
    head: list[Segment] = []
    named, words = False, 0
    for at, segment in enumerate(kept):
        if segment.start - kept[0].start > HEAD:
            return head, kept[at:], False
        if segment.quoted:
            continue
        head.append(segment)
        words += segment.words
        named = named or segment.task is not None or "material" in segment.concepts
        parted = words <= BRIEF < total and ("\n\n" in segment.sign or segment.sign[:2] in (":\n", "：\n"))
        if parted or (named and segment.sign and (segment.sign[0] in _COLONS + _QUOTES or "\n" in segment.sign)):
            return head, kept[at + 1 :], parted
    return head, [], False


def _tail(rest: list[Segment], size: int) -> list[Segment]:
    """Return the last line of what follows the head, without choices after a question."""
    last = len(rest)
    while last and last > len(rest) - CHOICES and rest[last - 1].words <= CHOICE and not rest[last - 1].task:
        last -= 1
    if not last or not rest[last - 1].task or rest[last - 1].words > 45:
        last = len(rest)
    tail: list[Segment] = []
    for segment in reversed(rest[:last]):
        if segment.quoted or size - segment.end > TAIL or (tail and "\n" in segment.sign):
            break
        tail.append(segment)
    tail.reverse()
    return tail
