"""The ASGI adapter inside other frameworks, over HTTP/2, and held to the ASGI specification."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

from floop_gateway_asgi import FloopGateway, FloopGatewayMiddleware
from floop_gateway_core import Gateway
from tests.adapters.world import World, world_in
from tests.serving import MOUNT, gateway_of, post, records, served, until


def litestar(gateway: Gateway) -> Any:
    """Around it, and not as one of its mounts: those add a slash to every path."""
    from litestar import Litestar, get

    @get("/hello")
    async def hello() -> str:
        return "the host's own"

    return FloopGatewayMiddleware(Litestar([hello]), gateway, MOUNT)  # type: ignore[arg-type]


def quart(gateway: Gateway) -> Any:
    from quart import Quart

    app = Quart(__name__)

    @app.get("/hello")
    async def hello() -> str:
        return "the host's own"

    app.asgi_app = FloopGatewayMiddleware(app.asgi_app, gateway, MOUNT)  # type: ignore[method-assign, assignment, arg-type]
    return app


def django(gateway: Gateway) -> Any:
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of this test only")
    globals()["urlpatterns"] = [path("hello", lambda request: HttpResponse("the host's own"))]
    return FloopGatewayMiddleware(get_asgi_application(), gateway, MOUNT)


@pytest.mark.parametrize("host", [litestar, quart, django])
def test_other_frameworks_host_the_gateway(host: Callable[[Gateway], Any]) -> None:
    gateway, key = gateway_of()
    with served(host(gateway), lifespan="off" if host is django else "auto") as address:
        url = address + MOUNT
        plain = post(f"{url}/chat", key, {"messages": [{"role": "user", "content": "one two"}]})
        assert (200, "one two") == (plain.status_code, plain.json()["content"])
        stream = post(f"{url}/generate", key, {"prompt": "one two", "stream": True})
        assert 'data: {"text": "one "}\n\ndata: {"text": "two"}\n\n' == stream.text[:47]
        assert stream.text.endswith("data: [DONE]\n\n")
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
            answer = httpx.request(method, f"{url}/chat")
            assert (method, 405, "POST") == (method, answer.status_code, answer.headers["allow"])
        assert "NOT_FOUND" == post(f"{url}/chat/", key, {}).json()["error"]["code"]
        assert 400 == post(f"{url}/chat", key, b"{").status_code
        assert "the host's own" == httpx.get(f"{address}/hello").text
        with (
            httpx.Client() as client,
            client.stream(
                "POST",
                f"{url}/generate",
                json={"prompt": "word " * 50_000, "stream": True},
                headers={"Authorization": f"Bearer {key}"},
            ) as left,
        ):
            next(left.iter_raw())
        until(lambda: len(records(gateway)) == 4)
        assert records(gateway)[-1].ending in ("client_gone", "complete")


# -- the specification -------------------------------------------------------------------------------------------------


class Strict:
    """An ASGI application around another that holds every message to the specification (ASGI 3.0, HTTP 2.x)."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.faults: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        before = {name: value for name, value in scope.items() if name != "state"}
        state = "before"

        async def checked(message: Any) -> None:
            nonlocal state
            kind = message["type"]
            if kind == "http.response.start":
                self._expect(state == "before", "one start, first")
                self._expect(type(message["status"]) is int, "status is an int")
                for name, value in message["headers"]:
                    self._expect(type(name) is bytes and type(value) is bytes, "headers are bytes")
                    self._expect(name == name.lower() and not name.startswith(b":"), "names are lower case")
                    self._expect(b"\n" not in name + value and b"\r" not in name + value, "no line breaks")
                state = "started"
            elif kind == "http.response.body":
                self._expect(state == "started", "a body follows its start")
                self._expect(type(message.get("body", b"")) is bytes, "bodies are bytes")
                self._expect(type(message.get("more_body", False)) is bool, "more_body is a bool")
                state = "started" if message.get("more_body") else "done"
            else:
                self.faults.append(f"an unknown message: {kind}")
            await send(message)

        await self._app(scope, receive, checked)
        self._expect(state == "done", "every response ends")
        self._expect(before == {name: value for name, value in scope.items() if name != "state"}, "scopes are copied")

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.faults.append(what)


@pytest.mark.parametrize("mounting", ["alone", "middleware"])
def test_every_message_follows_the_asgi_specification(mounting: str) -> None:
    gateway, key = gateway_of(plan={"requests_per_minute": 30})

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("everything is the gateway's")

    app: Any = FloopGateway(gateway)
    if mounting == "middleware":
        app = FloopGatewayMiddleware(nothing, gateway, MOUNT)
    strict, prefix = Strict(app), MOUNT if mounting == "middleware" else ""
    with served(strict, lifespan="off") as address:
        for _ in range(4):
            for body in ({"prompt": "a b"}, {"prompt": "a b", "stream": True}, {}, b"\xff", b"x" * 9_000_000):
                post(f"{address}{prefix}/generate", key, body)
                post(f"{address}{prefix}/generate", "wrong", body)
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            httpx.request(method, f"{address}{prefix}/chat")
            httpx.request(method, f"{address}{prefix}/nope", content=b"x" * 100)
        assert 429 == [post(f"{address}{prefix}/embed", key, b"") for _ in range(31)][-1].status_code
    assert [] == strict.faults


# -- HTTP/2 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("http2")) as world:
        yield world


@pytest.fixture(params=["hypercorn-asyncio", "hypercorn-trio"])
def http2(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    with world.serving(request.param) as (address, _):
        yield address + MOUNT


def test_many_requests_share_one_http2_connection(world: World, http2: str) -> None:
    project, key = world.project()
    headers = {"Authorization": f"Bearer {key}"}

    async def ask_all() -> None:
        async with httpx.AsyncClient(http1=False, http2=True, timeout=30, headers=headers) as client:

            async def ask(number: int) -> None:
                answer = await client.post(
                    f"{http2}/generate", json={"prompt": f"number {number}", "stream": bool(number % 2)}
                )
                assert ("HTTP/2", 200) == (answer.http_version, answer.status_code)
                assert f"number {number}" in answer.text.replace('"}\n\ndata: {"text": "', "")

            async with anyio.create_task_group() as tasks:
                for number in range(40):
                    tasks.start_soon(ask, number)
            for path, status in (("/nope", 404), ("/chat", 400), ("/embed", 501)):
                answer = await client.post(http2 + path, json={})
                assert (status, "HTTP/2") == (answer.status_code, answer.http_version)
                assert answer.headers["x-request-id"].startswith("req_")

    anyio.run(ask_all)
    assert 40 == sum(record.ending == "complete" for record in world.records(project))


def test_a_stream_that_is_reset_over_http2_leaves_one_record_and_its_neighbours_alone(world: World, http2: str) -> None:
    project, key = world.project()
    where = urlsplit(http2)
    connection = H2Connection()
    connection.initiate_connection()
    with closing(socket.create_connection((where.hostname or "", where.port or 80), timeout=20)) as sock:

        def ask(stream: int, model: str) -> None:
            body = json.dumps({"prompt": "word " * 60, "stream": True, "model": model}).encode()
            connection.send_headers(
                stream,
                [
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":authority", where.netloc),
                    (":path", f"{where.path}/generate"),
                    ("authorization", f"Bearer {key}"),
                ],
            )
            connection.send_data(stream, body, end_stream=True)

        ask(1, "slow")
        ask(3, "scripted")
        found: dict[int, bytes] = {1: b"", 3: b""}
        reset = done = False
        while not done:
            sock.sendall(connection.data_to_send())
            for event in connection.receive_data(sock.recv(65536)):
                if isinstance(event, DataReceived):
                    found[event.stream_id] += event.data
                    if not reset or event.stream_id == 1:
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if found[3] and not reset:
                        connection.reset_stream(3)
                        reset = True
                done = done or (isinstance(event, StreamEnded) and event.stream_id == 1)
        assert found[1].endswith(b"data: [DONE]\n\n")
        until(lambda: len(world.records(project)) == 2)
    assert {"complete", "client_gone"} == {record.ending for record in world.records(project)}
    assert 0 == world.held(project)


def test_the_core_and_its_adapters_import_no_framework_that_is_not_theirs() -> None:
    code = (
        "import sys, floop_gateway_asgi, floop_gateway_flask, floop_gateway_core.gateway; "
        "print(sorted(set(sys.modules) & {'starlette', 'flask', 'aiohttp', 'django', 'fastapi'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=None)
    assert "[]\n" == done.stdout, done.stderr
