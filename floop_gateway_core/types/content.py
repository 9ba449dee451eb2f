"""What a message is made of."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Message", "Part", "Role", "TextPart"]

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text. The parts of a message join without a separator."""

    text: str


Part: TypeAlias = TextPart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Return the text parts joined without a separator (contract: Request bodies)."""
        parts = self.content
        return parts[0].text if len(parts) == 1 else "".join(part.text for part in parts)

    @classmethod
    def of(cls, role: Role, text: str) -> "Message":
        """Return a message with a single text part."""
        return cls(role, (TextPart(text),))
