"""A host's own log lines carry the id of the request that they belong to, on each host."""

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from io import StringIO
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import anyio
import httpx
import pytest
from aiohttp import web
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import floop_gateway_aiohttp
import floop_gateway_asgi
import floop_gateway_flask
from floop_gateway_core import Gateway, MemoryStore, Settings
from floop_gateway_core.cli.logs import show_log
from floop_gateway_core.observability import RequestIdFilter, request_id
from floop_gateway_core.testing import scripted_gateway
from tests.adapters import test_aiohttp, test_flask
from tests.serving import MOUNT, RICH, served

log = logging.getLogger("host")


def asgi(gateway: Gateway) -> AbstractContextManager[str]:
    async def hello(_: Any) -> PlainTextResponse:
        return PlainTextResponse("the host's own")

    app = Starlette(routes=[Mount(MOUNT, floop_gateway_asgi.FloopGateway(gateway)), Route("/hello", hello)])

    async def logged(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if scope["type"] == "http":
            log.info("served")

    return served(logged)


def flask(gateway: Gateway) -> AbstractContextManager[str]:
    app = Flask("host")
    app.add_url_rule("/hello", view_func=lambda: "the host's own")
    floop_gateway_flask.FloopGateway(app, gateway)

    def logged(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        answer = app(environ, start_response)
        log.info("served")
        return answer

    return test_flask.served(logged)


def aiohttp(gateway: Gateway) -> AbstractContextManager[str]:
    @web.middleware
    async def logged(request: web.Request, handler: Any) -> Any:
        answer = await handler(request)
        log.info("served")
        return answer

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="the host's own")

    app = web.Application(middlewares=[logged])
    app.router.add_get("/hello", hello)
    floop_gateway_aiohttp.setup(app, gateway)
    return test_aiohttp.served(app)


@pytest.fixture
def lines() -> Iterator[StringIO]:
    written, before = StringIO(), log.level
    handler = logging.StreamHandler(written)
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield written
    log.removeHandler(handler)
    log.setLevel(before)


def authenticate(request: Any) -> None:
    log.info("asked")


@pytest.mark.parametrize("host", [asgi, flask, aiohttp])
def test_a_hosts_own_lines_have_the_requests_id(
    host: Callable[[Gateway], AbstractContextManager[str]], lines: StringIO
) -> None:
    settings = Settings.read({"store": "memory://", "plans": {"default": {"requests_per_minute": 1000}}}, source="test")
    gateway = Gateway(settings, store=MemoryStore(), authenticate=authenticate)
    key = anyio.run(lambda: gateway.admin.create_project("p", credits=RICH)).key

    def ask(stream: bool) -> str:
        with httpx.Client(timeout=30) as client:  # the host's own page on the same connection, and so the same thread
            answer = client.post(
                f"{address}{MOUNT}/generate",
                json={"prompt": "one two", "stream": stream},
                headers={"Authorization": f"Bearer {key}"},
            )
            assert "the host's own" == client.get(f"{address}/hello").text
        return answer.headers["X-Request-Id"]

    with host(gateway) as address, ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(ask, [True, False] * 10))
    said = [tuple(line.split()) for line in lines.getvalue().splitlines()]
    assert sorted([*((id, "asked") for id in ids), *((id, "served") for id in ids), *[("-", "served")] * 20]) == sorted(
        said
    )


@pytest.mark.anyio
async def test_a_call_in_process_sets_it_for_its_caller() -> None:
    async with scripted_gateway() as scripted:
        answer = await scripted.gateway.generate(scripted.key, "Hi")
        assert answer.request_id == request_id.get()
        async with scripted.gateway.stream(scripted.key, [{"role": "user", "content": "Hi"}]) as stream:
            assert stream.request_id == request_id.get()
            assert [text async for text in stream]


def test_json_lines_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("floop_gateway")
    before, level = list(logger.handlers), logger.level
    try:
        show_log("json")

        async def call() -> str:
            async with scripted_gateway() as scripted:
                answer = await scripted.gateway.generate(scripted.key, "Hi")
                logger.warning("the host's own")
                return answer.request_id

        id = anyio.run(call)
    finally:
        logger.handlers = before
        logger.setLevel(level)
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [id, id] == [one["request_id"] for one in found if "request_id" in one]
    assert "request_id" not in found[0]
