"""Anthropic's dialect: `POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from floop_gateway_core.dialects.anthropic.dialect import AnthropicDialect

__all__ = ["AnthropicDialect"]
