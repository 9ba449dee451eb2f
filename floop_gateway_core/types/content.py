"""What a message is made of.

`Part` is a closed union. Whoever reads parts matches on it and ends with `assert_never`, so that the type checker finds
every reader when a kind of part is added.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

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
        """Return the text parts joined without a separator (contract: Request bodies); other parts have no text."""
        texts: list[str] = []
        for part in self.content:
            match part:
                case TextPart(text):
                    texts.append(text)
                case _:
                    assert_never(part)
        return "".join(texts)

    @classmethod
    def of(cls, role: Role, text: str) -> "Message":
        """Return a message with a single text part."""
        return cls(role, (TextPart(text),))
