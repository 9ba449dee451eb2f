"""The three vendors' wire formats from the other side: scripted answers as the bytes of events. Pure.

Every frame says what it is, so that an answer can be broken or held at the same moments whichever vendor speaks.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, TypeAlias

from floop_gateway_core.testing.answers import Kind, Reply, Vendor
from floop_gateway_core.types import FinishReason, Usage

__all__ = ["Frame", "error_body", "error_frame", "frames", "kind_of", "vendor_of"]

FrameKind: TypeAlias = Literal["preamble", "text", "end"]

_COMMENT = b": ping\n\n"

_OPENAI_FINISH: dict[FinishReason, str] = {"max_tokens": "length", "content_filter": "content_filter"}
_ANTHROPIC_FINISH: dict[FinishReason, str] = {
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "content_filter": "refusal",
}
_GEMINI_FINISH: dict[FinishReason, str] = {
    "max_tokens": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "PROHIBITED_CONTENT",
    "error": "OTHER",
}

# kind: OpenAI's type and code, Anthropic's type, Google's code and status, and a sentence as they write it.
_ERRORS: dict[Kind, tuple[str, str | None, str, int, str, str]] = {
    "invalid": ("invalid_request_error", None, "invalid_request_error", 400, "INVALID_ARGUMENT", "Invalid request."),
    "context_length": (
        "invalid_request_error",
        "context_length_exceeded",
        "invalid_request_error",
        400,
        "INVALID_ARGUMENT",
        "prompt is too long: the input token count exceeds the maximum number of tokens allowed (4096).",
    ),
    "auth": (
        "invalid_request_error",
        "invalid_api_key",
        "authentication_error",
        401,
        "UNAUTHENTICATED",
        "Incorrect API key provided.",
    ),
    "rate_limit": (
        "requests",
        "rate_limit_exceeded",
        "rate_limit_error",
        429,
        "RESOURCE_EXHAUSTED",
        "Rate limit reached for requests per minute.",
    ),
    "quota": (
        "insufficient_quota",
        "insufficient_quota",
        "billing_error",
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "server": ("server_error", None, "api_error", 500, "INTERNAL", "The server had an error."),
    "overloaded": ("server_error", "overloaded", "overloaded_error", 503, "UNAVAILABLE", "Overloaded."),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes of one event, and what kind of event it is."""

    kind: FrameKind
    data: bytes


def vendor_of(path: str) -> Vendor:
    """Return the vendor whose path it is, or OpenAI for an unknown path."""
    if path.endswith("/messages"):
        return "anthropic"
    return "gemini" if "enerateContent" in path else "openai"


def kind_of(status: int) -> Kind:
    """Return the kind of an error by its status, for scripts that do not set one."""
    match status:
        case 401 | 403:
            return "auth"
        case 429:
            return "rate_limit"
        case 503 | 529:
            return "overloaded"
        case _:
            return "invalid" if 400 <= status < 500 else "server"


def frames(vendor: Vendor, reply: Reply, model: str) -> Iterator[Frame]:
    """Yield the events of an answer, each complete; forever if the reply is `endless`."""
    match vendor:
        case "openai":
            yield from _openai(reply, model)
        case "anthropic":
            yield from _anthropic(reply, model)
        case "gemini":
            yield from _gemini(reply, model)


def error_body(vendor: Vendor, kind: Kind, *, quoting: str = "", status: int | None = None) -> bytes:
    """Return an error in the vendor's shape; `quoting` becomes part of its message."""
    type_, code, anthropic_type, number, name, words = _ERRORS[kind]
    message = f"{words} {quoting}".strip()
    match vendor:
        case "openai":
            return _json({"error": {"message": message, "type": type_, "param": None, "code": code}})
        case "anthropic":
            return _json({"type": "error", "error": {"type": anthropic_type, "message": message}})
        case "gemini":
            error: dict[str, object] = {"code": status or number, "message": message, "status": name}
            if number == 429:
                error["details"] = _google_details(daily=kind == "quota")
            return _json({"error": error})


def error_frame(vendor: Vendor, kind: Kind) -> Frame:
    """Return the event by which the vendor reports a failure in mid-stream."""
    body = error_body(vendor, kind)
    return Frame("end", (b"event: error\n" if vendor == "anthropic" else b"") + b"data: " + body + b"\n\n")


def _google_details(*, daily: bool) -> list[dict[str, object]]:
    window = "PerDay" if daily else "PerMinute"
    quota = f"GenerateRequests{window}PerProjectPerModel-FreeTier"
    return [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"},
    ]


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair travels as an escape
        return json.dumps(value, separators=(",", ":")).encode()


def _data(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _texts(reply: Reply) -> Iterator[str]:
    return cycle(reply.texts) if reply.endless else iter(reply.texts)


def _openai(reply: Reply, model: str) -> Iterator[Frame]:
    def chunk(delta: dict[str, object] | None, finish: str | None = None, usage: object = None) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        head = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": model}
        return _data({**head, "choices": choices, "usage": usage, "obfuscation": "x"})

    yield Frame("preamble", chunk({"role": "assistant", "content": "", "refusal": None}))
    for _ in range(reply.pings):
        yield Frame("preamble", _COMMENT)
    for thought in reply.thinking:
        yield Frame("preamble", chunk({"reasoning_content": thought}))
    name = "refusal" if reply.finish == "refusal" else "content"
    for text in _texts(reply):
        yield Frame("text", chunk({name: text}))
    for index, call in enumerate(reply.calls):
        head: dict[str, object] = {"index": index, "id": call.id, "type": "function"}
        if call.signature is not None:
            head["extra_content"] = {"google": {"thought_signature": call.signature}}
        yield Frame("text", chunk({"tool_calls": [{**head, "function": {"name": call.name, "arguments": ""}}]}))
        for piece in call.arguments:
            yield Frame("text", chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    finish = "tool_calls" if reply.calls else _OPENAI_FINISH.get(reply.finish, "stop")
    yield Frame("end", chunk({}, finish))
    if reply.usage is not None:
        yield Frame("end", chunk(None, usage=_openai_usage(reply.usage)))
    yield Frame("end", b"data: [DONE]\n\n")


def _openai_usage(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _anthropic(reply: Reply, model: str) -> Iterator[Frame]:
    def event(kind: str, **members: object) -> bytes:
        return f"event: {kind}\n".encode() + _data({"type": kind, **members})

    def block(
        index: int, kind: str, texts: Iterator[str], frame: FrameKind, signature: str | None = None
    ) -> Iterator[Frame]:
        yield Frame("preamble", event("content_block_start", index=index, content_block={"type": kind, kind: ""}))
        for text in texts:
            delta = {"type": f"{kind}_delta", kind: text}
            yield Frame(frame, event("content_block_delta", index=index, delta=delta))
        if signature is not None:
            delta = {"type": "signature_delta", "signature": signature}
            yield Frame(frame, event("content_block_delta", index=index, delta=delta))
        yield Frame("end" if frame == "text" else frame, event("content_block_stop", index=index))

    usage = reply.usage
    fresh, cached = {}, {}
    if usage is not None:
        read, written = usage.cached_tokens, usage.cache_written_tokens
        fresh = {"input_tokens": usage.input_tokens - read - written}
        cached = {"cache_creation_input_tokens": written, "cache_read_input_tokens": read}
    start = {"usage": {**fresh, **cached, "output_tokens": 1}} if usage is not None else {}
    message = {"id": "msg_scripted", "type": "message", "role": "assistant", "model": model, "content": []}
    yield Frame("preamble", event("message_start", message={**message, "stop_reason": None, **start}))
    for _ in range(reply.pings):
        yield Frame("preamble", event("ping"))
    if reply.thinking:
        signature = reply.calls[0].signature if reply.calls else None
        yield from block(0, "thinking", iter(reply.thinking), "preamble", signature)
    first = 1 if reply.thinking else 0
    yield from block(first, "text", _texts(reply), "text")
    for index, call in enumerate(reply.calls, first + 1):
        tool: dict[str, object] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield Frame("text", event("content_block_start", index=index, content_block=tool))
        for piece in call.arguments:
            given = {"type": "input_json_delta", "partial_json": piece}
            yield Frame("text", event("content_block_delta", index=index, delta=given))
        yield Frame("text", event("content_block_stop", index=index))
    reason = "tool_use" if reply.calls else _ANTHROPIC_FINISH.get(reply.finish, "end_turn")
    stop = {"stop_reason": reason, "stop_sequence": None}
    counted = {"usage": {"output_tokens": usage.output_tokens}} if usage is not None else {}
    yield Frame("end", event("message_delta", delta=stop, **counted))
    yield Frame("end", event("message_stop"))


def _gemini(reply: Reply, model: str) -> Iterator[Frame]:
    def chunk(text: str | None, share: float, *, thought: bool = False, finish: str | None = None) -> bytes:
        part: dict[str, object] = {"text": text or ""} | ({"thought": True} if thought else {})
        content = {"parts": [part], "role": "model"}
        candidate = {"content": content, "index": 0} | ({"finishReason": finish} if finish else {})
        usage = (
            {} if reply.usage is None else {"usageMetadata": _gemini_usage(reply.usage, share, thoughts=bool(share))}
        )
        return _data({"candidates": [candidate], **usage, "modelVersion": model})

    for _ in range(reply.pings):
        yield Frame("preamble", _COMMENT)
    for thought in reply.thinking:
        yield Frame("preamble", chunk(thought, 0.0, thought=True))
    for number, text in enumerate(_texts(reply), 1):
        yield Frame("text", chunk(text, min(1.0, number / max(1, len(reply.texts)))))
    for call in reply.calls:
        made: dict[str, object] = {"functionCall": {"name": call.name, "args": json.loads("".join(call.arguments))}}
        if call.signature is not None:
            made["thoughtSignature"] = call.signature
        yield Frame("text", _data({"candidates": [{"content": {"parts": [made], "role": "model"}, "index": 0}]}))
    yield Frame("end", chunk(None, 1.0, finish=_GEMINI_FINISH.get(reply.finish, "STOP")))


def _gemini_usage(usage: Usage, share: float, *, thoughts: bool) -> dict[str, object]:
    """Return the counts so far, without those that are 0, as protobuf does."""
    written = int((usage.output_tokens - usage.reasoning_tokens) * share)
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": written,
        "thoughtsTokenCount": usage.reasoning_tokens if thoughts else 0,
        "cachedContentTokenCount": usage.cached_tokens,
        "totalTokenCount": usage.total_tokens,
    }
    return {name: value for name, value in counts.items() if value}
