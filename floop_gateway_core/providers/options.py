"""How a deployment's provider is to be called: keys of `gateway.toml` that the codecs read."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from floop_gateway_core.providers.thinking import Thinking, allowance_of

__all__ = ["Options"]


class Options(BaseModel):
    """Options of one deployment that only its provider reads. Each codec takes those that its vendor knows.

    `options` is a table for providers that are not built in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    send_temperature: bool = True
    extra_body: dict[str, Any] = Field(default_factory=dict)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    stream_usage: bool = True
    api_key_header: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$")] | None = None
    system_role: Literal["system", "developer", "user"] = "system"
    merge_turns: bool = False
    thinking_tokens: Annotated[int, Field(ge=1)] | None = None
    thinking: str | None = None
    thinking_allowance_tokens: Annotated[int, Field(ge=0)] | None = None
    tools: bool | None = None
    images: bool | None = None
    json_schema: bool | None = None
    words_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def own_thinking(self) -> Thinking:
        """Return how much the model thinks unless a call says otherwise."""
        return Thinking(self.thinking, self.thinking_tokens, self.thinking_allowance)

    @property
    def thinking_allowance(self) -> int:
        """Return the tokens that may be spent on thinking on top of a call's `max_tokens`."""
        if self.thinking_tokens is not None:
            return self.thinking_tokens
        if self.thinking is None:
            return 0
        if self.thinking_allowance_tokens is not None:
            return self.thinking_allowance_tokens
        return allowance_of(self.thinking)
