"""The provider that needs no key: it answers with the last user text itself, word by word.

A frame is a word with the white space that follows it; white space at the start goes with the first word, and white space
alone is one word. One word counts as one output token, each word of the input (the system text included) as one
input token. Both are reported with every frame. `max_tokens` cuts the answer after that many words, and a stop sequence
before its first occurrence.
"""

import re
from collections.abc import Callable
from types import TracebackType

import anyio
from anyio.lowlevel import checkpoint

from floop_gateway_core.providers.base import Delta, UpstreamCall
from floop_gateway_core.providers.encoding import text_of
from floop_gateway_core.types import FinishReason, Usage

__all__ = ["EchoProvider"]

_WORD = re.compile(r"\s*\S+\s*")
WORDS_AT_ONCE = 256
"""Words sent in one chunk when nothing paces them."""


class EchoProvider:
    """`words_per_second` of 0 sends as fast as the client reads."""

    def __init__(self, *, words_per_second: float = 0.0) -> None:
        self._words_per_second = words_per_second

    def open(self, call: UpstreamCall, on_sent: Callable[[], None]) -> "_Echo":
        """Return the answer to a call."""
        on_sent()
        return _Echo(call, self._words_per_second)


def words(text: str) -> list[str]:
    """Split a text into frames; joined, they are the text again.

    >>> words(" one  two")
    [' one  ', 'two']
    """
    return _WORD.findall(text) or ([text] if text else [])


class _Echo:
    def __init__(self, call: UpstreamCall, words_per_second: float) -> None:
        users = [text_of(message) for message in call.messages if message.role == "user"]
        text = users[-1] if users else ""
        stops = [place for stop in call.sampling.stop if (place := text.find(stop)) >= 0]
        said = words(text[: min(stops)] if stops else text)
        self._words = said[: call.max_tokens]
        self._cut: FinishReason = "stop_sequence" if stops else "end_turn"
        if len(said) > call.max_tokens:
            self._cut = "max_tokens"
        self._input_tokens = sum(len(words(text_of(message))) for message in call.messages) + len(
            words(call.system or "")
        )
        self._pause_s = 1.0 / words_per_second if words_per_second > 0 else 0.0
        self._sent = 0

    async def __aenter__(self) -> "_Echo":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    async def next(self) -> Delta:
        if self._sent >= len(self._words):
            await checkpoint()
            return Delta(events=1, usage=self._usage(), usage_is_complete=True, finish=self._cut)
        if self._pause_s:
            await anyio.sleep(self._pause_s)
        else:
            await checkpoint()
        texts = self._words[self._sent : self._sent + (1 if self._pause_s else WORDS_AT_ONCE)]
        self._sent += len(texts)
        return Delta(events=len(texts), items=[*texts], usage=self._usage(), usage_is_complete=True)

    def _usage(self) -> Usage:
        return Usage(self._input_tokens, self._sent)
