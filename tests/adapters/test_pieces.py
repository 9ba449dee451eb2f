"""The single pieces in Starlette, FastAPI, Flask and aiohttp, over real sockets: rate limits and event streams."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import httpx_sse
import pytest
import werkzeug.exceptions
from aiohttp import web
from fastapi import Depends, FastAPI
from flask import Flask
from flask import Response as FlaskResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from werkzeug.serving import make_server

import floop_gateway_aiohttp.limiting as aiohttp_limiting
import floop_gateway_asgi.route_limits as route_limits
from floop_gateway_aiohttp.limiting import limit_requests
from floop_gateway_aiohttp.streaming import event_stream as aiohttp_stream
from floop_gateway_asgi.app import ASGIApp
from floop_gateway_asgi.limiting import RateLimitMiddleware
from floop_gateway_asgi.streaming import EventStreamResponse
from floop_gateway_core import Refusal, RequestLimiter, ServerSentEvent, SSEDecoder
from floop_gateway_flask.limiting import RateLimit
from floop_gateway_flask.streaming import event_stream as flask_stream
from tests.adapters.test_aiohttp import served as aiohttp_served
from tests.serving import in_thread, served, until

Serve = Callable[[str], Any]
"""From a way of limiting (`envelope`, `own`, `keyed`) to a context manager that gives the host's address."""


def limiter() -> RequestLimiter:
    return RequestLimiter("2/minute;5/hour")


# -- rate limits -------------------------------------------------------------------------------------------------------


@contextmanager
def starlette_limited(way: str) -> Iterator[str]:
    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the page")

    def own(refusal: Refusal) -> ASGIApp:
        return JSONResponse({"slow": "down"}, 418, headers=dict(refusal.headers))

    ways: dict[str, Any] = {
        "envelope": {},
        "own": {"refused": own},
        "keyed": {"key": lambda scope: dict(scope["headers"]).get(b"x-caller", b"").decode() or None},
    }
    app = Starlette(routes=[Route("/", page)])
    app.add_middleware(RateLimitMiddleware, limiter=limiter(), **ways[way])
    with served(app) as address:
        yield address


@contextmanager
def flask_limited(way: str) -> Iterator[str]:
    from flask import request

    app = Flask(__name__)
    ways: dict[str, Any] = {
        "envelope": {},
        "own": {"refused": lambda refusal: ({"slow": "down"}, 418, dict(refusal.headers))},
        "keyed": {"key": lambda: request.headers.get("x-caller")},
    }
    limit = RateLimit(limiter(), **ways[way])

    def page() -> str:
        return "the page"

    if way == "keyed":
        app.add_url_rule("/", view_func=limit(page))
    else:
        app.add_url_rule("/", view_func=page)
        limit.init_app(app)
    with in_thread(make_server("127.0.0.1", 0, app, threaded=True)) as address:
        yield address


@contextmanager
def aiohttp_limited(way: str) -> Iterator[str]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="the page")

    ways: dict[str, Any] = {
        "envelope": {},
        "own": {
            "refused": lambda refusal: web.json_response({"slow": "down"}, status=418, headers=dict(refusal.headers))
        },
        "keyed": {"key": lambda request: request.headers.get("x-caller")},
    }
    app = web.Application()
    app.router.add_get("/", page)
    limit_requests(app, limiter(), **ways[way])
    with aiohttp_served(app) as address:
        yield address


LIMITED = pytest.mark.parametrize("serve", [starlette_limited, flask_limited, aiohttp_limited])


@LIMITED
def test_a_hosts_route_is_limited_in_the_catalogues_envelope(serve: Serve) -> None:
    with serve("envelope") as address:
        first, _, refused = (httpx.get(address) for _ in range(3))
        missing = httpx.get(f"{address}/nope")
    assert ("the page", "1", '"per-minute";r=1;t=60, "per-hour";r=4;t=3600') == (
        first.text,
        first.headers["x-ratelimit-remaining"],
        first.headers["ratelimit"],
    )
    assert (429, "application/json") == (refused.status_code, refused.headers["content-type"])
    assert "RATE_LIMITED" == refused.json()["error"]["code"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert ("2", "0") == (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"])
    assert 429 == missing.status_code


@LIMITED
def test_a_host_may_answer_in_its_own_words(serve: Serve) -> None:
    with serve("own") as address:
        refused = [httpx.get(address) for _ in range(3)][-1]
    assert (418, {"slow": "down"}) == (refused.status_code, refused.json())
    assert "0" == refused.headers["x-ratelimit-remaining"]
    assert "retry-after" in refused.headers


@LIMITED
def test_callers_count_apart_and_some_are_not_limited(serve: Serve) -> None:
    with serve("keyed") as address:
        for caller in ("ann", "bob"):
            found = [httpx.get(address, headers={"X-Caller": caller}).status_code for _ in range(3)]
            assert [200, 200, 429] == found
        free = [httpx.get(address) for _ in range(5)]
    assert {(200, False)} == {(one.status_code, "ratelimit" in one.headers) for one in free}


# -- event streams -----------------------------------------------------------------------------------------------------


class Source:
    """Events that say what became of them."""

    def __init__(self) -> None:
        self.closed = 0
        self.given = 0

    def events(self, after: str) -> list[ServerSentEvent | str]:
        return ["plain", ServerSentEvent("two\nlines", "poem", "7", 1500), f"after {after or 'nothing'}"]

    async def told(self, after: str) -> AsyncIterator[ServerSentEvent | str]:
        try:
            for event in self.events(after):
                yield event
        finally:
            self.closed += 1

    def told_plainly(self, after: str) -> Iterator[ServerSentEvent | str]:
        try:
            yield from self.events(after)
        finally:
            self.closed += 1

    async def silent(self) -> AsyncIterator[str]:
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            self.closed += 1

    def endless(self) -> Iterator[str]:
        try:
            while True:
                self.given += 1
                yield "x" * 10_000
        finally:
            self.closed += 1

    def slow(self) -> Iterator[str]:
        try:
            yield "first"
            time.sleep(0.5)
            yield "second"
        finally:
            self.closed += 1


@contextmanager
def fastapi_streams(source: Source) -> Iterator[str]:
    app = FastAPI()

    @app.get("/told")
    async def told() -> EventStreamResponse:
        return EventStreamResponse(source.told)

    @app.get("/plainly")
    def plainly() -> EventStreamResponse:
        return EventStreamResponse(source.told_plainly)

    @app.get("/silent")
    async def silent() -> EventStreamResponse:
        return EventStreamResponse(source.silent(), heartbeat_s=0.1)

    @app.get("/endless")
    async def endless() -> EventStreamResponse:
        return EventStreamResponse(source.endless())

    with served(app) as address:
        yield address


@contextmanager
def aiohttp_streams(source: Source) -> Iterator[str]:
    app = web.Application()
    makers: dict[str, Callable[[web.Request], Any]] = {
        "/told": lambda request: aiohttp_stream(request, source.told),
        "/plainly": lambda request: aiohttp_stream(request, source.told_plainly),
        "/silent": lambda request: aiohttp_stream(request, source.silent(), heartbeat_s=0.1),
        "/endless": lambda request: aiohttp_stream(request, source.endless()),
    }
    for path, make in makers.items():

        async def route(request: web.Request, make: Callable[[web.Request], Any] = make) -> web.StreamResponse:
            response: web.StreamResponse = await make(request)
            return response

        app.router.add_get(path, route)
    with aiohttp_served(app) as address:
        yield address


@contextmanager
def flask_streams(source: Source) -> Iterator[str]:
    app = Flask(__name__)
    makers: dict[str, Callable[[], FlaskResponse]] = {
        "/told": lambda: flask_stream(source.told_plainly),
        "/plainly": lambda: flask_stream(source.told_plainly, heartbeat_s=5),
        "/silent": lambda: flask_stream(source.slow(), heartbeat_s=0.1),
        "/endless": lambda: flask_stream(source.endless()),
    }
    for path, make in makers.items():
        app.add_url_rule(path, path[1:], make)
    with in_thread(make_server("127.0.0.1", 0, app, threaded=True)) as address:
        yield address


STREAMS = pytest.mark.parametrize("serve", [fastapi_streams, aiohttp_streams, flask_streams])


@STREAMS
@pytest.mark.parametrize("path", ["/told", "/plainly"])
def test_a_foreign_parser_reads_what_was_given(serve: Callable[[Source], Any], path: str) -> None:
    source = Source()
    with serve(source) as address, httpx.Client() as client:
        with httpx_sse.connect_sse(client, "GET", address + path, headers={"Last-Event-ID": "41"}) as stream:
            found = [(event.data, event.event, event.id, event.retry) for event in stream.iter_sse()]
            headers = stream.response.headers
        until(lambda: source.closed == 1)
    assert [
        ("plain", "message", "", None),
        ("two\nlines", "poem", "7", 1500),
        ("after 41", "message", "7", None),
    ] == found
    assert ("text/event-stream", "no-store, no-transform", "no") == (
        headers["content-type"],
        headers["cache-control"],
        headers["x-accel-buffering"],
    )


@STREAMS
def test_silence_is_filled_with_heartbeats_and_a_client_that_leaves_ends_the_source(
    serve: Callable[[Source], Any],
) -> None:
    source = Source()
    with serve(source) as address:
        with httpx.Client() as client, client.stream("GET", f"{address}/silent") as answer:
            taken = b""
            for chunk in answer.iter_raw():
                taken += chunk
                if taken.count(b": keep-alive\n\n") >= 2:
                    break
        assert taken.startswith(b"data: first\n\n: keep-alive\n\n")
        until(lambda: source.closed == 1)


@STREAMS
def test_a_reader_that_leaves_an_endless_stream_stops_it(serve: Callable[[Source], Any]) -> None:
    source = Source()
    with serve(source) as address:
        with httpx.Client() as client, client.stream("GET", f"{address}/endless") as answer:
            next(answer.iter_raw())
        until(lambda: source.closed == 1)
    assert source.given * 10_000 < 64_000_000


@STREAMS
def test_a_head_sends_no_event_and_closes_the_source(serve: Callable[[Source], Any]) -> None:
    source = Source()
    with serve(source) as address, httpx.Client() as client:
        for _ in range(3):
            answer = client.head(f"{address}/plainly")
            assert answer.status_code in (200, 405)
            assert b"" == answer.content
        if answer.status_code == 200:
            until(lambda: source.given == 0)
        assert client.get(f"{address}/told").content.startswith(b"data: plain\n\n")


def test_limiters_around_each_other_are_told_together_and_counted_once() -> None:
    app = Flask(__name__)
    outer, inner = RateLimit(RequestLimiter("100/minute")), RateLimit(RequestLimiter("1/hour", name="page"))

    @app.get("/")
    @outer
    @inner
    async def page() -> str:
        return "the page"

    outer.init_app(app)
    client = app.test_client()
    first, second = client.get("/"), client.get("/")
    assert (200, b"the page") == (first.status_code, first.data)
    assert '"per-minute";r=99;t=60, "per-hour";r=0;t=3600' == first.headers["RateLimit"]
    assert (429, "1") == (second.status_code, second.headers["X-RateLimit-Limit"])
    assert '"per-minute";r=98;t=60, "per-hour";r=0;t=3600' == second.headers["RateLimit"]


def test_nested_middlewares_say_each_header_once() -> None:
    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the page")

    app: Any = Starlette(routes=[Route("/", page)])
    app = RateLimitMiddleware(app, RequestLimiter("1/hour"))
    app = RateLimitMiddleware(app, RequestLimiter("100/minute"))
    with served(app) as address:
        first, second = httpx.get(address), httpx.get(address)
    assert (200, ["0"]) == (first.status_code, first.headers.get_list("x-ratelimit-remaining"))
    assert (429, ["1"]) == (second.status_code, second.headers.get_list("x-ratelimit-limit"))


# -- one route, exempt routes, dear requests ---------------------------------------------------------------------------


def test_fastapi_limits_a_route_by_a_dependency_or_a_decorator() -> None:
    app = FastAPI()
    by_dependency = route_limits.RateLimit(RequestLimiter("2/minute", name="a"))
    by_decorator = route_limits.RateLimit(RequestLimiter("4/minute", name="b"), cost=lambda request: 2)

    @app.get("/dependency", dependencies=[Depends(by_dependency)])
    async def dependency() -> dict[str, str]:
        return {"a": "page"}

    @app.get("/decorator/{number}")
    @by_decorator.route
    def decorator(number: int, request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"page {number}")

    @app.get("/free")
    async def free() -> str:
        return "free"

    with served(app) as url, httpx.Client(base_url=url) as client:
        for path, code in (("/dependency", ("detail", "code")), ("/decorator/7", ("error", "code"))):
            answers = [client.get(path) for _ in range(3)]
            assert [200, 200, 429] == [answer.status_code for answer in answers]
            assert answers[0].headers["ratelimit"].startswith('"per-minute";r=')
            assert 1 <= int(answers[2].headers["retry-after"]) <= 60
            assert "0" == answers[2].headers["x-ratelimit-remaining"]
            body = answers[2].json()
            for name in code:
                body = body[name]
            assert "RATE_LIMITED" == body
        assert all(200 == client.get("/free").status_code for _ in range(9))


def test_a_handler_of_the_hosts_answers_for_the_dependency() -> None:
    app = FastAPI()
    limit = route_limits.RateLimit(RequestLimiter("1/minute"))

    @app.exception_handler(route_limits.RateLimitExceeded)
    async def slow(request: Request, error: route_limits.RateLimitExceeded) -> JSONResponse:
        return JSONResponse({"wait": error.refusal.retry_after_s}, 420)

    @app.get("/", dependencies=[Depends(limit)])
    async def page() -> str:
        return "page"

    with served(app) as url:
        assert [200, 420] == [httpx.get(url).status_code for _ in range(2)]


def test_exempt_routes_and_dear_requests_on_every_host() -> None:
    async def asgi_page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("page")

    starlette = Starlette(routes=[Route("/", asgi_page), Route("/healthz", asgi_page)])
    starlette.add_middleware(
        RateLimitMiddleware, limiter=RequestLimiter("4/minute"), exempt=["/healthz"], cost=lambda scope: 2
    )

    flask = Flask(__name__)
    limit = RateLimit(RequestLimiter("4/minute"), cost=lambda: 2)
    limit.init_app(flask)
    flask.add_url_rule("/", "page", lambda: "page")
    flask.add_url_rule("/healthz", "healthz", limit.exempt(lambda: "page"))

    async def aiohttp_page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="page")

    @aiohttp_limiting.exempt
    async def healthz(request: web.Request) -> web.StreamResponse:
        return web.Response(text="page")

    aiohttp = web.Application()
    limit_requests(aiohttp, RequestLimiter("4/minute"), cost=lambda request: 2)
    aiohttp.router.add_get("/", aiohttp_page)
    aiohttp.router.add_get("/healthz", healthz)
    for serve in (lambda: served(starlette), lambda: flask_served(flask), lambda: aiohttp_served(aiohttp)):
        with serve() as url:
            assert [200] * 6 == [httpx.get(f"{url}/healthz").status_code for _ in range(6)]
            assert [200, 200, 429] == [httpx.get(url).status_code for _ in range(3)]


def test_aiohttp_limits_one_handler_by_a_decorator() -> None:
    @aiohttp_limiting.limited(RequestLimiter("1/minute"))
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="page")

    app = web.Application()
    app.router.add_get("/", page)
    with aiohttp_served(app) as url:
        answers = [httpx.get(url) for _ in range(2)]
        assert [200, 429] == [answer.status_code for answer in answers]
        assert ["0", "0"] == [answer.headers["x-ratelimit-remaining"] for answer in answers]


def flask_served(app: Flask) -> Any:
    return in_thread(make_server("127.0.0.1", 0, app, threaded=True))


# -- events as dictionaries, refusals, slow clients --------------------------------------------------------------------


def starlette_events(events: Any) -> Any:
    async def route(request: Request) -> EventStreamResponse:
        return EventStreamResponse(events)

    return served(Starlette(routes=[Route("/", route)]))


def aiohttp_events(events: Any) -> Any:
    async def route(request: web.Request) -> web.StreamResponse:
        return await aiohttp_stream(request, events)

    app = web.Application()
    app.router.add_get("/", route)
    return aiohttp_served(app)


def flask_events(events: Any) -> Any:
    app = Flask(__name__)
    app.add_url_rule("/", "events", lambda: flask_stream(events))
    return flask_served(app)


def flask_events_with_heartbeats(events: Any) -> Any:
    app = Flask(__name__)
    app.add_url_rule("/", "events", lambda: flask_stream(events, heartbeat_s=5))
    return flask_served(app)


SIMPLE = pytest.mark.parametrize(
    "serve", [starlette_events, aiohttp_events, flask_events, flask_events_with_heartbeats]
)


@SIMPLE
def test_dictionaries_are_events_and_their_data_is_json(serve: Callable[[Any], Any]) -> None:
    def events(last: str) -> Iterator[Any]:
        yield {"data": {"n": 1, "ü": [None]}, "event": "tick", "id": 7, "retry": 100}
        yield {"comment": "nothing happened"}
        yield {"data": "text"}
        yield {"data": 3.5, "comment": "with a comment"}

    with serve(events) as url:
        text = httpx.get(url).text
    assert ": nothing happened\n\n" in text
    assert [
        ServerSentEvent('{"n": 1, "ü": [null]}', "tick", "7", 100),
        ServerSentEvent("text", "message", "7"),
        ServerSentEvent("3.5", "message", "7"),
    ] == SSEDecoder().feed(text.encode())


@SIMPLE
def test_a_source_that_refuses_at_its_beginning_is_answered_before_the_head(serve: Callable[[Any], Any]) -> None:
    refusals: dict[Any, Any] = {
        starlette_events: lambda: StarletteHTTPException(404),
        aiohttp_events: web.HTTPNotFound,
        flask_events: werkzeug.exceptions.NotFound,
        flask_events_with_heartbeats: werkzeug.exceptions.NotFound,
    }

    def events(last: str) -> Iterator[Any]:
        raise refusals[serve]()
        yield "never"

    with serve(events) as url:
        assert 404 == httpx.get(url).status_code


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    closed = threading.Event()

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 100_000
        finally:
            closed.set()

    async def asgi(request: Request) -> EventStreamResponse:
        return EventStreamResponse(events(), send_timeout_s=0.3)

    async def aiohttp_route(request: web.Request) -> web.StreamResponse:
        return await aiohttp_stream(request, events(), send_timeout_s=0.3)

    app = web.Application()
    app.router.add_get("/", aiohttp_route)
    hosts: list[Any] = [lambda: served(Starlette(routes=[Route("/", asgi)])), lambda: aiohttp_served(app)]
    for serve in hosts:
        closed.clear()
        with serve() as url, socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert closed.wait(10), "the source goes on although nobody reads"


def test_the_middleware_needs_no_starlette() -> None:
    code = "import sys, floop_gateway_asgi.limiting as it; assert it and 'starlette' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert 0 == subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode
