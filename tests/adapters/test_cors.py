"""A browser on another origin calls the gateway: each host's own CORS, set up for the whole app, covers it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp_cors
import httpx
import pytest
from aiohttp import web
from flask import Flask, Response
from flask_cors import CORS
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from floop_gateway_aiohttp import setup
from floop_gateway_asgi import FloopGateway as ASGIGateway
from floop_gateway_core import Gateway
from floop_gateway_flask import FloopGateway as FlaskGateway
from tests.adapters import test_aiohttp, test_flask
from tests.serving import MOUNT, gateway_of
from tests.serving import served as served_by_uvicorn

OURS, THEIRS = "https://app.example", "https://evil.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@contextmanager
def starlette_host(gateway: Gateway) -> Iterator[str]:
    cors = Middleware(CORSMiddleware, allow_origins=[OURS], allow_methods=["POST"], allow_headers=["*"])
    with served_by_uvicorn(Starlette(routes=[Mount(MOUNT, ASGIGateway(gateway))], middleware=[cors])) as url:
        yield url


@contextmanager
def flask_host(gateway: Gateway) -> Iterator[str]:
    app = Flask("host")
    CORS(app, origins=[OURS], resources={r"/api/*": {}})
    FlaskGateway(app, gateway)
    with test_flask.served(app) as url:
        yield url


@contextmanager
def aiohttp_host(gateway: Gateway) -> Iterator[str]:
    app = web.Application()
    setup(app, gateway)
    options: Any = aiohttp_cors.ResourceOptions
    cors = aiohttp_cors.setup(app, defaults={OURS: options(allow_headers="*", allow_methods="*")})
    for route in list(app.router.routes()):
        if route.method != "*":
            cors.add(route)
    with test_aiohttp.served(app) as url:
        yield url


HOSTS = [starlette_host, flask_host, aiohttp_host]


@pytest.mark.parametrize("host", HOSTS)
def test_the_hosts_cors_covers_preflights_answers_streams_and_errors(host: Any) -> None:
    gateway, key = gateway_of()
    ours = {"Origin": OURS, "Authorization": f"Bearer {key}"}
    with host(gateway) as url, httpx.Client(base_url=url + MOUNT, timeout=30) as client:
        preflight = client.options("/generate", headers={"Origin": OURS, **PREFLIGHT})
        whole = client.post("/generate", json={"prompt": "a b"}, headers=ours)
        streamed = client.post("/generate", json={"prompt": "a b", "stream": True}, headers=ours)
        refused = client.post("/generate", json={"prompt": 1}, headers=ours)
    assert preflight.is_success
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert (whole.status_code, streamed.status_code, refused.status_code) == (200, 200, 400)
    for answer in (preflight, whole, streamed, refused):
        assert answer.headers.get_list("access-control-allow-origin") == [OURS]


@pytest.mark.parametrize("host", HOSTS)
def test_another_origin_is_not_allowed(host: Any) -> None:
    gateway, key = gateway_of()
    with host(gateway) as url, httpx.Client(base_url=url + MOUNT, timeout=30) as client:
        preflight = client.options("/generate", headers={"Origin": THEIRS, **PREFLIGHT})
        answer = client.post(
            "/generate", json={"prompt": "a"}, headers={"Origin": THEIRS, "Authorization": f"Bearer {key}"}
        )
    assert preflight.is_client_error
    assert answer.status_code == 200
    for got in (preflight, answer):
        assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize("origin", [{}, {"Origin": OURS}])
def test_options_of_a_host_without_cors_is_405(origin: dict[str, str]) -> None:
    gateway, _ = gateway_of()
    with test_flask.served(test_flask.flask_app(gateway)) as url:
        answer = httpx.options(url + MOUNT + "/generate", headers={**PREFLIGHT, **origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_an_after_request_function_that_fails_costs_only_the_headers(caplog: pytest.LogCaptureFixture) -> None:
    gateway, key = gateway_of()
    app = test_flask.flask_app(gateway)

    @app.after_request
    def broken(response: Response) -> Response:
        raise RuntimeError("no view ran")

    with test_flask.served(app) as url:
        headers = {"Origin": OURS, "Authorization": f"Bearer {key}"}
        answer = httpx.post(url + MOUNT + "/generate", json={"prompt": "a"}, headers=headers)
    assert answer.status_code == 200
    assert "after_request" in caplog.text
