"""The aiohttp adapter over real sockets, with and without `handler_cancellation`."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import anyio
import httpx
import pytest
from aiohttp import web
from anyio.from_thread import BlockingPortal, start_blocking_portal

from floop_gateway_aiohttp import setup, sub_app
from floop_gateway_core import Gateway
from floop_gateway_core.testing import Hold, Reply, ScriptedUpstream
from tests.serving import MOUNT, gateway_of, held, post, raw, records, until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="the host's own")


@web.middleware
async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


def mounted(gateway: Gateway, **options: Any) -> web.Application:
    app = web.Application(middlewares=[around], **options)
    app.router.add_get("/hello", hello)
    setup(app, gateway)
    return app


@contextmanager
def served(
    app: web.Application, *, cancellation: bool = False, stopping: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Serve on a free loopback port in a thread; the app is shut down and cleaned up at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    started, stop = threading.Event(), asyncio.Event()
    loop: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loop.append(asyncio.get_running_loop())
        runner = web.AppRunner(app, handler_cancellation=cancellation, shutdown_timeout=5, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert started.wait(20)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        loop[0].call_soon_threadsafe(stop.set)
        stopping()
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(params=[False, True], ids=["looking", "cancelled"])
def cancellation(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[ScriptedUpstream, BlockingPortal]]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(ScriptedUpstream(default=Reply(endless=True, delay_s=0.005))) as upstream,
    ):
        yield upstream, portal


def asking(scripted: ScriptedUpstream, **settings: Any) -> tuple[Gateway, str]:
    """Make a gateway whose every alias leads to the scripted upstream."""
    one = {
        "provider": "openai",
        "model": "scripted",
        "base_url": scripted.base_url("openai"),
        "microcredits_per_token": 1,
    }
    routes = {alias: ["scripted"] for alias in ("fast", "smart", "reason")}
    plan = {"output_tokens": 10_000_000}
    return gateway_of(deployments={"scripted": one}, routes=routes, plan=plan, **settings)


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, _, port = address.removeprefix("http://").partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=20)) as connection:
        yield connection


def request_of(key: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {MOUNT}/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def test_it_serves_the_contract(cancellation: bool) -> None:
    gateway, key = gateway_of()
    with served(mounted(gateway), cancellation=cancellation) as address:
        url = address + MOUNT
        plain = post(f"{url}/generate", key, {"prompt": "one two"})
        assert (200, "one two") == (plain.status_code, plain.json()["content"])
        assert ("application/json", "echo") == (plain.headers["content-type"], plain.headers["x-gateway-model"])
        stream = post(f"{url}/generate", key, {"prompt": "one two", "stream": True})
        assert 'data: {"text": "one "}\n\ndata: {"text": "two"}\n\n' == stream.text[:47]
        assert stream.text.endswith('"finishReason": "end_turn"}\n\ndata: [DONE]\n\n')
        assert ("text/event-stream", "no-store, no-transform", "no") == tuple(
            stream.headers[name] for name in ("content-type", "cache-control", "x-accel-buffering")
        )
        assert "connection" not in stream.headers
        for path, status in (("/chat/", 404), ("/nope", 404), ("/", 404), ("", 404), ("/a%0Ab", 404), ("/%63hat", 400)):
            answer = post(url + path, key, {})
            assert (path, status) == (path, answer.status_code)
            assert answer.headers["x-request-id"].startswith("req_")
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PURGE"):
            answer = httpx.request(method, f"{url}/chat")
            assert (method, 405, "POST") == (method, answer.status_code, answer.headers["allow"])
            assert (method == "HEAD") == (answer.content == b"")
        assert 501 == post(f"{url}/embed", key, b"x").status_code
        assert "the host's own" == httpx.get(f"{address}/hello").text
        assert "404: Not Found" == post(f"{url}x/chat", key, {}).text


def test_a_sub_application_sits_anywhere_or_runs_alone() -> None:
    gateway, key = gateway_of()
    inner, outer = web.Application(), web.Application()
    inner.add_subapp("/ai", sub_app(gateway))
    outer.add_subapp("/deep", inner)
    with served(outer) as address:
        assert 200 == post(f"{address}/deep/ai/generate", key, {"prompt": "hi"}).status_code
    with served(sub_app(gateway)) as address:
        assert 200 == post(f"{address}/generate", key, {"prompt": "hi"}).status_code
        assert "NOT_FOUND" == post(address, key, {}).json()["error"]["code"]


def test_a_prefix_is_a_path() -> None:
    gateway, _ = gateway_of()
    for prefix in ("ai", "/ai/", ""):
        with pytest.raises(ValueError, match="prefix"):
            setup(web.Application(), gateway, prefix)


def test_the_hosts_limit_of_a_body_is_not_the_gateways() -> None:
    gateway, key = gateway_of(body_bytes=3_000_000)
    with served(mounted(gateway, client_max_size=1000)) as address:
        url = f"{address}{MOUNT}/generate"
        body = json.dumps({"prompt": "hi", "padding": "x" * 2_000_000}).encode()
        assert 200 == post(url, key, body).status_code
        assert "INPUT_TOO_LARGE" == post(url, key, b"x" * 50_000_000).json()["error"]["code"]
        with httpx.Client(timeout=30) as client:
            for pieces, status in ((2, 200), (50, 400)):
                chunks = iter([body[:10], body[10:]] if pieces == 2 else [b"x" * 1_000_000] * pieces)
                answer = client.post(url, content=chunks, headers={"Authorization": f"Bearer {key}"})
                assert status == answer.status_code
        assert 401 == post(url, "flp_sk_" + "x" * 33, b"x" * 20_000_000).status_code


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("texts", [0, 1], ids=["before-the-first-text", "behind-it"])
def test_a_client_that_leaves_stops_a_silent_upstream_within_a_quarter_of_a_second(
    cancellation: bool, scripted: tuple[ScriptedUpstream, BlockingPortal], stream: bool, texts: int
) -> None:
    upstream, portal = scripted
    gateway, key = asking(upstream)
    never = portal.call(anyio.Event)
    at = Hold(never, "text", texts=1) if texts else Hold(never, "preamble")
    portal.call(upstream.script, Reply(["first", "last"], usage=None, hold=at))
    before = len(upstream.requests)
    with served(mounted(gateway), cancellation=cancellation) as address:
        with connected(address) as connection:
            connection.sendall(request_of(key, {"prompt": "hi", "stream": stream}))
            until(lambda: len(upstream.requests) > before and upstream.requests[-1].texts_sent >= texts)
            until(lambda: held(gateway) > 0)
            if texts and stream:
                received = b""
                while b"first" not in received:  # the head and the first frame may come in two pieces
                    received += (piece := connection.recv(65536))
                    assert piece
        left = time.monotonic()
        until(lambda: upstream.requests[-1].cut)
        # 250 ms, and as much again for a machine that has other things to do.
        assert time.monotonic() - left < 0.5
        until(lambda: records(gateway))
    (record,) = records(gateway)
    status = 200 if texts and stream else 499
    assert ("client_gone", status, None, 0) == (record.ending, record.status, record.code, held(gateway))
    assert record.microcredits > 0


def test_a_client_that_takes_nothing_is_cut_off_when_its_time_is_over(
    scripted: tuple[ScriptedUpstream, BlockingPortal],
) -> None:
    upstream, portal = scripted
    gateway, key = asking(upstream, upstream={"total_s": 0.5})
    portal.call(upstream.script, Reply(["x" * 10_000], endless=True))
    with served(mounted(gateway)) as address, connected(address) as connection:
        connection.sendall(request_of(key, {"prompt": "hi", "stream": True}))
        until(lambda: records(gateway))
        taken = bytearray()
        with suppress(ConnectionResetError):
            while chunk := connection.recv(1 << 20):
                taken += chunk
        assert taken
        assert not taken.endswith(b"0\r\n\r\n")
    assert 0 == held(gateway)


def test_a_body_that_never_comes_is_refused_in_time_and_one_that_breaks_off_has_a_record(cancellation: bool) -> None:
    gateway, key = gateway_of(body_s=0.2)
    head = f"POST {MOUNT}/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 9\r\n\r\n{{"
    with served(mounted(gateway), cancellation=cancellation) as address:
        with connected(address) as connection:
            connection.sendall(head.encode())
            assert b"400 Bad Request" in connection.recv(65536)
        until(lambda: records(gateway))
        with connected(address) as connection:
            connection.sendall(head.encode())
        until(lambda: len(records(gateway)) == 2)
    assert ["INVALID_BODY", None] == [record.code for record in records(gateway)]
    assert ["refused", "client_gone"] == [record.ending for record in records(gateway)]


def test_chunks_that_break_leave_one_record(cancellation: bool) -> None:
    """aiohttp does not tell a handler that is reading already: to it the body just never ends."""
    gateway, key = gateway_of(body_s=0.5)
    known = threading.Event()
    authenticate = gateway.store.authenticate_and_acquire

    async def noticing(*args: Any) -> Any:
        known.set()
        return await authenticate(*args)

    gateway.store.authenticate_and_acquire = noticing  # type: ignore[assignment, method-assign]
    head = f"POST {MOUNT}/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served(mounted(gateway), cancellation=cancellation) as address, connected(address) as connection:
        connection.sendall(head.encode() + b"1\r\n{\r\n")
        assert known.wait(10)
        connection.sendall(b"ZZ\r\n")
        until(lambda: records(gateway))
    assert [("refused", "INVALID_BODY")] == [(record.ending, record.code) for record in records(gateway)]
    assert 0 == held(gateway)


def test_a_server_that_stops_lets_open_streams_end(scripted: tuple[ScriptedUpstream, BlockingPortal]) -> None:
    upstream, portal = scripted
    gateway, key = asking(upstream)
    release = portal.call(anyio.Event)
    portal.call(upstream.script, Reply(["first", "last"], hold=Hold(release, texts=1)))
    with httpx.Client(timeout=20) as client:
        ask, headers = {"prompt": "hi", "stream": True}, {"Authorization": f"Bearer {key}"}
        with served(mounted(gateway), stopping=lambda: portal.call(release.set)) as address:
            answer = client.send(
                client.build_request("POST", f"{address}{MOUNT}/generate", json=ask, headers=headers), stream=True
            )
            chunks = answer.iter_raw()
            assert b"first" in next(chunks)
        assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
    assert ["complete"] == [record.ending for record in records(gateway)]


def test_odd_bytes_in_the_authorization_header_are_unauthorized() -> None:
    gateway, _ = gateway_of()
    with served(mounted(gateway)) as address:
        for value in (b"Bearer \xff\xfe", b"Bearer", b"", b"bearer flp_sk_", b"Basic flp_sk_" + b"x" * 33):
            request = b"POST /api/v1/ai/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
            answer = raw(address, request + value + b"\r\nContent-Length: 0\r\n\r\n")
            assert b"401 Unauthorized" == answer.split(b"\r\n")[0].removeprefix(b"HTTP/1.1 ")
