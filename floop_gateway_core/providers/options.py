"""How a deployment's provider is to be called: keys of `gateway.toml` that the codecs read."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Options", "allowance_of"]

THINKING_ALLOWANCES: Mapping[str, int] = {
    "minimal": 2_048,
    "low": 4_096,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 65_536,
}
"""Thinking tokens by effort, unless the deployment sets its own: the most that models use in practice, rounded up."""
DEFAULT_THINKING_ALLOWANCE = 16_384
"""For an effort that is not in the table."""


def allowance_of(effort: str | None) -> int:
    """Return the tokens to set aside for an effort."""
    return 0 if effort in (None, "none") else THINKING_ALLOWANCES.get(effort, DEFAULT_THINKING_ALLOWANCE)


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

    def effort_for(self, wanted: str | None) -> str | None:
        """Return the effort of a call: the client's, if given and if this deployment sets an effort at all."""
        return self.thinking if self.thinking is None or wanted is None else wanted

    def allowance_for(self, wanted: str | None) -> int:
        """Return the tokens that a call may spend on thinking on top of its `max_tokens`; `wanted` is its own effort."""
        effort = self.effort_for(wanted)
        return self.thinking_allowance if effort in (None, self.thinking) else allowance_of(effort)

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
