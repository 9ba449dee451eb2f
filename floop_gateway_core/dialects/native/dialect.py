"""The gateway's own dialect as a value: its routes, its key header, its renderer."""

from collections.abc import Mapping, Sequence

from floop_gateway_core.dialects.base import About, Operation
from floop_gateway_core.dialects.blocks import text_of
from floop_gateway_core.dialects.headers import answer_headers, error_headers
from floop_gateway_core.dialects.native.errors import envelope
from floop_gateway_core.dialects.native.frames import StreamFrames, render_json
from floop_gateway_core.dialects.native.parse import parse
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Bill, Call, Completed, FinishReason, Piece, RequestId, Started
from floop_gateway_core.wire import keys
from floop_gateway_core.wire.messages import GatewayRequest, Headers

__all__ = ["NATIVE", "NativeDialect"]


class NativeDialect:
    """`/chat`, `/generate` and the reserved `/embed`."""

    name = "native"
    routes: Mapping[str, Mapping[str, Operation]] = {
        "/chat": {"POST": Operation("chat")},
        "/generate": {"POST": Operation("generate")},
        "/embed": {"POST": Operation("embed", "reserved")},
    }

    def key(self, request: GatewayRequest) -> str | None:
        """Return the key of `Authorization: Bearer`."""
        return keys.from_header(request.header("authorization"))

    def parse(self, operation: Operation, body: bytes) -> Call | Refusal:
        """Read the body of `/chat` or `/generate`."""
        return parse(operation.endpoint, body)

    def renderer(self, call: Call, request_id: RequestId, answer_id: RequestId) -> "_Renderer":
        """Return the renderer of a stream of frames, or of one JSON object."""
        return _Renderer(call)

    def reply(self, operation: Operation, request: GatewayRequest, about: About) -> tuple[Headers, bytes] | Refusal:
        """Every operation of this dialect needs a call."""
        raise NotImplementedError(operation.endpoint)

    def error(self, refusal: Refusal, request_id: RequestId) -> tuple[Headers, bytes]:
        """Return the contract's envelope."""
        body = envelope(refusal)
        return error_headers(refusal, body), body


class _Renderer:
    def __init__(self, call: Call) -> None:
        self._call = call
        self._frames = StreamFrames()

    def headers(self, started: Started | None) -> Headers:
        return answer_headers(self._call, started)

    def start(self, started: Started) -> bytes:
        return b""

    def texts(self, texts: Sequence[str]) -> bytes:
        return self._frames.texts(texts)

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        return b""  # no call of this dialect asks for tools

    def heartbeat(self) -> bytes:
        return self._frames.heartbeat()

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        return self._frames.completed(bill, finish_reason)

    def failed(self, refusal: Refusal, bill: Bill) -> bytes:
        return self._frames.failed(refusal.code, refusal.message, bill)

    def whole(self, items: Sequence[str | Piece], completed: Completed) -> bytes:
        return render_json(text_of(items), self._call.alias, completed.bill, completed.finish_reason)


NATIVE = NativeDialect()
