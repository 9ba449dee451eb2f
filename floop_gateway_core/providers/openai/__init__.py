"""OpenAI's Chat Completions, and the many servers that speak it."""

from floop_gateway_core.providers.openai.codec import OpenAICodec

__all__ = ["OpenAICodec"]
