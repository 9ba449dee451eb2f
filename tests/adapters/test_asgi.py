"""The ASGI adapter over real sockets: what a client sees, and what stays behind when it leaves."""

import http.client
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from floop_gateway_asgi import FloopGateway, FloopGatewayMiddleware
from floop_gateway_core import Gateway, Settings
from tests.serving import MOUNT, gateway_of, held, post, raw, records, served, until

SLOW_ECHO = {
    "deployments": {"echo": {"provider": "echo", "microcredits_per_token": 1250, "words_per_second": 50.0}},
    "routes": {"fast": ["echo"], "smart": ["echo"], "reason": ["echo"]},
}


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the host's own")


def starlette_mount(gateway: Gateway) -> Any:
    return Starlette(routes=[Route("/hello", hello), Mount(MOUNT, FloopGateway(gateway))])


def fastapi_mount(gateway: Gateway) -> Any:
    app = FastAPI()
    app.mount(MOUNT, FloopGateway(gateway))
    app.add_route("/hello", hello)
    return app


def nested_mount(gateway: Gateway) -> Any:
    inner = Starlette(routes=[Mount("/ai", FloopGateway(gateway))])
    return Starlette(routes=[Route("/hello", hello), Mount("/api/v1", inner)])


def middleware(gateway: Gateway) -> Any:
    return Starlette(
        routes=[Route("/hello", hello)], middleware=[Middleware(FloopGatewayMiddleware, gateway=gateway, prefix=MOUNT)]
    )


def behind_gzip(gateway: Gateway) -> Any:
    return Starlette(
        routes=[Route("/hello", hello), Mount(MOUNT, FloopGateway(gateway))],
        middleware=[Middleware(GZipMiddleware, minimum_size=10**9)],
    )


HOSTS = [starlette_mount, fastapi_mount, nested_mount, middleware, behind_gzip]


@pytest.mark.parametrize("http_protocol", ["h11", "httptools"])
@pytest.mark.parametrize("host", HOSTS)
def test_every_way_of_mounting_serves_the_same_contract(host: Callable[[Gateway], Any], http_protocol: str) -> None:
    gateway, key = gateway_of()
    with served(host(gateway), http=http_protocol) as address:
        url = address + MOUNT
        plain = post(f"{url}/generate", key, {"prompt": "one two"})
        assert (200, "one two") == (plain.status_code, plain.json()["content"])
        assert "echo" == plain.headers["x-gateway-model"]
        stream = post(f"{url}/generate", key, {"prompt": "one two", "stream": True})
        assert 'data: {"text": "one "}\n\ndata: {"text": "two"}\n\n' == stream.text[:47]
        assert stream.text.endswith('"finishReason": "end_turn"}\n\ndata: [DONE]\n\n')
        assert "text/event-stream" == stream.headers["content-type"]
        assert "no-store, no-transform" == stream.headers["cache-control"]
        assert "connection" not in stream.headers
        for path, status in (("/chat/", 404), ("/nope", 404), ("", 404)):
            answer = post(url + path, key, {}) if path else post(url + "/", key, {})
            assert status == answer.status_code
            assert "NOT_FOUND" == answer.json()["error"]["code"]
            assert answer.headers["x-request-id"].startswith("req_")
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
            answer = httpx.request(method, f"{url}/chat")
            assert (405, "POST") == (answer.status_code, answer.headers["allow"])
        assert "the host's own" == httpx.get(f"{address}/hello").text


def test_a_prefix_matches_whole_segments_only() -> None:
    gateway, key = gateway_of()
    with served(middleware(gateway)) as address:
        assert "Not Found" == post(f"{address}{MOUNT}x/chat", key, {}).text


def test_a_root_path_of_the_host_is_not_part_of_ours() -> None:
    gateway, key = gateway_of()
    inner = starlette_mount(gateway)

    async def below_a_proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": "/proxied", "path": "/proxied" + scope["path"]}
        await inner(scope, receive, send)

    with served(below_a_proxy) as address:
        assert 200 == post(f"{address}{MOUNT}/generate", key, {"prompt": "hi"}).status_code


@pytest.mark.parametrize("http_protocol", ["h11", "httptools"])
def test_the_first_frame_leaves_before_the_last_exists_and_a_client_that_leaves_is_billed_for_what_came(
    http_protocol: str,
) -> None:
    gateway, key = gateway_of(**SLOW_ECHO)
    with served(starlette_mount(gateway), http=http_protocol) as address:
        with (
            httpx.Client() as client,
            client.stream(
                "POST",
                f"{address}{MOUNT}/generate",
                json={"prompt": "word " * 500, "stream": True},
                headers={"Authorization": f"Bearer {key}"},
            ) as answer,
        ):
            first = next(answer.iter_raw())
            assert first.startswith(b'data: {"text": "word "}')
        until(lambda: records(gateway))
        (record,) = records(gateway)
        assert ("client_gone", 200, 0) == (record.ending, record.status, held(gateway))
        assert 500 == record.input_tokens
        assert 1 <= record.output_tokens < 500
        assert (500 + record.output_tokens) * 1250 == record.microcredits


def test_a_client_that_leaves_before_a_plain_answer_pays_for_what_was_produced() -> None:
    gateway, key = gateway_of(**SLOW_ECHO)
    with served(starlette_mount(gateway)) as address:
        host, _, port = address.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port))
        connection.request(
            "POST",
            f"{MOUNT}/generate",
            json.dumps({"prompt": "word " * 500}),
            {"Authorization": f"Bearer {key}"},
        )
        until(lambda: held(gateway) > 0)
        connection.close()
        until(lambda: records(gateway))
        (record,) = records(gateway)
        assert ("client_gone", 499, None, 0) == (record.ending, record.status, record.code, held(gateway))


def test_a_strangers_upload_is_answered_not_reset() -> None:
    gateway, _ = gateway_of()
    with served(starlette_mount(gateway)) as address:
        answer = post(f"{address}{MOUNT}/chat", "flp_sk_" + "x" * 33, b"x" * 20_000_000)
        assert (401, "Bearer") == (answer.status_code, answer.headers["www-authenticate"])


def test_a_body_beyond_the_cap_is_answered_not_reset() -> None:
    gateway, key = gateway_of()
    with served(starlette_mount(gateway)) as address:
        for headers in ({}, {"Transfer-Encoding": "chunked"}):
            with httpx.Client(timeout=30) as client:
                body = (b"x" * 1_000_000 for _ in range(50)) if headers else b"x" * 50_000_000
                answer = client.post(
                    f"{address}{MOUNT}/chat", content=body, headers={"Authorization": f"Bearer {key}", **headers}
                )
            assert (400, "INPUT_TOO_LARGE") == (answer.status_code, answer.json()["error"]["code"])


def test_a_body_that_never_comes_is_refused_in_time() -> None:
    gateway, key = gateway_of(body_s=0.2)
    with served(starlette_mount(gateway)) as address:
        head = f"POST {MOUNT}/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 9\r\n\r\n"
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head.encode())
            answer = connection.recv(65536)
            assert b"400 Bad Request" in answer
            connection.shutdown(socket.SHUT_WR)
        until(lambda: records(gateway))
        assert "INVALID_BODY" == records(gateway)[0].code


def test_a_client_that_leaves_within_its_body_leaves_one_record() -> None:
    gateway, key = gateway_of()
    with served(starlette_mount(gateway)) as address:
        head = f"POST {MOUNT}/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 9\r\n\r\n"
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head.encode() + b"{")
        until(lambda: records(gateway))
        (record,) = records(gateway)
        assert ("client_gone", 499, 0) == (record.ending, record.status, record.microcredits)


def test_odd_bytes_in_the_authorization_header_are_unauthorized() -> None:
    gateway, _ = gateway_of()
    with served(starlette_mount(gateway)) as address:
        for value in (b"Bearer \xff\xfe", b"Bearer", b"", b"bearer flp_sk_", b"Basic flp_sk_" + b"x" * 33):
            request = b"POST /api/v1/ai/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
            answer = raw(address, request + value + b"\r\nContent-Length: 0\r\n\r\n")
            assert b"401 Unauthorized" == answer.split(b"\r\n")[0].removeprefix(b"HTTP/1.1 ")


def test_the_gateway_alone_runs_its_own_lifespan() -> None:
    gateway, key = gateway_of()
    with served(FloopGateway(gateway), lifespan="on") as address:
        assert 200 == post(f"{address}/generate", key, {"prompt": "hi"}).status_code


def test_a_host_without_lifespan_needs_none() -> None:
    gateway, key = gateway_of()
    with served(starlette_mount(gateway), lifespan="off") as address:
        assert 200 == post(f"{address}{MOUNT}/generate", key, {"prompt": "hi"}).status_code


def test_a_middleware_lets_the_hosts_own_lifespan_run() -> None:
    gateway, _ = gateway_of()
    ran: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ran.append("started")
        yield
        ran.append("stopped")

    app = Starlette(lifespan=lifespan, middleware=[Middleware(FloopGatewayMiddleware, gateway=gateway, prefix=MOUNT)])
    with served(app, lifespan="on"):
        assert ["started"] == ran
    assert ["started", "stopped"] == ran


def test_a_store_that_raises_is_a_500_with_its_request_id() -> None:
    gateway, key = gateway_of()

    async def broken(*_: object) -> None:
        raise RuntimeError("the host's store fell over, with a secret in its message")

    gateway.store.hold = broken  # type: ignore[assignment, method-assign]
    with served(starlette_mount(gateway)) as address:
        answer = post(f"{address}{MOUNT}/generate", key, {"prompt": "hi"})
    assert (500, "INTERNAL_ERROR") == (answer.status_code, answer.json()["error"]["code"])
    assert answer.headers["x-request-id"].startswith("req_")
    assert "secret" not in answer.text
    (record,) = records(gateway)
    assert ("internal_error", 500) == (record.ending, record.status)


# -- hosts whose middlewares change what we are given ----------------------------------------------------------------------


def _scope(key: str, path: str = "/generate") -> dict[str, Any]:
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-length", b"20")]
    return {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "root_path": ""}


async def _called(gateway: Gateway, key: str, receive: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with anyio.fail_after(10):
        await FloopGateway(gateway)(_scope(key), receive, send)
    return sent


@pytest.mark.anyio
async def test_a_receive_that_repeats_the_body_for_ever_freezes_nothing() -> None:
    gateway, key = await _a_gateway()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"prompt": "one two"}', "more_body": False}

    sent = await _called(gateway, key, receive)
    assert 200 == sent[0]["status"]


@pytest.mark.anyio
async def test_a_receive_that_raises_behind_the_body_changes_nothing() -> None:
    gateway, key = await _a_gateway()
    left: list[dict[str, Any]] = [{"type": "http.request", "body": b'{"prompt": "one two"}', "more_body": False}]

    async def receive() -> dict[str, Any]:
        return left.pop()

    sent = await _called(gateway, key, receive)
    assert 200 == sent[0]["status"]


@pytest.mark.anyio
async def test_a_client_that_left_before_the_head_gets_an_empty_499() -> None:
    gateway, key = await _a_gateway()
    left: list[dict[str, Any]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"{", "more_body": True},
    ]

    async def receive() -> dict[str, Any]:
        return left.pop()

    sent = await _called(gateway, key, receive)
    assert (499, b"") == (sent[0]["status"], sent[-1]["body"])


async def _a_gateway() -> tuple[Gateway, str]:
    gateway = Gateway(Settings(store="memory://"))
    new = await gateway.admin.create_project("p", credits="1000")
    return gateway, new.key
