"""The Python client against servers that are not the gateway, or that break the protocol."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from floop_gateway_client import AsyncFloopAI, FloopAI, FloopError, StreamCut

KEY = "flp_sk_" + "x" * 33


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Serve these bytes to every connection, and close it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def whole(body: bytes, status: str = "200 OK", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status.encode() + b"\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), more, body)


def streamed(frames: bytes, ends: bool = True) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n" % (len(frames), frames) + (b"0\r\n\r\n" if ends else b"")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"content": "x"}', b'{"usage": 1e999999999}'])
def test_an_answer_of_another_server_is_an_error(body: bytes) -> None:
    with answering(whole(body)) as url, FloopAI(KEY, url, max_retries=0) as ai:
        with pytest.raises(FloopError, match="not from the gateway") as caught:
            ai.generate("one")
        assert (caught.value.code, caught.value.status) == ("UNKNOWN", 200)


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"{}", b'{"error": []}', b'{"error": {"code": 7}}'])
def test_an_error_of_a_proxy_in_between_keeps_its_status(body: bytes) -> None:
    with answering(whole(body, "502 Bad Gateway")) as url, FloopAI(KEY, url, max_retries=1) as ai:
        with pytest.raises(FloopError) as caught:
            ai.generate("one")
        assert caught.value.status == 502


@pytest.mark.parametrize("after", [b"retry-after: 100000\r\n", b"x-should-retry: false\r\n"])
def test_a_wait_that_is_too_long_and_a_no_are_not_retried(after: bytes) -> None:
    with answering(whole(b"{}", "503 Service Unavailable", after)) as url, FloopAI(KEY, url) as ai:
        with pytest.raises(FloopError) as caught:
            ai.generate("one")
        assert caught.value.status == 503


@pytest.mark.parametrize(
    ("frames", "ends"),
    [
        (b'data: {"text": "a"}\n\n', True),
        (b'data: {"text": "a"}\n\n', False),
        (b'data: {"text": \n\ndata: [DONE]\n\n', True),
        (b"data: 7\n\n", True),
        (b": a comment\n\n", True),
        (b"", False),
    ],
)
def test_a_stream_that_does_not_end_as_it_must_is_cut(frames: bytes, ends: bool) -> None:
    async def read(url: str) -> None:
        async with AsyncFloopAI(KEY, url, max_retries=0) as ai, ai.stream("one") as stream:
            async for _ in stream:
                pass

    with answering(streamed(frames, ends)) as url:
        with FloopAI(KEY, url, max_retries=0) as ai, pytest.raises(StreamCut), ai.stream("one") as stream:
            list(stream)
        with pytest.raises(StreamCut):
            asyncio.run(read(url))


def test_bytes_that_are_lost_after_the_end_do_no_harm() -> None:
    async def read(url: str) -> list[str]:
        async with AsyncFloopAI(KEY, url, max_retries=0) as ai, ai.stream("one") as stream:
            return [text async for text in stream]

    frames = b'data: {"text": "a"}\n\ndata: [DONE]\n\n'
    with answering(streamed(frames, ends=False)) as url:
        with FloopAI(KEY, url, max_retries=0) as ai, ai.stream("one") as stream:
            assert list(stream) == ["a"]
        assert asyncio.run(read(url)) == ["a"]


def test_a_stream_is_used_in_a_context() -> None:
    with FloopAI(KEY, "http://127.0.0.1:9") as ai, pytest.raises(RuntimeError, match="use the stream in a context"):
        iter(ai.stream("one"))
    with pytest.raises(RuntimeError, match="use the stream in a context"):
        AsyncFloopAI(KEY, "http://127.0.0.1:9").stream("one").__aiter__()
