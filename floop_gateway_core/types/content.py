"""What a message is made of.

`Part` is a closed union. Whoever reads parts matches on it and ends with `assert_never`, so that the type checker finds
every reader when a kind of part is added.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

__all__ = ["ImagePart", "Message", "OpaquePart", "Part", "Role", "TextPart", "ToolCallPart", "ToolResultPart", "Vendor"]

Role = Literal["system", "user", "assistant"]
Vendor = Literal["openai", "anthropic", "gemini"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text. The parts of a message join without a separator.

    `cache` is the `cache_control` that follows it, as JSON text; only Anthropic deployments use it.
    """

    text: str
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image: its bytes in base64 with their media type, or an `https` URL, which is never fetched here."""

    url: str | None = None
    media_type: str | None = None
    data: str = ""
    detail: str | None = None
    """How closely OpenAI's models are to look: `low`, `high` or `auto`."""
    cache: str | None = None
    """As of a `TextPart`."""


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """Content for one vendor only, which is sent back to it unchanged: a thought with its signature, a document.

    `json` is the block as that vendor writes it.
    """

    vendor: Vendor
    json: str


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A call of a tool in an earlier answer. `arguments` is JSON text as it came, and need not be an object.

    `signature` is Gemini's: it goes back with the call.
    """

    id: str
    name: str
    arguments: str
    signature: str | None = None
    cache: str | None = None
    """As of a `TextPart`."""


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool has answered to the call of this id."""

    call_id: str
    content: tuple[TextPart | ImagePart | OpaquePart, ...]
    is_error: bool = False
    cache: str | None = None
    """As of a `TextPart`."""


Part: TypeAlias = TextPart | ImagePart | OpaquePart | ToolCallPart | ToolResultPart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Results of tools are parts of a user's turn."""

    role: Role
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Return the text parts joined without a separator (contract: Request bodies); other parts have no text."""
        texts: list[str] = []
        for part in self.content:
            match part:
                case TextPart(text):
                    texts.append(text)
                case ImagePart() | OpaquePart() | ToolCallPart() | ToolResultPart():
                    pass
                case _:
                    assert_never(part)
        return "".join(texts)

    @classmethod
    def of(cls, role: Role, text: str) -> "Message":
        """Return a message with a single text part."""
        return cls(role, (TextPart(text),))
