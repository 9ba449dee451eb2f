"""A second dialect and a store that answers from one function each take one new file, and no edit of the engine."""

import json
from collections.abc import Mapping, Sequence

import pytest

from floop_gateway_core import Gateway, GatewayRequest, Refusal, Settings
from floop_gateway_core.dialects.base import Operation
from floop_gateway_core.types import Bill, Call, Completed, FinishReason, Message, RequestId, Started
from floop_gateway_core.wire.messages import Headers

pytestmark = pytest.mark.anyio


class Lines:
    """A dialect of plain text: the prompt is the body, the key is a header of its own, a stream is one line a text."""

    name = "lines"
    routes: Mapping[str, Mapping[str, Operation]] = {
        "/lines": {"POST": Operation("generate"), "GET": Operation("generate", "reply")}
    }

    def key(self, request: GatewayRequest) -> str | None:
        return next(iter(request.header("x-key")), None)

    def parse(self, operation: Operation, body: bytes) -> Call | Refusal:
        return Call(
            operation.endpoint, (Message.of("user", body.decode()),), alias="fast", stream=body.startswith(b"s")
        )

    def renderer(self, call: Call) -> "_Renderer":
        return _Renderer()

    def reply(self, operation: Operation, request: GatewayRequest) -> bytes | Refusal:
        return json.dumps(request.query).encode()

    def error(self, refusal: Refusal, request_id: RequestId) -> tuple[Headers, bytes]:
        return (("Content-Type", "text/plain"),), f"{refusal.code}\n".encode()


class _Renderer:
    def headers(self, started: Started | None) -> Headers:
        return (("Content-Type", "text/plain"),)

    def start(self, started: Started) -> bytes:
        return f"# {started.deployment}\n".encode()

    def texts(self, texts: Sequence[str]) -> bytes:
        return "".join(f"{text}\n" for text in texts).encode()

    def heartbeat(self) -> bytes:
        return b"\n"

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        return f"= {bill.usage.output_tokens}\n".encode()

    def failed(self, refusal: Refusal, bill: Bill) -> bytes:
        return f"! {refusal.code}\n".encode()

    def whole(self, texts: Sequence[str], completed: Completed) -> bytes:
        return "".join(texts).encode()


async def ask(gateway: Gateway, key: str, body: bytes, method: str = "POST", query: str = "") -> tuple[int, bytes]:
    request = GatewayRequest(method, "/lines", [("X-Key", key)], body, query)
    async with gateway.open(request) as reply:
        if isinstance(reply.body, bytes):
            return reply.status, reply.body
        return reply.status, b"".join([chunk async for chunk in reply.body])


async def test_a_second_dialect_is_one_value() -> None:
    async with Gateway(Settings(store="memory://"), dialects=[Lines()]) as gateway:
        new = await gateway.admin.create_project("shop", credits="100")
        assert (200, b"one two") == await ask(gateway, new.key, b"one two")
        assert (200, b"# echo\nso \nit\n= 2\n") == await ask(gateway, new.key, b"so it")
        assert (200, b'"a=1"') == await ask(gateway, new.key, b"", "GET", "a=1")
        assert (405, b"METHOD_NOT_ALLOWED\n") == await ask(gateway, new.key, b"", "PUT")
        assert (401, b"UNAUTHORIZED\n") == await ask(gateway, "flp_sk_" + "x" * 33, b"one")
        # What needs no call leaves no hold behind.
        assert 0 == (await gateway.admin.status("shop")).account.held


async def test_two_dialects_cannot_claim_one_path() -> None:
    with pytest.raises(ValueError, match="two dialects claim /lines"):
        Gateway(Settings(store="memory://"), dialects=[Lines(), Lines()])
