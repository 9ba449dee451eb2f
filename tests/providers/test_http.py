"""What servers and proxies do to an answer on its way: encodings, statuses, refused parts, dead connections."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import httpx
import pytest

from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.providers.base import UpstreamFault
from floop_gateway_core.providers.http import driver
from floop_gateway_core.providers.http.driver import HttpProvider, HttpSenders
from floop_gateway_core.providers.openai import OpenAICodec
from tests.providers.decoding import CALL, data

pytestmark = pytest.mark.anyio

EVENTS = data(
    {"choices": [{"delta": {"content": "Hello"}}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 4}},
    b"[DONE]",
)


def answer(body: bytes, *, status: str = "200 OK", headers: str = "Content-Type: text/event-stream\r\n") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class RawServer:
    """Sends one of `answers` for each request, as it is; None closes the connection instead."""

    answers: list[bytes | None]
    url: str = ""
    requests: list[dict[str, object]] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        self.open_connections += 1
        try:
            await self._answer(stream)
        finally:
            self.open_connections -= 1

    async def _answer(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            held = b""
            while True:
                while b"\r\n\r\n" not in held:
                    try:
                        held += await stream.receive()
                    except anyio.EndOfStream:
                        return
                head, _, held = held.partition(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-l")
                )
                while len(held) < length:
                    held += await stream.receive()
                self.requests.append(json.loads(held[:length]))
                held = held[length:]
                following = self.answers.pop(0)
                if following is None:
                    return
                await stream.send(following)


@asynccontextmanager
async def serving(*answers: bytes | None) -> AsyncIterator[tuple[RawServer, HttpProvider]]:
    server = RawServer(list(answers))
    senders = HttpSenders()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.start_soon(listener.serve, server.serve)
        with anyio.fail_after(20):
            yield server, HttpProvider(OpenAICodec(), senders, base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-key")
        await senders.aclose()
        tasks.cancel_scope.cancel()


async def texts_of(provider: HttpProvider) -> list[str]:
    texts: list[str] = []
    async with provider.open(CALL, lambda: None) as stream:
        while True:
            delta = await stream.next()
            texts += delta.texts
            if delta.finish is not None:
                return texts


async def fault_of(provider: HttpProvider) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as caught:
        await texts_of(provider)
    return caught.value


def encoded(body: bytes, encoding: str) -> bytes:
    return answer(body, headers=f"Content-Type: text/event-stream\r\nContent-Encoding: {encoding}\r\n")


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
async def test_a_body_that_is_compressed_although_nobody_asked_is_read(encoding: str) -> None:
    async with serving(encoded(gzip.compress(EVENTS), encoding)) as (_, provider):
        assert ["Hello"] == await texts_of(provider)


async def test_several_gzip_members_are_one_body() -> None:
    half = len(EVENTS) // 2
    members = gzip.compress(EVENTS[:half]) + gzip.compress(EVENTS[half:])
    async with serving(encoded(members, "gzip")) as (_, provider):
        assert ["Hello"] == await texts_of(provider)


@pytest.mark.parametrize("encoding", ["identity", "none"])
async def test_names_for_no_encoding_are_none(encoding: str) -> None:
    async with serving(encoded(EVENTS, encoding)) as (_, provider):
        assert ["Hello"] == await texts_of(provider)


async def test_an_unknown_encoding_is_a_fault_of_the_deployment() -> None:
    async with serving(encoded(EVENTS, "br")) as (_, provider):
        fault = await fault_of(provider)
        assert (FaultKind.TRANSIENT, "the content encoding was not requested") == (fault.fault, fault.reason)


async def test_a_body_that_inflates_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MAX_INFLATED_BYTES", 64 * 1024)
    async with serving(encoded(gzip.compress(b": " + b"x" * 2**20), "gzip")) as (_, provider):
        fault = await fault_of(provider)
        assert (FaultKind.TRANSIENT, True) == (fault.fault, "inflates" in fault.reason)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_the_status_counts_before_the_encoding(encoding: str) -> None:
    body = gzip.compress(b'{"error": {"message": "slow down"}}')
    refused = answer(body, status="429 Too Many", headers=f"Content-Encoding: {encoding}\r\nRetry-After: 7\r\n")
    async with serving(refused) as (_, provider):
        fault = await fault_of(provider)
        assert (FaultKind.RATE_LIMITED, 7.0) == (fault.fault, fault.retry_after_s)


@pytest.mark.parametrize("status", ["200 OK", "201 Created"])
@pytest.mark.parametrize("headers", ["", "Content-Type: text/plain\r\n", "Content-Type: application/json\r\n"])
async def test_a_stream_is_known_by_its_bytes_and_not_by_its_head(status: str, headers: str) -> None:
    async with serving(answer(EVENTS, status=status, headers=headers)) as (_, provider):
        assert ["Hello"] == await texts_of(provider)


async def test_one_json_answer_in_place_of_a_stream_is_an_answer() -> None:
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    async with serving(answer(json.dumps(whole).encode(), headers="")) as (_, provider):
        assert ["Hello"] == await texts_of(provider)


async def test_a_page_of_html_is_a_fault() -> None:
    async with serving(answer(b"<html>hi</html>", headers="Content-Type: text/html; charset=utf-8\r\n")) as (
        _,
        provider,
    ):
        assert FaultKind.TRANSIENT is (await fault_of(provider)).fault


async def test_headers_of_64_kb_are_read() -> None:
    headers = f"Content-Type: text/event-stream\r\nContent-Security-Policy: {'x' * 60_000}\r\n"
    async with serving(answer(EVENTS, headers=headers)) as (_, provider):
        assert ["Hello"] == await texts_of(provider)


# -- refusals of optional parts ----------------------------------------------------------------------------------------


def refusal(message: str, status: str = "400 Bad Request") -> bytes:
    return answer(json.dumps({"error": {"message": message}}).encode(), status=status, headers="")


@pytest.mark.parametrize(
    "message",
    ["Unrecognized request argument supplied: stream_options", "body.stream_options: Extra inputs are not permitted"],
)
@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable"])
async def test_a_server_that_refuses_stream_options_is_asked_without_from_then_on(message: str, status: str) -> None:
    async with serving(refusal(message, status), answer(EVENTS), answer(EVENTS)) as (server, provider):
        assert ["Hello"] == await texts_of(provider)
        assert ["Hello"] == await texts_of(provider)
        assert [True, False, False] == ["stream_options" in request for request in server.requests]


async def test_a_model_without_a_system_role_gets_the_system_text_in_the_users_turn() -> None:
    async with serving(refusal("System role not supported"), answer(EVENTS)) as (server, provider):
        call = provider.codec.encode  # the codec is replaced by one that joins the system text
        assert ["Hello"] == await texts_of(provider)
        assert call != provider.codec.encode
        assert 2 == len(server.requests)


async def test_another_400_is_the_requests_fault_and_is_sent_once() -> None:
    async with serving(refusal("temperature is too high")) as (server, provider):
        assert FaultKind.REJECTED is (await fault_of(provider)).fault
        assert 1 == len(server.requests)


async def test_a_server_that_refuses_for_ever_is_asked_a_bounded_number_of_times() -> None:
    said = "Unrecognized request argument supplied: stream_options"
    async with serving(*[refusal(said)] * 5) as (server, provider):
        assert FaultKind.REJECTED is (await fault_of(provider)).fault
        assert 2 == len(server.requests)


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reused_connection_that_dies_is_replaced_at_once() -> None:
    async with serving(answer(EVENTS), None, answer(EVENTS)) as (server, provider):
        assert ["Hello"] == await texts_of(provider)
        assert ["Hello"] == await texts_of(provider)
        assert (3, 2) == (len(server.requests), server.connections)


async def test_a_fresh_connection_that_dies_is_a_fault() -> None:
    async with serving(None) as (server, provider):
        assert FaultKind.TRANSIENT is (await fault_of(provider)).fault
        assert 1 == len(server.requests)


async def test_an_injected_client_follows_no_redirect_and_its_errors_hold_no_secret() -> None:
    moved = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with serving(moved) as (server, provider), httpx.AsyncClient(follow_redirects=True) as client:
        provider.clients = HttpSenders(client)
        fault = await fault_of(provider)
        assert (FaultKind.UNUSABLE, 1) == (fault.fault, len(server.requests))
        assert "sk-key" not in f"{fault} {fault.__cause__} {fault.__context__}"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_event_loop_a_call_leaves_no_connections_behind() -> None:
    async with serving(*[answer(EVENTS)] * 8) as (server, provider):

        def call() -> list[str]:
            return asyncio.run(texts_of(provider))

        for _ in range(8):
            assert ["Hello"] == await anyio.to_thread.run_sync(call)
        assert 8 == server.connections
        while server.open_connections > 1:
            await anyio.sleep(0.01)
        provider.clients._abandon_closed()
