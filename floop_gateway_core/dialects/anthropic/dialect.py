"""Anthropic's dialect as a value: routes, answers as `message` objects and events, and the vendor's errors."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from json.encoder import encode_basestring

from floop_gateway_core.dialects.anthropic.blocks import BlockStream, whole_blocks
from floop_gateway_core.dialects.anthropic.parse import parse
from floop_gateway_core.dialects.base import About, Operation
from floop_gateway_core.dialects.compatible import id_part, key_of, model_list
from floop_gateway_core.dialects.credits import credit_members
from floop_gateway_core.dialects.headers import JSON, answer_headers, error_headers
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Bill, Call, Completed, FinishReason, Piece, RequestId, Started
from floop_gateway_core.wire.messages import GatewayRequest, Headers

__all__ = ["AnthropicDialect"]

STOP_REASONS: Mapping[FinishReason, str] = {
    "end_turn": "end_turn",
    "stop_sequence": "stop_sequence",
    "max_tokens": "max_tokens",
    "tool_use": "tool_use",
    "refusal": "refusal",
    "content_filter": "refusal",
    "error": "end_turn",
}
BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
ERROR_TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


class AnthropicDialect:
    """What Anthropic's own clients speak. `lists_models` adds `/v1/models`, where no other dialect has it."""

    name = "anthropic"
    prefix = "/v1/messages"
    mark = "anthropic-version"

    def __init__(self, *, lists_models: bool = False) -> None:
        listed = {
            "/v1/models": {"GET": Operation("chat", "reply")},
            "/v1/models/{id}": {"GET": Operation("chat", "reply")},
        }
        self.routes: Mapping[str, Mapping[str, Operation]] = {
            "/v1/messages": {"POST": Operation("chat")},
            "/v1/messages/count_tokens": {"POST": Operation("chat", "count")},
            **(listed if lists_models else {}),
        }

    def key(self, request: GatewayRequest) -> str | None:
        """Return the key of `Authorization: Bearer`, else of `x-api-key`."""
        return key_of(request)

    def parse(self, operation: Operation, body: bytes) -> Call | Refusal:
        """Read the body of `/v1/messages`, or of a count of its tokens."""
        return parse(body)

    def with_headers(self, call: Call, request: GatewayRequest) -> Call:
        """Return the call with what the request's headers add: `anthropic-beta`."""
        values = ",".join(request.header("anthropic-beta"))
        betas = tuple(dict.fromkeys(one.strip() for one in values.split(",") if BETA.fullmatch(one.strip())))
        return replace(call, shape=replace(call.shape, betas=betas)) if betas else call

    def renderer(self, call: Call, request_id: RequestId, answer_id: RequestId) -> "_Renderer":
        """Return the renderer of events, or of one `message`."""
        return _Renderer(call, request_id, answer_id)

    def reply(self, operation: Operation, request: GatewayRequest, about: About) -> tuple[Headers, bytes] | Refusal:
        """Return the tokens of an input, or list models."""
        if about.input_tokens is not None:
            return JSON, json.dumps({"input_tokens": about.input_tokens}).encode()
        return model_list(request.path, about.models)

    def error(self, refusal: Refusal, request_id: RequestId) -> tuple[Headers, bytes]:
        """Return the vendor's envelope."""
        body = _envelope(refusal, request_id)
        return (*error_headers(refusal, body), ("request-id", request_id)), body


def _envelope(refusal: Refusal, request_id: RequestId) -> bytes:
    kind = ERROR_TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
    error = {"type": kind, "message": refusal.message, "code": refusal.code.value}
    value = {"type": "error", "error": error, "request_id": request_id}
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


class _Renderer:
    def __init__(self, call: Call, request_id: RequestId, answer_id: RequestId) -> None:
        self._call = call
        self._request_id = request_id
        self._head = (
            f'{{"id": "msg_{id_part(answer_id)}", "type": "message", "role": "assistant", '
            f'"model": {encode_basestring(call.model)}, "content": '
        )
        self._blocks = BlockStream()

    def headers(self, started: Started | None) -> Headers:
        return (*answer_headers(self._call, started), ("request-id", self._request_id))

    def start(self, started: Started) -> bytes:
        usage = (
            f"{{{_input(started.input_tokens, started.cached_tokens, started.cache_written_tokens)}, "
            '"output_tokens": 1}'
        )
        message = f'{self._head}[], "stop_reason": null, "stop_sequence": null, "usage": {usage}}}'
        return f'event: message_start\ndata: {{"type": "message_start", "message": {message}}}\n\n'.encode()

    def texts(self, texts: Sequence[str]) -> bytes:
        return self._blocks.texts(texts).encode()

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        return self._blocks.pieces(pieces).encode()

    def heartbeat(self) -> bytes:
        return b'event: ping\ndata: {"type": "ping"}\n\n'

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        stop = self._blocks.end()
        delta = f'{{"stop_reason": "{STOP_REASONS[finish_reason]}", "stop_sequence": null}}'
        return (
            f'{stop}event: message_delta\ndata: {{"type": "message_delta", "delta": {delta}, "usage": {_usage(bill)}}}'
            '\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\n'
        ).encode()

    def failed(self, refusal: Refusal, bill: Bill) -> bytes:
        return b"event: error\ndata: %b\n\n" % _envelope(refusal, self._request_id)

    def whole(self, items: Sequence[str | Piece], completed: Completed) -> bytes:
        return (
            f'{self._head}{whole_blocks(items)}, "stop_reason": "{STOP_REASONS[completed.finish_reason]}", '
            f'"stop_sequence": null, "usage": {_usage(completed.bill)}}}'
        ).encode()


def _usage(bill: Bill) -> str:
    usage = bill.usage
    return (
        f"{{{_input(usage.input_tokens, usage.cached_tokens, usage.cache_written_tokens)}, "
        f'"output_tokens": {usage.output_tokens}, {credit_members(bill)}}}'
    )


def _input(tokens: int, cached: int, written: int) -> str:
    """Return the counts of the input, which the vendor gives in three parts."""
    return (
        f'"input_tokens": {tokens - cached - written}, "cache_creation_input_tokens": {written}, '
        f'"cache_read_input_tokens": {cached}'
    )
