"""What goes in and comes out."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict

__all__ = ["Answer", "Message", "Options", "Usage"]


class Message(TypedDict):
    """One turn: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


class Options(TypedDict, total=False):
    """The optional fields of a call; None counts as absent."""

    model: str | None
    system: str | None
    temperature: float | None
    max_tokens: int | None


@dataclass(frozen=True)
class Usage:
    """What a call cost. Credits are exact decimals; what remains is None where the gateway does not tell it."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    credits_used: Decimal
    credits_remaining: Decimal | None

    @classmethod
    def of(cls, value: Any) -> Usage:
        """Return the usage of the wire's object, whose numbers were read as decimals."""
        remaining = value.get("credits_remaining")
        return cls(
            int(value["input_tokens"]),
            int(value["output_tokens"]),
            int(value["total_tokens"]),
            Decimal(value["credits_used"]),
            None if remaining is None else Decimal(remaining),
        )


@dataclass(frozen=True)
class Answer:
    """A whole answer. `model` echoes what was asked for."""

    content: str
    model: str
    usage: Usage
    finish_reason: str
    request_id: str | None
