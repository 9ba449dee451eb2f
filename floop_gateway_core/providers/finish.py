"""Finish reasons: the values of all vendors in one table, compared case-insensitively and up to a colon."""

from collections.abc import Mapping

from floop_gateway_core.types import FinishReason

__all__ = ["finish_reason", "is_failure"]

_MAX_TOKENS = (
    "length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit", "tokens_limit",
    "model_context_window_exceeded", "context_length_exceeded",
)  # fmt: skip
_CONTENT_FILTER = (
    "content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii", "sensitive",
    "image_safety", "image_prohibited_content", "image_recitation", "model_armor", "guardrail_intervened", "moderation",
    "flagged", "sexual", "risk_control",
)  # fmt: skip
_WORDS: Mapping[str, FinishReason] = {
    **dict.fromkeys(_MAX_TOKENS, "max_tokens"),
    **dict.fromkeys(_CONTENT_FILTER, "content_filter"),
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
    "stop": "end_turn",
    "end_turn": "end_turn",
    "eos": "end_turn",
    "eos_token": "end_turn",
}
_FAILED = frozenset(
    {
        "error", "abort", "aborted", "failed", "failure", "network_error", "internal_error", "server_error", "timeout",
        "insufficient_system_resource", "overloaded",
    }
)  # fmt: skip
"""Finish reasons of answers that failed: a broken reply, not a finish."""


def _word(reason: str) -> str:
    return reason.partition(":")[0].strip().lower()


def is_failure(reason: str) -> bool:
    """Return whether a finish reason says that the answer failed."""
    return _word(reason) in _FAILED


def finish_reason(reason: str, unknown: FinishReason = "end_turn") -> FinishReason:
    """Return our word for a vendor's, or `unknown`.

    >>> finish_reason("content_filter: RECITATION"), finish_reason("MAX_TOKENS"), finish_reason("tool_calls")
    ('content_filter', 'max_tokens', 'tool_use')
    """
    return _WORDS.get(_word(reason), unknown)
