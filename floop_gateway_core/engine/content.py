"""Turns an attempt's items into the content of an answer: complete texts and everything else the client reads."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from floop_gateway_core.providers.base import DeltaItem, texts_alone
from floop_gateway_core.types import Piece, Pieces, RefusalStart, Texts, Thought, ToolEnd, ToolPiece
from floop_gateway_core.wire.surrogates import SurrogateJoiner, mend

__all__ = ["Content", "content_of"]

Content: TypeAlias = Texts | Pieces


def content_of(items: list[DeltaItem], joiner: SurrogateJoiner, *, shows_thinking: bool) -> list[Content]:
    """Return the content that is ready. Thoughts are left out unless the client reads them."""
    if (texts := texts_alone(items)) is not None:
        found = joiner.feed_all(texts)
        return [Texts(found)] if found else []
    return _mixed(items, joiner, shows_thinking=shows_thinking)


def _mixed(items: Sequence[DeltaItem], joiner: SurrogateJoiner, *, shows_thinking: bool) -> list[Content]:
    groups: list[list[str] | list[Piece]] = []
    for item in items:
        if isinstance(item, str):
            if whole := joiner.feed(item):
                _add(groups, whole)
        elif shows_thinking or not isinstance(item, Thought):
            _add(groups, _mended(item))
    return [Texts(group) if isinstance(group[0], str) else Pieces(group) for group in groups]


def _add(groups: "list[list[str] | list[Piece]]", item: str | Piece) -> None:
    """Add an item to the last group if it is of its kind, else begin another one."""
    if groups and isinstance(groups[-1][0], str) == isinstance(item, str):
        groups[-1].append(item)  # type: ignore[arg-type]
    else:
        groups.append([item])  # type: ignore[arg-type]


def _mended(piece: Piece) -> Piece:
    """Return a piece without half surrogate pairs, which no vendor should send."""
    match piece:
        case ToolPiece() if not f"{piece.arguments}{piece.id}{piece.name}".isascii():
            return replace(piece, arguments=mend(piece.arguments), id=mend(piece.id), name=mend(piece.name))
        case Thought(text=text) if text != (whole := mend(text)):
            return replace(piece, text=whole)
        case ToolPiece() | Thought() | ToolEnd() | RefusalStart():
            return piece
