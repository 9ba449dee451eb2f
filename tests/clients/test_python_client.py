"""The Python client against the real gateway, and against servers that are down, slow, or cut a stream at any byte."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import Any

import pytest
from floop_gateway_client import (
    AsyncFloopAI,
    BudgetExceededError,
    ConnectionFailed,
    FloopAI,
    FloopError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotImplementedByGateway,
    ProviderError,
    RateLimitedError,
    StreamCut,
    UnauthorizedError,
    UnavailableError,
)
from starlette.applications import Starlette
from starlette.routing import Mount

from floop_gateway_asgi import FloopGateway
from floop_gateway_core.types import Microcredits
from tests.serving import MOUNT, gateway_of, records, served

HELLO: Any = [{"role": "user", "content": "one two three"}]
KEY = "flp_sk_" + "x" * 33


@contextmanager
def site(**settings: Any) -> Iterator[tuple[str, str]]:
    gateway, key = gateway_of(**settings)
    with served(Starlette(routes=[Mount(MOUNT, FloopGateway(gateway))])) as url:
        yield url + MOUNT, key


def test_an_answer_and_a_stream_say_the_same() -> None:
    with site() as (url, key), FloopAI(key, url) as ai:
        answer = ai.chat(HELLO)
        assert answer.model == "auto"
        assert answer.finish_reason == "end_turn"
        assert answer.request_id is not None
        assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
        assert isinstance(answer.usage.credits_used, Decimal)
        with ai.stream(HELLO, model="fast") as stream:
            assert "".join(stream) == answer.content
        assert stream.usage is not None
        assert stream.usage.output_tokens == answer.usage.output_tokens
        assert (stream.finish_reason, stream.request_id is None) == ("end_turn", False)
        assert ai.generate("one two three", max_tokens=1).finish_reason == "max_tokens"
        with ai.stream("one two three") as stream:
            assert "".join(stream) == answer.content


def test_the_asynchronous_client_does_the_same() -> None:
    async def ask(url: str, key: str) -> tuple[str, str]:
        async with AsyncFloopAI(key, url) as ai:
            answer = await ai.generate("one two three")
            async with ai.stream("one two three") as stream:
                texts = [text async for text in stream]
            assert stream.usage is not None
            with pytest.raises(InvalidRequestError):
                await ai.chat([])
        return answer.content, "".join(texts)

    with site() as (url, key):
        whole, streamed = asyncio.run(ask(url, key))
    assert whole == streamed


def test_the_key_and_the_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="FLOOPFLOOP_AI_KEY"):
        FloopAI()
    with site() as (url, key):
        monkeypatch.setenv("FLOOPFLOOP_AI_KEY", key)
        monkeypatch.setenv("FLOOPFLOOP_AI_URL", url)
        with FloopAI() as ai:
            assert ai.generate("hi").content
            assert key not in repr(ai)


@pytest.mark.parametrize(
    ("ask", "error", "code", "status"),
    [
        (lambda ai: ai.chat([]), InvalidRequestError, "VALIDATION_ERROR", 400),
        (lambda ai: ai.generate("x", model="huge"), InvalidRequestError, "INVALID_MODEL", 400),
        (lambda ai: ai.generate("word " * 200_000), InvalidRequestError, "VALIDATION_ERROR", 400),
        (lambda ai: ai.generate("word " * 90_000), InvalidRequestError, "INPUT_TOO_LARGE", 400),
        (lambda ai: ai.embed("x"), NotImplementedByGateway, "NOT_IMPLEMENTED", 501),
    ],
)
def test_every_kind_of_refusal_has_its_class(ask: Any, error: type[FloopError], code: str, status: int) -> None:
    with site(plan={"input_tokens": 1000}) as (url, key), FloopAI(key, url) as ai, pytest.raises(error) as raised:
        ask(ai)
    assert (raised.value.code, raised.value.status) == (code, status)
    assert raised.value.request_id is not None
    assert raised.value.request_id in str(raised.value)


def test_keys_credits_rates_and_budgets() -> None:
    with site() as (url, _), FloopAI(KEY, url) as ai, pytest.raises(UnauthorizedError) as raised:
        ai.generate("x")
    assert KEY not in str(raised.value) + repr(raised.value)
    with site(credits=Microcredits(0)) as (url, key), FloopAI(key, url) as ai, pytest.raises(InsufficientCreditsError):
        ai.generate("x")
    with site(plan={"daily_tokens": 1}) as (url, key), FloopAI(key, url) as ai, pytest.raises(BudgetExceededError):
        ai.generate("x")
    with site(plan={"requests_per_minute": 1}) as (url, key), FloopAI(key, url, max_retries=0) as ai:
        ai.generate("x")
        with pytest.raises(RateLimitedError) as limited:
            ai.generate("x")
        assert limited.value.retry_after_ms is not None
        assert 0 < limited.value.retry_after_ms <= 60_000


# -- a server of a few lines -----------------------------------------------------------------------------------------


class Scripted:
    """Answers each connection with the next of some bytes, and keeps what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.asked: list[bytes] = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with closing(connection):
                data = b""
                while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                    data += connection.recv(65536)
                self.asked.append(data)
                connection.sendall(answer)


def _length(data: bytes) -> int:
    line = next(one for one in data.split(b"\r\n") if one.lower().startswith(b"content-length:"))
    return int(line.split(b":")[1])


def reply(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(code: str) -> bytes:
    return b'{"error": {"code": "%s", "message": "said"}}' % code.encode()


GOOD = reply(
    200,
    b'{"content": "hi", "model": "auto", "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,'
    b' "credits_used": 0.000001, "credits_remaining": 4837.79}, "finishReason": "end_turn"}',
)


def keys_of(server: Scripted) -> set[bytes]:
    return {
        line for asked in server.asked for line in asked.split(b"\r\n") if line.lower().startswith(b"idempotency-key")
    }


@pytest.mark.parametrize("status", [429, 502, 503])
def test_what_may_help_is_tried_again_with_the_same_idempotency_key(status: int) -> None:
    with (
        Scripted(reply(status, error("RATE_LIMITED"), "Retry-After: 0"), GOOD) as server,
        FloopAI(KEY, server.url) as ai,
    ):
        answer = ai.generate("x")
    assert (answer.content, answer.usage.credits_used) == ("hi", Decimal("0.000001"))
    assert len(server.asked) == 2
    assert len(keys_of(server)) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(502, error("PROVIDER_ERROR"), "x-should-retry: false"), ProviderError),
        (reply(503, error("SERVICE_UNAVAILABLE"), "Retry-After: 3600"), UnavailableError),
        (reply(402, error("INSUFFICIENT_CREDITS")), InsufficientCreditsError),
        (reply(500, b"<html>proxy</html>"), FloopError),
    ],
)
def test_what_cannot_help_is_not_tried_again(answer: bytes, kind: type[FloopError]) -> None:
    with Scripted(answer, GOOD) as server, FloopAI(KEY, server.url) as ai, pytest.raises(kind):
        ai.generate("x")
    assert len(server.asked) == 1


def test_tries_come_to_an_end() -> None:
    again = reply(503, error("SERVICE_UNAVAILABLE"), "Retry-After: 0")
    with (
        Scripted(again, again, again, again) as server,
        FloopAI(KEY, server.url, max_retries=2) as ai,
        pytest.raises(UnavailableError),
    ):
        ai.generate("x")
    assert len(server.asked) == 3


def test_a_server_that_is_down_is_told_after_the_tries() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with FloopAI(KEY, f"http://127.0.0.1:{port}", max_retries=1) as ai, pytest.raises(ConnectionFailed) as raised:
        ai.generate("x")
    assert raised.value.status == 0
    assert KEY not in str(raised.value)


FRAMES = (
    'data: {"text": "hé"}\n\n: keep-alive\n\ndata: {"text": "llo"}\n\ndata: {"usage": {"input_tokens": 1, '
    '"output_tokens": 2, "total_tokens": 3, "credits_used": 0.1, "credits_remaining": null}, "finishReason": "end_turn"}'
    "\n\ndata: [DONE]\n\n"
).encode()


def test_a_stream_that_is_cut_at_any_byte_raises_and_gives_what_came() -> None:
    cuts = range(0, len(FRAMES), 3)
    head = reply(200, FRAMES).replace(b"Content-Length", b"X-Length").removesuffix(FRAMES)
    with Scripted(*(head + FRAMES[:cut] for cut in cuts)) as server, FloopAI(KEY, server.url) as ai:
        for cut in cuts:
            texts: list[str] = []
            with ai.stream("x") as stream:
                if b"[DONE]\n\n" in FRAMES[:cut]:
                    texts += stream
                    continue
                with pytest.raises(StreamCut):
                    for text in stream:
                        texts.append(text)
            assert "héllo".startswith("".join(texts))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_frames_are_the_same_however_they_are_cut(size: int) -> None:
    from floop_gateway_client.wire import Frames

    frames = Frames("req_1")
    texts = [text for at in range(0, len(FRAMES), size) for text in frames.feed(FRAMES[at : at + size])]
    frames.end()
    assert "".join(texts) == "héllo"
    assert frames.usage is not None
    assert (frames.usage.credits_used, frames.usage.credits_remaining) == (Decimal("0.1"), None)


def test_an_error_in_the_middle_of_a_stream_is_raised() -> None:
    body = b'data: {"text": "a"}\n\ndata: {"error": "it failed", "code": "PROVIDER_ERROR", "finishReason": "error"}\n\n'
    with (
        Scripted(reply(200, body + b"data: [DONE]\n\n", "X-Request-Id: req_1")) as server,
        FloopAI(KEY, server.url) as ai,
        ai.stream("x") as stream,
    ):
        texts = iter(stream)
        assert next(texts) == "a"
        with pytest.raises(ProviderError, match="it failed") as raised:
            next(texts)
    assert raised.value.request_id == "req_1"


def test_a_stream_must_be_entered() -> None:
    with FloopAI(KEY, "http://127.0.0.1:9") as ai, pytest.raises(RuntimeError, match=r"with ai\.stream"):
        iter(ai.stream("x"))


def message_of(connection: socket.socket) -> bytes:
    """Read one HTTP message, whose head says how long it is."""
    with connection.makefile("rb") as reader:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.readline()
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        return head + reader.read(length)


@contextmanager
def losing_the_first_answer(url: str) -> Iterator[str]:
    """A proxy before a server that passes every request on, and drops the first answer."""
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            for number in range(2):
                client, _ = listener.accept()
                with client, socket.create_connection((host, int(port))) as server:
                    server.sendall(message_of(client))
                    answer = message_of(server)
                    if number:
                        client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{MOUNT}"


def test_an_answer_that_was_lost_on_its_way_is_asked_for_again_and_charged_once() -> None:
    gateway, key = gateway_of(
        deployments={"echo": {"provider": "echo", "microcredits_per_token": 1}},
        routes={alias: ["echo"] for alias in ("fast", "smart", "reason")},
    )
    with (
        served(Starlette(routes=[Mount(MOUNT, FloopGateway(gateway))])) as url,
        losing_the_first_answer(url) as proxy,
        FloopAI(key, proxy) as ai,
    ):
        answer = ai.generate("one two three")
        assert answer.usage.total_tokens > 0
        assert [record.ending for record in records(gateway)] == ["complete", "replayed"]
