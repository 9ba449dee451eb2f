"""Text that upstreams cut at odd places, made whole.

A JSON escape can carry half a surrogate pair, and an upstream can put one half at the end of a chunk and the other at the
start of the next. `SurrogateJoiner` holds a trailing high half back until the next text comes, and turns a half that
stays alone into U+FFFD, so that what leaves is always valid UTF-8.
"""

import re
from collections.abc import Sequence

__all__ = ["SurrogateJoiner", "mend"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR_OR_HALF = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")


def _join(match: re.Match[str]) -> str:
    found = match.group()
    if len(found) == 1:
        return "\ufffd"
    return chr(0x10000 + ((ord(found[0]) & 0x3FF) << 10) + (ord(found[1]) & 0x3FF))


def mend(text: str) -> str:
    """Join surrogate pairs and replace lone halves.

    >>> mend("\\ud83d\\ude00 \\ud83d")
    '😀 \ufffd'
    """
    return text if text.isascii() or not _SURROGATE.search(text) else _PAIR_OR_HALF.sub(_join, text)


class SurrogateJoiner:
    """
    >>> joiner = SurrogateJoiner()
    >>> joiner.feed("a\\ud83d"), joiner.feed("\\ude00b"), joiner.flush()
    ('a', '😀b', '')
    """

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text that is complete so far; it may be empty."""
        if not text:
            return text
        if self._half:
            text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mend(text)

    def feed_all(self, texts: Sequence[str]) -> list[str]:
        """Return the complete parts of several texts in a row, without the empty ones."""
        if not self._half and "".join(texts).isascii():
            return [*filter(None, texts)]
        return [whole for text in texts if (whole := self.feed(text))]

    def flush(self) -> str:
        """End the text: return a half that is still held as U+FFFD, or an empty string."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""
