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
"""Easy tasks that are no longer easy when applied to code."""

_WORK = TASKS - EASY - {"ask_fact", "define", "chitchat"}
"""Tasks that an easy verb's object may also name: "summarise debates, highlighting the arguments"."""

_ABOUT_TEXT = EASY | {"material"}
"""Concepts that the words of an instruction about code match but do not mean."""

OPTIONS = 700
"""Options are looked for in texts of fewer characters."""

_SPACES = re.compile(r"[ \t]{2,}|\t")
_OPTION = re.compile(r"(?:^|\n|\s)[\(（]?([a-hａ-ｈ])[\)）.．:：、]\s?(?=\S)", re.IGNORECASE)
_MARKED = re.compile(r"[bｂ][)）.．:：、]")  # no second option without this
_LISTED = re.compile(r"\n\s{0,4}(?:\d{1,2}[.)、]|[-*•])\s")
_SOURCE = re.compile(
    r"^\s{0,8}(?:(?:async )?(?:def|function|func|fn) \w+ ?[(<]|class \w+ ?[:({]|import [\w.]+;?$|from [\w.]+ import "
    r"|#include|(?:public|private|static) \w+ [\w<>]+|/\*\*|//|<\?php|(?:package|using) [\w.]+;|(?:const|let|var) \w+ ?="
    r"|(?:for|while|if) .{1,60}[:{]$|select .{1,80} from )",
    re.MULTILINE,
)

_OUTER = frozenset({('"', '"'), ("'", "'"), ("“", "”"), ("«", "»"), ("„", "“"), ("「", "」"), ("『", "』")})
_MANY = (0.0, 1.0, 1.5, 1.8, 2.0)
"""The weight of n mentions of a concept: the second adds less than the first, the fifth adds nothing."""


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
    text = text.replace("\x00", " ").replace("\u00a0", " ").lstrip("\ufeff\u200b").strip()
    if "  " in text or "\t" in text:
        text = _SPACES.sub(" ", text)
    return _unwrapped(text).lower().replace("\u0307", "")  # the dot that lower() leaves of a Turkish capital


def _weigh(part: list[Segment]) -> dict[str, float]:
    """Weigh each concept in a part. The first mention counts 1; in long parts, counts are scaled down by length."""
    counts: dict[str, int] = {}
    words = 0
    if not part:
        return {}
    for segment in part:
        words += segment.words
        easy = segment.task in EASY
        for concept in segment.concepts:
            if not (easy and concept in _WORK):
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
    seen: dict[str, float] = {}
    background = _background(messages, system)
    if background:
        anew = commanded(parts, background)
        if anew is None:
            seen.update({"sys." + name: weight for name, weight in _weigh(background).items() if name in TASKS})
        else:
            parts = anew
    instruction = parts.head + parts.tail
    task, inside = lead(instruction), _weigh(instruction)
    source = _source(text)
    if task in _CONVERTS and _on_code(instruction, source and task != "extract"):
        task = "fixcode"
        inside = {name: weight for name, weight in inside.items() if name not in _ABOUT_TEXT} | {"code": 1.0}
    if task:
        seen["lead." + task] = 1.0
    seen.update({"in." + name: weight for name, weight in inside.items()})
    seen.update({"body." + name: weight for name, weight in _weigh(parts.body).items()})
    size = sum(segment.words + segment.numbers for segment in kept)
    if before and not task and size < 12:
        seen.update({"prev." + name: 1.0 for name in _weigh(segments(_window(before[:CONTEXT]))) if name in TASKS})
    if source:
        seen["source"] = 1.0
    seen.update(_shape(text, max(size, len(full) // 6 if len(full) > WINDOW else 0)))
    seen.update(_counts(instruction, parts.body, inside, size))
    if not kept:
        seen["only_polite"] = 1.0
    elif not task and size < 12:
        seen["no_task_short"] = 1.0
    return seen


def _background(messages: Sequence[Message], system: str | None) -> list[Segment]:
    """Cut the system prompt, and system messages at the start of a conversation."""
    prompts = [message.text for message in messages[:3] if message.role == "system" and message.content]
    texts = [text[:CONTEXT] for text in (system, *prompts) if text]
    return segments(_window("\n".join(texts))) if texts else []


def _source(text: str) -> bool:
    """Whether a line of the text looks like source code."""
    return bool(_SOURCE.search(text) if "\n" in text else _SOURCE.match(text))


def _on_code(instruction: list[Segment], source: bool) -> bool:
    """Whether an easy verb is about code ("translate this function to Go") and not about a text that mentions code."""
    named = {concept for segment in instruction for concept in segment.concepts}
    return ("code" in named or source) and named.isdisjoint({"prose", "tongue"})


def _shape(text: str, size: int) -> dict[str, float]:
    """Describe the form of a text of about `size` words: how long, which marks, options, listed points."""
    shape = {
        "length": min(_log2(size), 10.0) / 4,
        "clauses": min(text.count(",") + text.count("，") + text.count("、") + text.count("،"), 12) / 6,
    }
    listed = len(_LISTED.findall(text)) if "\n" in text else 0
    if listed >= 2:
        shape["listed"] = min(listed, 8) / 4
    if len(text) < OPTIONS and _MARKED.search(text) and len(_OPTION.findall(text)) >= 2:
        shape["options"] = 1.0
    if "?" in text or "？" in text or "؟" in text:
        shape["question"] = 1.0
    return shape


def _counts(
    instruction: list[Segment], body: list[Segment], inside: Mapping[str, float], size: int
) -> dict[str, float]:
    """Count numbers and signs, and tell a word problem from a question about one number."""
    numbers = others = marks = 0
    for segment in instruction:  # which has no rows
        numbers += segment.numbers
        marks += segment.marks
    for segment in body:
        if not segment.row:
            others += segment.numbers
            marks += segment.marks
    counts = {
        "numbers": min(_log2(numbers), 4.0) / 2,
        "numbers_body": min(_log2(others), 5.0) / 2,
        "signs": min(marks / (size + 4), 1.0) * 2,
    }
    if body:
        counts["has_body"] = 1.0
    if numbers >= 2 and "how_many" in inside:
        counts["story_sum"] = 1.0
    elif numbers + others == 0 and "how_many" in inside and size < 12:
        counts["count_fact"] = 1.0
    return counts


def _log2(number: int) -> float:
    """The whole part, and the linear fraction, of log2(number + 1): no libm, so the same on every machine."""
    number += 1
    power = number.bit_length() - 1
    return power + number / (1 << power) - 1
