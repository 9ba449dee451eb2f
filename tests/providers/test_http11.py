"""Our HTTP/1.1 client against servers that answer byte by byte, too much, too early, malformed or not at all."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from floop_gateway_core.providers.base import UpstreamRequest
from floop_gateway_core.providers.http import http11
from floop_gateway_core.providers.http.http11 import Http11Response, Http11Sender, UpstreamConnectionError

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # on trio, httpx sends


@dataclass
class Server:
    """Answers each request with the next of `answers`: bytes, or what to do with the connection."""

    answers: list[bytes | Play]
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                following = self.answers.pop(0)
                if isinstance(following, bytes):
                    await reader.readexactly(2)
                    writer.write(following)
                else:
                    await following(reader, writer)
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.closed += 1


@asynccontextmanager
async def serving(*answers: bytes | Play) -> AsyncIterator[tuple[Server, Http11Sender, str]]:
    server = Server(list(answers))
    sender = Http11Sender(5.0)
    async with asyncio.timeout(20), await asyncio.start_server(server.serve, "127.0.0.1") as listener:
        server.port = listener.sockets[0].getsockname()[1]
        try:
            yield server, sender, f"http://127.0.0.1:{server.port}"
        finally:
            await sender.aclose()


def post(url: str, **headers: str) -> UpstreamRequest:
    return UpstreamRequest(url, tuple(headers.items()), b"{}")


async def sent(sender: Http11Sender, request: UpstreamRequest) -> Http11Response:
    return await sender.send(request, lambda: None)


async def body_of(answer: Http11Response) -> bytes:
    parts = []
    while part := await answer.read():
        parts.append(part)
    return b"".join(parts)


async def test_a_connection_is_used_again_after_a_body_that_was_read_to_its_end() -> None:
    async with serving(OK, OK) as (server, sender, url):
        for _ in range(2):
            answer = await sent(sender, post(url))
            assert (200, "2") == (answer.status_code, answer.headers["content-length"])
            assert b"ok" == await body_of(answer)
            assert answer.ended
        assert 1 == server.connections


async def test_a_body_that_is_left_closes_its_connection() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", OK) as (server, sender, url):
        await (await sent(sender, post(url))).aclose()
        assert b"ok" == await body_of(await sent(sender, post(url)))
        assert 2 == server.connections


async def test_interim_answers_are_skipped() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with serving(early + OK) as (_, sender, url):
        answer = await sent(sender, post(url))
        assert (200, None) == (answer.status_code, answer.headers.get("link"))
        assert b"ok" == await body_of(answer)


async def test_an_answer_in_single_bytes_is_the_same() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for one in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n":
            writer.write(bytes([one]))
            await writer.drain()
            await asyncio.sleep(0)

    async with serving(slowly) as (_, sender, url):
        answer = await sent(sender, post(url))
        assert b"ok!" == await body_of(answer)
        assert "a" not in answer.headers


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nok")
        writer.close()

    async with serving(close, OK) as (server, sender, url):
        assert b"ok" == await body_of(await sent(sender, post(url)))
        assert b"ok" == await body_of(await sent(sender, post(url)))
        assert 2 == server.connections


@pytest.mark.parametrize(
    "odd",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0;c\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200\r\ncontent-length:2\r\n\r\nok",
    ],
)
async def test_forms_that_other_clients_accept_are_accepted(odd: bytes) -> None:
    async with serving(odd) as (_, sender, url):
        assert b"ok" == await body_of(await sent(sender, post(url)))


async def test_a_status_of_zero_does_not_hang() -> None:
    async with serving(b"HTTP/1.1 000 What\r\nContent-Length: 2\r\n\r\nok") as (_, sender, url):
        assert 0 == (await sent(sender, post(url))).status_code


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\noktoo long\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_a_body_that_breaks_off_or_is_malformed_is_an_error(broken: bytes) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(broken)
        await writer.drain()
        writer.close()

    async with serving(close) as (_, sender, url):
        with pytest.raises(UpstreamConnectionError):
            await body_of(await sent(sender, post(url)))


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * http11.MAX_HEADER_BYTES + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes",
        b"",
    ],
)
async def test_a_head_that_is_none_is_an_error_on_a_new_connection(head: bytes) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        writer.close()

    async with serving(close, OK) as (server, sender, url):
        with pytest.raises(UpstreamConnectionError) as caught:
            await sent(sender, post(url))
        assert "OpenSSH" not in str(caught.value)
        assert 1 == server.connections, "only a connection that was used before is tried again"


async def test_an_answer_that_comes_before_the_body_was_sent_is_read() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
        await writer.drain()
        await reader.read()

    async with serving(refuse) as (_, sender, url):
        answer = await sent(sender, UpstreamRequest(url, (), b"x" * 32_000_000))
        assert (413, b"long") == (answer.status_code, await body_of(answer))


async def test_a_connection_that_the_server_wants_to_close_is_not_kept() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    async with serving(closing, OK) as (server, sender, url):
        assert b"ok" == await body_of(await sent(sender, post(url)))
        assert b"ok" == await body_of(await sent(sender, post(url)))
        assert 2 == server.connections


@pytest.mark.parametrize("more", [OK, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"rubbish"])
async def test_bytes_that_nobody_asked_for_answer_no_later_request(more: bytes) -> None:
    async def with_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(OK + more)

    async def with_more_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(more)

    good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
    async with serving(with_more, with_more_later, good) as (server, sender, url):
        assert b"ok" == await body_of(await sent(sender, post(url)))
        assert b"ok" == await body_of(await sent(sender, post(url)))
        await asyncio.sleep(0.15)
        assert b"good" == await body_of(await sent(sender, post(url)))
        assert 3 == server.connections


async def test_a_reader_that_is_slow_stops_the_server() -> None:
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(b"x" * 100_000)
            await writer.drain()
            written += 100_000

    async with serving(pour) as (_, sender, url):
        answer = await sent(sender, post(url))
        await asyncio.sleep(0.2)
        assert written < 25_000_000
        assert 50_000_000 == len(await body_of(answer))


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http11, "KEEP_ALIVE_S", 0.05)
    async with serving(OK, OK) as (server, sender, url):
        await body_of(await sent(sender, post(url)))
        while not server.closed:
            await asyncio.sleep(0.01)
        await body_of(await sent(sender, post(url)))
        assert 2 == server.connections


async def test_a_name_and_a_password_in_the_url_become_a_header_and_what_is_odd_is_quoted() -> None:
    async with serving(OK) as (server, sender, url):
        address = url.replace("http://", "http://us%40er:s%3Acret@") + "/a b/ü?q=ä&r=%20#part"
        await body_of(await sent(sender, post(address, X="1")))
        lines = server.heads[0].decode().split("\r\n")
        assert "POST /a%20b/%C3%BC?q=%C3%A4&r=%20 HTTP/1.1" == lines[0]
        assert {"Authorization: Basic dXNAZXI6czpjcmV0", "X: 1", f"Host: 127.0.0.1:{server.port}"} <= set(lines)


@pytest.mark.parametrize("url", ["ftp://host/", "http:///path", "host/path"])
async def test_a_url_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        await sent(Http11Sender(1.0), post(url))


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nb", "a\0b"])
async def test_a_header_of_several_lines_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="the header X must be one line"):
        await sent(Http11Sender(1.0), post("http://127.0.0.1:9/", X=value))


async def test_a_host_by_its_ipv6_address_is_reached() -> None:
    server = Server([OK])
    try:
        listener = await asyncio.start_server(server.serve, "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with listener:
        sender = Http11Sender(5.0)
        port = listener.sockets[0].getsockname()[1]
        assert b"ok" == await body_of(await sent(sender, post(f"http://[::1]:{port}/v1")))
        assert f"Host: [::1]:{port}\r\n".encode() in server.heads[0]
        await sender.aclose()


async def test_a_server_without_tls_is_an_error_and_leaves_no_socket() -> None:
    ended = asyncio.Event()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()
        ended.set()

    async with asyncio.timeout(20), await asyncio.start_server(plain, "127.0.0.1") as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLError):
            await sent(Http11Sender(5.0), post(f"https://127.0.0.1:{port}/"))
        await ended.wait()


async def test_connecting_has_a_limit() -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1") as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            await sent(Http11Sender(0.1), post(f"https://127.0.0.1:{port}/"))
        listener.close()


async def test_a_request_that_is_cancelled_closes_its_connection() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(never) as (server, sender, url):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sent(sender, post(url)), 0.05)
        while not server.closed:
            await asyncio.sleep(0.01)
