"""What `classify` sees of a request: named numbers, read in one pass over a bounded window.

Decides nothing. It must never hold or return the text itself, and its work must not grow with the text: it reads
`WINDOW` characters of the last user turn (head and tail), `CONTEXT` of the system prompt and of the turn before.

Theory. A request is an *instruction* and, often, *material* that the instruction is about (`parts`). What the
instruction names (`in.*`, `lead.*`, `tail.*`) and what the material is about (`body.*`) are different things to see.
"""

import re
from collections.abc import Mapping, Sequence

from floop_gateway_core.policy.auto.cues import EASY, TASKS, Segment, segments
from floop_gateway_core.policy.auto.parts import commanded, essence, lead, part
from floop_gateway_core.types import Message

WINDOW = 2_400
"""Characters read of the last user turn: half from its head, half from its tail."""

CONTEXT = 800
"""Characters read of the system prompt, and of the user turn before the last."""

_CONVERTS = frozenset({"translate", "rewrite", "extract"})
"""Easy tasks that are none when they are done to code."""

_SMALL = frozenset({"ask_fact", "define", "how_many", "chitchat"})

_SPACES = re.compile(r"[ \t]{2,}|\t")
_OPTION = re.compile(r"(?:^|\n|\s)[\(（]?([a-hａ-ｈ])[\)）.．:：、]\s?(?=\S)", re.IGNORECASE)
_MARKED = re.compile(r"[bｂ][)）.．:：、]")  # no second option without this
_LISTED = re.compile(r"\n\s{0,4}(?:\d{1,2}[.)、]|[-*•])\s")
_SOURCE = re.compile(
    r"^\s{0,8}(?:def |class |async (?:def|function) |function |func |fn |import |from \w+ import|#include|public |private "
    r"|/\*\*|//|<\?php|package |using |const |let |var |select .{1,80} from )",
    re.MULTILINE,
)

_OUTER = frozenset({('"', '"'), ("'", "'"), ("“", "”"), ("«", "»"), ("„", "“"), ("「", "」"), ("『", "』")})
_MANY = (0.0, 1.0, 1.5, 1.8, 2.0)
"""What n mentions of a concept count: the second adds less than the first, the fifth nothing."""


def _unwrapped(text: str) -> str:
    """Remove quotation marks around a whole text."""
    if text[:3] in ('"""', "'''", "```") and len(text) > 6 and text.endswith(text[:3]):
        return text[3:-3].strip()
    if len(text) < 2 or (text[0], text[-1]) not in _OUTER:
        return text
    inner = text.find(text[-1], 1, len(text) - 1)
    if inner > 0 and not text[inner - 1].isspace():
        return text  # the first quotation closes inside, so the outer marks are not a pair
    return text[1:-1].strip()


def _window(text: str) -> str:
    """Return the head and the tail of a text, in lower case, with spaces, line ends and outer quotes made plain."""
    if len(text) > WINDOW:
        text = text[: WINDOW // 2] + "\n\n" + text[-WINDOW // 2 :]
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\x00", " ").replace("\u00a0", " ").strip()
    if "  " in text or "\t" in text:
        text = _SPACES.sub(" ", text)
    return _unwrapped(text).lower().replace("\u0307", "")  # the dot that lower() leaves of a Turkish capital


def _weigh(part: list[Segment]) -> dict[str, float]:
    """The weight of each concept in a part: its first mention counts 1, many in a long part no more than in a short one."""
    counts: dict[str, int] = {}
    words = 0
    if not part:
        return {}
    for segment in part:
        words += segment.words
        for concept in segment.concepts:
            counts[concept] = counts.get(concept, 0) + 1
    share = 30 / max(words, 30)
    counts.pop("greet", None)
    return {concept: min(_MANY[min(count, 4)], count * share * 1.5) for concept, count in counts.items()}


def _turns(messages: Sequence[Message]) -> tuple[str, str]:
    """Return the last user turn that says something and the one before it, or empty texts."""
    found: list[str] = []
    for message in reversed(messages):
        if message.role == "user" and message.content:
            text = message.text
            if text and not (text[:WINDOW].isspace() and text[-WINDOW:].isspace()):
                found.append(text)
                if len(found) == 2:
                    break
    return (found[0] if found else ""), (found[1] if len(found) > 1 else "")


def features(messages: Sequence[Message], system: str | None) -> dict[str, float]:
    """Name the features of a request: concepts by their position, and the shape of the text."""
    full, before = _turns(messages)
    window = _window(full)
    kept = essence(segments(window))
    text = window[kept[0].start : kept[-1].end + len(kept[-1].sign)] if kept else ""
    parts = part(kept)
    prompts = "\n".join(
        message.text[:CONTEXT] for message in messages[:3] if message.role == "system" and message.content
    )
    background = segments(_window((system or "")[:CONTEXT] + "\n" + prompts[:CONTEXT])) if system or prompts else []
    seen: dict[str, float] = {}
    if background:
        anew = commanded(parts, background, len(text))
        if anew is None:
            seen.update(_background(background))
        else:
            parts = anew
    head, tail, body = parts
    inside = _weigh(head + tail)
    first, second = lead(head)
    last, later = lead(tail)
    source = _source(text)
    if (first or last) in _CONVERTS and _on_code(inside, source):
        first, last = first and "fixcode", last and "fixcode"
        inside = {concept: weight for concept, weight in inside.items() if concept not in EASY} | {"code": 1.0}
    seen.update(_tasks(first, second, last, later))
    for concept, weight in inside.items():
        seen["in." + concept] = weight
    for concept, weight in _weigh(body).items():
        seen["body." + concept] = weight
    size = sum(segment.words + segment.numbers for segment in kept)
    if before and not first and not last and size < 12:
        for concept in _weigh(segments(_window(before[:CONTEXT]))):
            if concept in TASKS:
                seen["prev." + concept] = 1.0
    easy = bool((first in EASY and parts.asked) or last in EASY)
    if "code" in inside and not easy and first not in _SMALL:
        seen["work_on_code"] = 1.0
    if easy and body:
        seen["easy_about"] = 1.0
    if not easy:
        seen.update(_on_source(text, body))
    if source:
        seen["source"] = 1.0
    seen.update(_shape(full, text, head, tail, body, inside, size))
    if not kept:
        seen["only_polite"] = 1.0
    elif not first and not last and size < 12:
        seen["no_task_short"] = 1.0
    return seen


def _source(text: str) -> bool:
    """Whether a line of the text looks like source code."""
    return bool(_SOURCE.search(text) if "\n" in text else _SOURCE.match(text))


def _on_code(inside: Mapping[str, float], source: bool) -> bool:
    """Whether an easy verb is about code ("translate this function to Go") and not about a text that mentions code."""
    return ("code" in inside or source) and "prose" not in inside and "tongue" not in inside


def _tasks(first: str | None, second: str | None, last: str | None, later: str | None) -> dict[str, float]:
    """Name the tasks that lead the request and that end it, and what is to be made."""
    seen: dict[str, float] = {}
    if first:
        seen["lead." + first] = 1.0
        if second:
            seen["then." + second] = 1.0
            if first == "make":
                seen["make." + second] = 1.0
    if last:
        seen["tail." + last] = 1.0
        if last == "make" and later:
            seen["make." + later] = 1.0
    return seen


def _on_source(text: str, body: list[Segment]) -> dict[str, float]:
    """Return whether the material looks like source code, and whether the request begins with it."""
    seen: dict[str, float] = {}
    signs = sum(segment.marks for segment in body)
    if signs >= 6 and signs * 3 >= sum(segment.words for segment in body):
        seen["on_source"] = 1.0
    if _SOURCE.match(text):
        seen["source_first"] = 1.0
    return seen


def _background(background: list[Segment]) -> dict[str, float]:
    """Describe a system prompt when the turn names a task itself."""
    own, second = lead(background)
    seen = {"sys.lead." + own: 1.0} if own else {}
    if second:
        seen["sys.then." + second] = 1.0
    return seen | {"sys." + concept: weight for concept, weight in _weigh(background).items() if concept in TASKS}


def _shape(
    full: str,
    text: str,
    head: list[Segment],
    tail: list[Segment],
    body: list[Segment],
    inside: dict[str, float],
    size: int,
) -> dict[str, float]:
    """Describe the text's form: how long, how many numbers, signs, options, listed points, whether source code."""
    shape: dict[str, float] = {}
    every = set(inside)
    asked = head + tail
    numbers = sum(segment.numbers for segment in asked)
    others = sum(segment.numbers for segment in body)
    marks = sum(segment.marks for segment in asked) + sum(segment.marks for segment in body)
    options = len(_OPTION.findall(text)) if size < 700 and _MARKED.search(text) else 0
    lines = "\n" in text
    listed = len(_LISTED.findall(text)) if lines else 0
    long = max(size, len(full) // 6 if len(full) > WINDOW else 0)
    shape["length"] = min(_log2(long), 10.0) / 4
    shape["asked_length"] = min(_log2(sum(segment.words for segment in asked)), 7.0) / 3
    shape["numbers"] = min(_log2(numbers), 4.0) / 2
    shape["numbers_body"] = min(_log2(others), 5.0) / 2
    shape["signs"] = min(marks / (size + 4), 1.0) * 2
    shape["clauses"] = min(text.count(",") + text.count("，") + text.count("、") + text.count("،"), 12) / 6
    if options >= 2:
        shape["options"] = 1.0
    if listed >= 2:
        shape["listed"] = min(listed, 8) / 4
    if text.count("|") > 5:
        shape["table"] = 1.0
    if "?" in text or "？" in text or "؟" in text:
        shape["question"] = 1.0
        if asked and any(segment.sign[:1] in ("?", "？", "؟") for segment in asked):
            shape["asked_question"] = 1.0
    if any(segment.quoted for segment in body):
        shape["quoted"] = 1.0
    if body:
        shape["has_body"] = 1.0
    shape.update(_sums(every, numbers, others, size))
    for name, both in _PAIRS.items():
        if both <= every:
            shape[name] = 1.0
    if "material" in every and every & EASY:
        shape["easy_on_material"] = 1.0
    return shape


_PAIRS: Mapping[str, frozenset[str]] = {
    "make_code": frozenset({"code", "make"}),
    "make_text": frozenset({"longform", "make"}),
    "plan_bound": frozenset({"plan", "constraint"}),
}
"""Concepts that say more together."""


def _sums(every: set[str], numbers: int, others: int, size: int) -> dict[str, float]:
    """Distinguish a word problem or a calculation from a question about one number."""
    shape: dict[str, float] = {}
    if numbers >= 2:
        if "how_many" in every:
            shape["story_sum"] = 1.0
        if "solve" in every or "math" in every:
            shape["hard_sum"] = 1.0
    elif others == 0 and "how_many" in every and size < 12:
        shape["count_fact"] = 1.0
    return shape


def _log2(number: int) -> float:
    """The whole part, and the linear fraction, of log2(number + 1): no libm, so the same on every machine."""
    number += 1
    power = number.bit_length() - 1
    return power + number / (1 << power) - 1
