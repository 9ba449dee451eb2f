"""What an answer consists of: its events, its usage, its bill."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from floop_gateway_core.errors import Refusal
from floop_gateway_core.types.amounts import Microcredits

__all__ = [
    "AnswerEvent",
    "Bill",
    "Completed",
    "Failed",
    "FinishReason",
    "Piece",
    "Pieces",
    "RefusalStart",
    "Started",
    "Texts",
    "Thought",
    "ToolEnd",
    "ToolPiece",
    "Usage",
]

FinishReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "content_filter", "error"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer. Input includes tokens read from or written to a cache; output includes reasoning."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_written_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Return input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Bill:
    """An answer's usage and its cost. `credits_remaining` is None if the store was unavailable at the end."""

    usage: Usage
    credits_used: Microcredits
    credits_remaining: Microcredits | None


@dataclass(frozen=True, slots=True)
class Started:
    """The answer begins: `deployment` serves it, and its input has `input_tokens` tokens, as far as is known yet.

    `input_tokens` includes `cached_tokens` and `cache_written_tokens`.
    """

    deployment: str
    input_tokens: int
    cached_tokens: int = 0
    cache_written_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Texts:
    """Every non-empty text that the upstream has sent and that is ready now, in order: one frame each."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class ToolPiece:
    """A piece of the call of a tool. The first piece of a call has its `id` and `name`, and may have no arguments yet.

    `index` counts the calls of an answer. `signature` is Gemini's, `thoughts` are Anthropic's blocks of thinking before
    the call, as a JSON array; they go back with the call.
    """

    index: int
    arguments: str = ""
    id: str = ""
    name: str = ""
    signature: str | None = None
    thoughts: str | None = None


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """The call of a tool has ended."""

    index: int


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the model's thinking: billed as output, not part of the answer's text.

    `signature` ends a block of thinking. `redacted` is a block that only its vendor can read.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


@dataclass(frozen=True, slots=True)
class RefusalStart:
    """The texts that follow are the model's refusal of the request."""


Piece: TypeAlias = ToolPiece | ToolEnd | Thought | RefusalStart


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the upstream has sent besides text and is ready now, in order."""

    pieces: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer is complete and has been billed."""

    bill: Bill
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The call failed for good. `bill` covers what was delivered before; it is zero if nothing was."""

    refusal: Refusal
    bill: Bill


AnswerEvent: TypeAlias = Started | Texts | Pieces | Completed | Failed
