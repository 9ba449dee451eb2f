"""The values that travel through the gateway, from a parsed call to a settled record. No behaviour, no I/O.

`Message.content` is a tuple of parts and `Event` a closed union, so that tools and images can join by adding a member
and following the type checker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NewType, TypeAlias

from floop_gateway_core.errors import Refusal

RequestId = NewType("RequestId", str)
Microcredits = NewType("Microcredits", int)
"""A millionth of a credit. Money is only ever this integer; decimals exist at the edges."""

Role = Literal["system", "user", "assistant"]
Endpoint = Literal["chat", "generate", "embed"]
FinishReason = Literal["end_turn", "max_tokens", "stop_sequence", "refusal", "content_filter", "error"]


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


Part: TypeAlias = TextPart


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The parts joined without a separator (contract: Request bodies)."""
        parts = self.content
        return parts[0].text if len(parts) == 1 else "".join(part.text for part in parts)

    @classmethod
    def of(cls, role: Role, text: str) -> "Message":
        return cls(role, (TextPart(text),))


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asked for, whichever dialect it spoke. `system` stands apart from the turns in `messages`."""

    endpoint: Endpoint
    messages: tuple[Message, ...]
    alias: str = "auto"
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer. Cached tokens are part of the input, reasoning tokens part of the output."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Bill:
    """An answer's usage, and what it cost the account that paid; what remains is None where the store did not answer."""

    usage: Usage
    credits_used: Microcredits
    credits_remaining: Microcredits | None


@dataclass(frozen=True, slots=True)
class Texts:
    """Every non-empty text that the upstream sent and that is ready now, in order: one frame each."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Completed:
    bill: Bill
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The call failed for good; `bill` covers what was delivered before (zero where nothing was)."""

    refusal: Refusal
    bill: Bill


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing has come for a while; the client should know that the connection lives."""


Event: TypeAlias = Texts | Completed | Failed | Heartbeat
