"""Estimates how many tokens a text is likely to have, and a number that it hardly ever exceeds.

`expected` stands in for usage that a provider does not report, and for the input cap; `upper` sizes holds. It must
never raise on a string, depend on a clock, on chance or on an earlier call, take time that grows faster than the text,
or put `upper` above the text's length in UTF-8 bytes, which bounds every byte-level vocabulary (`claude` normalises to
NFKC first: there it is that form's length, by a sample beyond `EXACT_CHARACTERS`).

Theory. Texts up to `EXACT_CHARACTERS` are summed completely (`_tokens`); `upper` is the sum plus a margin, so appending
never lowers it. For a longer text, the beginning is summed completely and the rest is estimated from windows spread
evenly over it. Windows can miss a dense passage, so a thin sample of characters from all of the rest is classified as
well: if it looks more or less expensive than the windows, their sum is scaled. A hash of the text decides where both
samples are taken. `upper` is never below that of the beginning.
"""

import hashlib
import math
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import assert_never

from floop_gateway_core.policy.tokens.images import image_tokens
from floop_gateway_core.policy.tokens.strange import set_apart
from floop_gateway_core.policy.tokens.tables import UNIT, Costs, Sums, add_up, classes_of, load_costs, rough_cost
from floop_gateway_core.types import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = [
    "EXACT_CHARACTERS",
    "VOCABULARIES",
    "TokenEstimate",
    "UnknownVocabulary",
    "estimate_messages",
    "estimate_tokens",
    "fits",
    "texts_of",
]

VOCABULARIES: tuple[str, ...] = ("o200k", "cl100k", "claude", "llama3", "gemma3", "gemini", "qwen3", "deepseek_v3")

EXACT_CHARACTERS = 20_000
_WINDOWS, _WINDOW = 192, 125
_COMB, _BLOCKS = 20_000, 64
# Windows and comb are samples: what they may miss, as a share of their estimate.
_SAMPLING_MARGIN = 1.08
# The longest token, in characters, that a text could consist of, in any vocabulary.
_LONGEST_TOKEN = 1024
# Two characters that alternate for long are not language: each may be a token, so the hold is much larger than expected.
_COST_OF_ALTERNATION = 0.85
# Random text over a few distinct letters has up to a third more tokens than random text over every letter of their
# classes.
_STRANGE_MARGIN = 0.3
# Allows for characters at the edges of a sample's windows that would combine with their neighbours in the whole text.
_NORMAL_FORM_SLACK = 0.998
# Spaces that NFKC, and therefore `claude`, turns into a plain space.
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
# Text is normalized in pieces of this many characters, cut before a character that does not combine if one is near.
_PIECE, _SEAM, _FIRST_MARK = 500, 16, "\u0300"
# The most bytes that NFKC makes of a character.
_LONGEST_FORM = 33
# Tokens of the chat format for each message, and for each request (its beginning and the answer's header).
_CHAT: dict[str, tuple[int, int]] = {
    "o200k": (4, 3),
    "cl100k": (4, 3),
    "claude": (5, 5),
    "llama3": (5, 5),
    "gemma3": (5, 4),
    "gemini": (5, 4),
    "qwen3": (5, 3),
    "deepseek_v3": (2, 2),
}
_CHAT_SLACK = (3, 8)
_MESSAGES = 200  # more of them are estimated as one text


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """`expected` is the best guess, `upper` what a hold takes: `0 <= expected <= upper`."""

    expected: int
    upper: int


class UnknownVocabulary(ValueError):
    """A vocabulary's name is not one of `VOCABULARIES`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown vocabulary {name!r}; known ones: {', '.join(VOCABULARIES)}")


def estimate_tokens(text: str, vocabulary: str = "o200k") -> TokenEstimate:
    """Estimate the tokens of `text`, special ones left out.

    >>> estimate_tokens("")
    TokenEstimate(expected=0, upper=0)
    """
    costs = _costs(vocabulary)
    if not text:
        return TokenEstimate(0, 0)
    if vocabulary == "claude" and not text.isascii():
        for space in _SPACES:
            text = text.replace(space, " ")
    head = _sums(text[:EXACT_CHARACTERS], costs)
    expected, held = head.total, _held(head)
    rest = len(text) - EXACT_CHARACTERS
    if rest > 0:
        likely, safe = _rest(text, costs)
        expected, held = expected + likely, held + safe
    margin, root, fixed = costs.margin
    upper = math.ceil(held * margin + root * math.sqrt(held) + fixed)
    # Every form, NFKC too, has at least half as many bytes as the text has characters: no bound applies below that.
    if upper > len(text) // 2:
        upper = _bounded(upper, text, vocabulary)
    least = -(-len(text) // _LONGEST_TOKEN)
    upper = max(upper, least)
    return TokenEstimate(min(upper, max(least, round(expected))), upper)


def estimate_messages(
    messages: Sequence[Message],
    system: str | None = None,
    vocabulary: str = "o200k",
    *,
    estimate: Callable[[str, str], TokenEstimate] = estimate_tokens,
) -> TokenEstimate:
    """Estimate the input tokens of a chat: those of its texts, and the chat format's own.

    `estimate` estimates one text; pass one that remembers texts which come again.
    """
    _costs(vocabulary)
    texts = [_text(message) for message in messages]
    images = sum(image_tokens(part, vocabulary) for part in _images(messages))
    if system is not None:
        texts.append(system)
    each, once = _CHAT[vocabulary]
    expected, upper = each * len(texts) + once, (each + _CHAT_SLACK[0]) * len(texts) + once + _CHAT_SLACK[1]
    if len(texts) > _MESSAGES or sum(map(len, texts)) > EXACT_CHARACTERS:
        texts = ["".join(texts)]  # so that many messages take no longer than one
    for text in texts:
        one = estimate(text, vocabulary)
        expected, upper = expected + one.expected, upper + one.upper
    return TokenEstimate(expected + images, upper + images)


def _text(message: Message) -> str:
    """Not `Message.text`, which leaves kinds of parts out: every kind costs tokens."""
    return "".join(texts_of(message.content))


def texts_of(parts: Iterable[Part]) -> Iterator[str]:
    """Iterate over all that costs tokens as text: words, calls of tools and their results, a vendor's own blocks."""
    for part in parts:
        match part:
            case TextPart(text):
                yield text
            case ToolCallPart():
                yield f"{part.name}{part.arguments}"
            case ToolResultPart():
                yield from texts_of(part.content)
            case OpaquePart():
                yield part.json
            case ImagePart():  # counted by its size
                pass
            case _:
                assert_never(part)


def _images(messages: Iterable[Message]) -> Iterator[ImagePart]:
    for message in messages:
        for part in message.content:
            inner = part.content if isinstance(part, ToolResultPart) else (part,)
            yield from (one for one in inner if isinstance(one, ImagePart))


def fits(text: str, limit_tokens: int, vocabulary: str = "o200k") -> bool:
    """Return whether `text` is expected to have at most `limit_tokens` tokens.

    Answers without estimating if the length alone decides.

    >>> fits("short", 8000), fits("x" * 10_000_000, 8000)
    (True, False)
    """
    _costs(vocabulary)
    length = len(text)
    # A character has at most four bytes, but NFKC can lengthen it.
    if length * (_LONGEST_FORM if vocabulary == "claude" and not text.isascii() else 4) <= limit_tokens:
        return True
    if length > limit_tokens * _LONGEST_TOKEN:
        return False
    return estimate_tokens(text, vocabulary).expected <= limit_tokens


def _costs(vocabulary: str) -> Costs:
    if vocabulary not in VOCABULARIES:
        raise UnknownVocabulary(vocabulary)
    return load_costs(vocabulary)


def _sums(text: str, costs: Costs) -> Sums:
    """Add up the cost of a text: passages in no language separately, the rest from the tables."""
    codes = classes_of(text)
    if text.isascii():
        return add_up(codes, costs)
    apart = set_apart(text, codes, costs)
    sums = add_up(apart.left, costs)
    return replace(sums, total=sums.total + (apart.letters + apart.blanks) / UNIT, strange=apart.letters / UNIT)


def _rest(text: str, costs: Costs) -> tuple[float, float]:
    """Return (expected, held) for what follows the beginning."""
    rest = len(text) - EXACT_CHARACTERS
    if rest <= _WINDOWS * _WINDOW:
        sums = _sums(text[EXACT_CHARACTERS:], costs)
        return sums.total, _held(sums)
    chance = _chance(text)
    sample = "".join(_windows(text, EXACT_CHARACTERS, chance))
    sums = _sums(sample, costs)
    comb = _comb(text, EXACT_CHARACTERS, chance)
    density = rough_cost(classes_of(comb)) / rough_cost(classes_of(sample))
    factor = rest / len(sample)
    # A sample may by chance cost more than the whole, which must not lower the hold.
    return sums.total * factor * density, _held(sums) * factor * max(1.0, density) * _SAMPLING_MARGIN


def _chance(text: str) -> random.Random:
    """Return the random generator that decides where a text is sampled; it is the same in every process.

    The seed is a cryptographic hash of the whole text. Changing any character moves every sampled place, so a text
    cannot be written around them. A checksum would not be enough: four characters anywhere can set it to any value.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _windows(text: str, start: int, chance: random.Random) -> list[str]:
    """Return windows of a text from `start` to its end, one by chance in each stride."""
    stride = (len(text) - start) / _WINDOWS
    places = (start + int(i * stride + chance.random() * (stride - _WINDOW)) for i in range(_WINDOWS))
    return [text[at : at + _WINDOW] for at in places]


def _comb(text: str, start: int, chance: random.Random) -> str:
    """Return a thin sample of characters of a text from `start`; each block begins at a column by chance."""
    rest = len(text) - start
    step = rest // _COMB | 1
    edges = [start + i * rest // _BLOCKS for i in range(_BLOCKS + 1)]
    return "".join(text[low + int(chance.random() * step) : high : step] for low, high in pairwise(edges))


def _held(sums: Sums) -> float:
    """Return the sum that `upper` is based on. Like every cost it only looks back, so appending never lowers it."""
    return sums.total + sums.alternating * _COST_OF_ALTERNATION + sums.strange * _STRANGE_MARGIN


def _bounded(upper: int, text: str, vocabulary: str) -> int:
    """Return `upper`, or the text's length in bytes if that is less: no token count exceeds it."""
    if text.isascii():
        return min(upper, len(text))
    plain = len(text.encode("utf-8", "surrogatepass"))
    if vocabulary != "claude":
        return min(upper, plain)
    head, sampled_bound = text[:EXACT_CHARACTERS], 0
    if len(text) > EXACT_CHARACTERS:  # a sample decides how much shorter the whole's form is
        sample = _windows(text, 0, _chance(text))
        sampled = sum(len(part.encode("utf-8", "surrogatepass")) for part in sample)
        normal = _normal_bytes(sample, upper * sampled // plain * 2)
        sampled_bound = int(plain * (1.0 if normal == sampled else normal / sampled * _NORMAL_FORM_SLACK))
        if sampled_bound >= min(upper, len(head) * _LONGEST_FORM):
            return min(upper, sampled_bound)
    return min(upper, max(_normal_bytes(_pieces(head), upper), sampled_bound))


def _pieces(text: str) -> Iterator[str]:
    """Split a text where NFKC joins nothing. A run of combining marks, which NFKC sorts slowly, is split anywhere."""
    at = 0
    while at < len(text):
        end = at + _PIECE
        for seam in range(end, min(end + _SEAM, len(text))):
            if text[seam] < _FIRST_MARK:
                end = seam
                break
        yield text[at:end]
        at = end


def _normal_bytes(parts: Iterable[str], enough: int) -> int:
    """Return the total bytes of the parts' NFKC forms, counting no further than `enough`."""
    total = 0
    for part in parts:
        total += len(unicodedata.normalize("NFKC", part).encode("utf-8", "surrogatepass"))
        if total > enough:
            break
    return total
