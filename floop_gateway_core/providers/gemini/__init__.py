"""Google's Gemini."""

from floop_gateway_core.providers.gemini.codec import GeminiCodec

__all__ = ["GeminiCodec"]
