"""The tools that a model may call, the format of its answer, and how much it should think."""

from dataclasses import dataclass
from typing import Literal

Capability = Literal["tools", "images", "json_object", "json_schema", "serial_tools", "documents"]
"""Features that only some deployments support. `serial_tools` is making one call at a time on request."""

Wish = Literal["effort", "thinking", "no_thinking", "seed", "penalties", "top_k", "temperature", "extensions"]
"""Options that some vendors' APIs lack; the client is told which ones were left out."""

__all__ = ["NO_SHAPE", "Capability", "ResponseFormat", "Shape", "ThinkingRequest", "Tool", "ToolChoice", "Wish"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `schema` is a JSON schema as JSON text.

    `strict` makes the vendor hold the arguments to the schema. `extra` is the rest of the tool as Anthropic writes it,
    as JSON text, for Anthropic's deployments alone.
    """

    name: str
    description: str | None = None
    schema: str | None = None
    strict: bool | None = None
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools may, must or must not be called. With `name`, that tool must be called."""

    kind: Literal["auto", "none", "required", "tool"] = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """JSON as the answer's text: any object, or one that a schema (JSON text) describes."""

    kind: Literal["json_object", "json_schema"]
    name: str = "answer"
    schema: str | None = None
    strict: bool | None = None
    description: str | None = None
    path: str = ""
    """Where the schema stands in the client's body."""


@dataclass(frozen=True, slots=True)
class ThinkingRequest:
    """How much the client wants the model to think: a budget of tokens, or as much as it finds right (`adaptive`)."""

    kind: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a call asks for beyond text: tools, a format, an effort, and what only one vendor reads.

    `extensions` are members of Anthropic's request as JSON text, for Anthropic's deployments alone, `betas` the values
    of its header `anthropic-beta`.
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    effort: str | None = None
    thinking: ThinkingRequest | None = None
    shows_thinking: bool = False
    """Whether the client reads thoughts."""
    extensions: tuple[tuple[str, str], ...] = ()
    betas: tuple[str, ...] = ()
    needs: tuple[tuple[Capability, str], ...] = ()
    """What a deployment must be able to do, and the field of the body that asks for it."""
    wishes: tuple[tuple[Wish, str], ...] = ()
    """What a deployment may leave out, and the name of the member that asks for it."""


NO_SHAPE = Shape()
