"""What a client asks for."""

from dataclasses import dataclass
from typing import Literal

from floop_gateway_core.types.content import Message
from floop_gateway_core.types.tools import NO_SHAPE, Shape

__all__ = ["DEFAULT_SAMPLING", "Call", "Endpoint", "Sampling"]

Endpoint = Literal["chat", "generate", "embed"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and where an answer stops; None and () leave it to the provider."""

    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


DEFAULT_SAMPLING = Sampling()


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
    """Whether the client chose `alias` itself; otherwise the plan's default replaces it."""
    sampling: Sampling = DEFAULT_SAMPLING
    shape: Shape = NO_SHAPE
    tags: tuple[tuple[str, str], ...] = ()
    """Names and values for the usage log, such as the client's own user."""
    asked: str | None = None
    """What the client wrote for the model, if that was mapped to `alias`; an answer echoes it."""
    reports_usage: bool = True
    """Whether a stream ends with its usage, where a dialect leaves that to the client."""
    ignored: tuple[str, ...] = ()
    """Fields of the body that were not read."""

    @property
    def model(self) -> str:
        """The model as an answer echoes it."""
        return self.asked or self.alias
