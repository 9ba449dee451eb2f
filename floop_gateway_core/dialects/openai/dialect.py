"""OpenAI's dialect as a value: routes, answers as `chat.completion` objects and chunks, and the vendor's errors."""

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring

from floop_gateway_core.dialects.base import About, Operation
from floop_gateway_core.dialects.blocks import blocks_of, calls_of, text_of
from floop_gateway_core.dialects.compatible import created_at, id_part, key_of, model_list
from floop_gateway_core.dialects.credits import credit_members
from floop_gateway_core.dialects.headers import answer_headers, error_headers
from floop_gateway_core.dialects.openai.frames import call_of, piece_of
from floop_gateway_core.dialects.openai.parse import parse
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.types import (
    Bill,
    Call,
    Completed,
    FinishReason,
    Piece,
    RefusalStart,
    RequestId,
    Started,
    ToolPiece,
)
from floop_gateway_core.wire.messages import GatewayRequest, Headers

__all__ = ["OpenAIDialect"]

FINISH: Mapping[FinishReason, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "error": "stop",
}
QUOTA = (ErrorCode.INSUFFICIENT_CREDITS, ErrorCode.BUDGET_EXCEEDED)
DONE = "data: [DONE]\n\n"


class OpenAIDialect:
    """What OpenAI's own and compatible clients speak."""

    name = "openai"
    prefix = "/v1/"
    routes: Mapping[str, Mapping[str, Operation]] = {
        "/v1/chat/completions": {"POST": Operation("chat")},
        "/v1/embeddings": {"POST": Operation("embed", "reserved")},
        "/v1/models": {"GET": Operation("chat", "reply")},
        "/v1/models/{id}": {"GET": Operation("chat", "reply")},
    }

    def key(self, request: GatewayRequest) -> str | None:
        """Return the key of `Authorization: Bearer`, else of `x-api-key`."""
        return key_of(request)

    def parse(self, operation: Operation, body: bytes) -> Call | Refusal:
        """Read the body of `/v1/chat/completions`."""
        return parse(body)

    def renderer(self, call: Call, request_id: RequestId, answer_id: RequestId) -> "_Renderer":
        """Return the renderer of chunks, or of one `chat.completion`."""
        return _Renderer(call, answer_id)

    def reply(self, operation: Operation, request: GatewayRequest, about: About) -> tuple[Headers, bytes] | Refusal:
        """List models."""
        return model_list(request.path, about.models)

    def error(self, refusal: Refusal, request_id: RequestId) -> tuple[Headers, bytes]:
        """Return the vendor's envelope."""
        body = _envelope(refusal)
        return error_headers(refusal, body), body


def _envelope(refusal: Refusal) -> bytes:
    param = refusal.fields[0].path if refusal.fields else None
    error = {"message": refusal.message, "type": _type(refusal), "param": param, "code": refusal.code.value}
    return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


def _type(refusal: Refusal) -> str:
    if refusal.code in QUOTA:
        return "insufficient_quota"
    if refusal.status >= 500:
        return "server_error"
    named = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return named.get(refusal.status, "invalid_request_error")


class _Renderer:
    def __init__(self, call: Call, answer_id: RequestId) -> None:
        self._call = call
        kind = "chat.completion.chunk" if call.stream else "chat.completion"
        self._head = (
            f'{{"id": "chatcmpl-{id_part(answer_id)}", "object": "{kind}", "created": {created_at(answer_id)}, '
            f'"model": {encode_basestring(call.model)}, "choices": '
        )
        rest = ', "usage": null' if call.stream and call.reports_usage else ""
        self._before = f'data: {self._head}[{{"index": 0, "delta": {{"content": '
        self._after = f'}}, "finish_reason": null}}]{rest}}}\n\n'
        self._rest = rest
        self._refuses = False

    def headers(self, started: Started | None) -> Headers:
        return answer_headers(self._call, started)

    def start(self, started: Started) -> bytes:
        return self._chunk('{"role": "assistant", "content": ""}', "null").encode()

    def _chunk(self, delta: str, finish: str) -> str:
        choice = f'{{"index": 0, "delta": {delta}, "finish_reason": {finish}}}'
        return f"data: {self._head}[{choice}]{self._rest}}}\n\n"

    def texts(self, texts: Sequence[str]) -> bytes:
        before, after = self._before, self._after
        return "".join([f"{before}{encode_basestring(text)}{after}" for text in texts]).encode()

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        if any(isinstance(piece, RefusalStart) for piece in pieces):
            self._refuses = True
            self._before = self._before.replace('"content": ', '"refusal": ')
        calls = [piece_of(piece) for piece in pieces if isinstance(piece, ToolPiece)]
        return "".join([self._chunk(f'{{"tool_calls": [{call}]}}', "null") for call in calls]).encode()

    def heartbeat(self) -> bytes:
        return b": keep-alive\n\n"

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        end = self._chunk("{}", f'"{_finish(finish_reason, refuses=self._refuses)}"')
        if self._call.reports_usage:
            end += f'data: {self._head}[], "usage": {_usage(bill)}}}\n\n'
        return f"{end}{DONE}".encode()

    def failed(self, refusal: Refusal, bill: Bill) -> bytes:
        return b"data: %b\n\n%b" % (_envelope(refusal), DONE.encode())

    def whole(self, items: Sequence[str | Piece], completed: Completed) -> bytes:
        at = next((place for place, item in enumerate(items) if isinstance(item, RefusalStart)), len(items))
        text, calls = text_of(items[:at]), [call_of(call) for call in calls_of(blocks_of(items))]
        refuses = at < len(items)
        content = encode_basestring(text) if text or not (calls or refuses) else "null"
        refusal = encode_basestring(text_of(items[at:])) if refuses else "null"
        called = f', "tool_calls": [{", ".join(calls)}]' if calls else ""
        message = f'{{"role": "assistant", "content": {content}, "refusal": {refusal}{called}}}'
        choice = (
            f'{{"index": 0, "message": {message}, "logprobs": null, '
            f'"finish_reason": "{_finish(completed.finish_reason, refuses=refuses)}"}}'
        )
        return f'{self._head}[{choice}], "usage": {_usage(completed.bill)}}}'.encode()


def _finish(reason: FinishReason, *, refuses: bool) -> str:
    """Return why the answer ended: a refusal that has its text in `refusal` stops like any answer."""
    return "stop" if refuses and reason == "refusal" else FINISH[reason]


def _usage(bill: Bill) -> str:
    usage = bill.usage
    return (
        f'{{"prompt_tokens": {usage.input_tokens}, "completion_tokens": {usage.output_tokens}, '
        f'"total_tokens": {usage.total_tokens}, '
        f'"prompt_tokens_details": {{"cached_tokens": {usage.cached_tokens}}}, '
        f'"completion_tokens_details": {{"reasoning_tokens": {usage.reasoning_tokens}}}, {credit_members(bill)}}}'
    )
