"""The pieces of a whole answer, put together: texts, thoughts and calls of tools in the order in which they began."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from floop_gateway_core.types import Piece, RefusalStart, Thought, ToolEnd, ToolPiece

__all__ = ["Block", "CallBlock", "TextBlock", "ThoughtBlock", "blocks_of", "calls_of", "text_of"]


@dataclass(slots=True)
class TextBlock:
    """Text between two other blocks."""

    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return the text."""
        return "".join(self.texts)


@dataclass(slots=True)
class ThoughtBlock:
    """A thought with its signature, or a redacted one."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


@dataclass(slots=True)
class CallBlock:
    """A call of a tool; `ended` is whether it came to its end."""

    id: str
    name: str
    arguments: str
    signature: str | None
    thoughts: str | None
    ended: bool = False


Block: TypeAlias = TextBlock | ThoughtBlock | CallBlock


def blocks_of(items: Iterable[str | Piece]) -> list[Block]:
    """Return the blocks of an answer's items."""
    found: list[Block] = []
    calls: dict[int, CallBlock] = {}
    for item in items:
        last = found[-1] if found else None
        match item:
            case str():
                if not isinstance(last, TextBlock):
                    last = TextBlock()
                    found.append(last)
                last.texts.append(item)
            case Thought(text, signature, redacted):
                if not isinstance(last, ThoughtBlock) or last.signature or last.redacted or redacted:
                    last = ThoughtBlock(redacted=redacted)
                    found.append(last)
                last.text += text
                last.signature = signature or last.signature
            case ToolPiece(index=index):
                if (call := calls.get(index)) is None:
                    call = calls[index] = CallBlock(item.id, item.name, "", item.signature, item.thoughts)
                    found.append(call)
                call.arguments += item.arguments
                call.signature = call.signature or item.signature
            case ToolEnd(index):
                if (ended := calls.get(index)) is not None:
                    ended.ended = True
            case RefusalStart():
                pass  # OpenAI's dialect alone has a place for it
            case _:
                assert_never(item)
    return found


def text_of(items: Sequence[str | Piece]) -> str:
    """Return the text alone."""
    return "".join([item for item in items if isinstance(item, str)])


def calls_of(blocks: Iterable[Block]) -> list[CallBlock]:
    """Return the calls alone."""
    return [block for block in blocks if isinstance(block, CallBlock)]
