"""Anthropic's Messages API, and the servers that speak it."""

from floop_gateway_core.providers.anthropic.codec import AnthropicCodec

__all__ = ["AnthropicCodec"]
