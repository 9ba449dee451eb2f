"""What a client asks for."""

from dataclasses import dataclass
from typing import Literal

from floop_gateway_core.types.content import Message

__all__ = ["Call", "Endpoint"]

Endpoint = Literal["chat", "generate", "embed"]


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asked for, in any dialect. `system` is separate from the turns in `messages`."""

    endpoint: Endpoint
    messages: tuple[Message, ...]
    alias: str = "auto"
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stream: bool = False
    names_model: bool = True
    """Whether the client named `alias`; else its plan's default takes its place."""
