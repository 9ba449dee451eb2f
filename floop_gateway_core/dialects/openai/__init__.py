"""OpenAI's dialect: `POST /v1/chat/completions`, `GET /v1/models`, and `POST /v1/embeddings`, which is reserved."""

from floop_gateway_core.dialects.openai.dialect import OpenAIDialect

__all__ = ["OpenAIDialect"]
