"""The Flask extension and the plain WSGI application, under `wsgiref.validate` and a threaded server."""

import io
import json
import threading
from contextlib import AbstractContextManager
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest
from flask import Flask
from werkzeug.serving import make_server

from floop_gateway_core import Gateway
from floop_gateway_flask import FloopGateway, FloopGatewayMiddleware, wsgi_app
from tests.serving import MOUNT, gateway_of, held, in_thread, post, records, until

SLOW_ECHO = {
    "deployments": {"echo": {"provider": "echo", "microcredits_per_token": 1250, "words_per_second": 50.0}},
    "routes": {"fast": ["echo"], "smart": ["echo"], "reason": ["echo"]},
}


def flask_app(gateway: Gateway) -> Flask:
    app = Flask("host")
    app.add_url_rule("/hello", view_func=lambda: "the host's own")
    FloopGateway(app, gateway)
    return app


def bare_app(environ: WSGIEnvironment, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the host's own"]


def served(app: WSGIApplication) -> AbstractContextManager[str]:
    return in_thread(make_server("127.0.0.1", 0, app, threaded=True))


def called(app: WSGIApplication, path: str, body: bytes, **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """Call a WSGI application as a strict server does; give status line, headers and body."""
    whole: WSGIEnvironment = {"REQUEST_METHOD": "POST", "SCRIPT_NAME": MOUNT, "PATH_INFO": path, "QUERY_STRING": ""}
    whole |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **environ}
    setup_testing_defaults(whole)
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        started.extend([status, dict(headers)])
        return lambda data: None

    answer = validator(app)(whole, start_response)
    try:
        content = b"".join(answer)
    finally:
        answer.close()  # type: ignore[attr-defined]
    return started[0], started[1], content


def test_it_passes_the_specifications_own_validator() -> None:
    gateway, key = gateway_of()
    app = wsgi_app(gateway)
    authorized = {"HTTP_AUTHORIZATION": f"Bearer {key}"}
    plain = json.dumps({"prompt": "one two"}).encode()
    stream = json.dumps({"prompt": "one two", "stream": True}).encode()
    status, headers, content = called(app, "/generate", plain, **authorized)
    assert ("200 OK", str(len(content))) == (status, headers["Content-Length"])
    assert "one two" == json.loads(content)["content"]
    status, headers, content = called(app, "/generate", stream, **authorized)
    assert ("200 OK", "text/event-stream") == (status, headers["Content-Type"])
    assert content.endswith(b"data: [DONE]\n\n")
    assert "Connection" not in headers
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        status, headers, content = called(app, "/chat", b"", REQUEST_METHOD=method)
        assert ("405 Method Not Allowed", "POST") == (status, headers["Allow"])
        assert (method == "HEAD") == (content == b"")
    assert "404 Not Found" == called(app, "", plain, **authorized)[0]
    assert "501 Not Implemented" == called(app, "/embed", plain, **authorized)[0]
    assert "401 Unauthorized" == called(app, "/chat", plain)[0]


def test_a_head_with_a_body_leaves_nothing_behind() -> None:
    gateway, _ = gateway_of()
    status, _, content = called(wsgi_app(gateway), "/chat", b"x" * 1000, REQUEST_METHOD="HEAD")
    assert ("405 Method Not Allowed", b"") == (status, content)


@pytest.mark.parametrize(
    ("length", "sent", "endless", "code"),
    [
        ("9", b'{"prompt"', False, "INVALID_BODY"),
        ("15", b'{"prompt":"hi"}, and what was not announced', False, None),
        ("", b'{"prompt":"hi"}', True, None),
        ("", b'{"prompt":"hi"}', False, "INVALID_BODY"),
        ("+15", b'{"prompt":"hi"}', False, "INVALID_BODY"),
    ],
)
def test_a_body_is_as_long_as_the_server_says(length: str, sent: bytes, endless: bool, code: str | None) -> None:
    """Without a length, only a server that says so has an input that ends."""
    gateway, key = gateway_of()
    environ = {"HTTP_AUTHORIZATION": f"Bearer {key}", "CONTENT_LENGTH": length, "wsgi.input_terminated": endless}
    environ |= {"wsgi.input": io.BytesIO(sent), **({"HTTP_TRANSFER_ENCODING": "chunked"} if endless else {})}
    whole: WSGIEnvironment = {"REQUEST_METHOD": "POST", "PATH_INFO": "/generate", **environ}
    content = b"".join(wsgi_app(gateway)(whole, lambda status, headers, error=None: lambda data: None))
    assert code == json.loads(content).get("error", {}).get("code")


def test_a_body_that_ends_too_soon_is_a_client_that_has_gone() -> None:
    gateway, key = gateway_of()
    environ = {"CONTENT_LENGTH": "9", "wsgi.input": io.BytesIO(b"{"), "HTTP_AUTHORIZATION": f"Bearer {key}"}
    whole: WSGIEnvironment = {"REQUEST_METHOD": "POST", "PATH_INFO": "/generate", **environ}
    started: list[str] = []

    def start_response(status: str, headers: Any, error: Any = None) -> Any:
        started.append(status)

    assert b"" == b"".join(wsgi_app(gateway)(whole, start_response))
    assert ["499 Client Closed Request"] == started
    assert ["client_gone"] == [record.ending for record in records(gateway)]


@pytest.mark.parametrize("late", [False, True])
def test_the_extension_serves_below_its_prefix_and_flask_the_rest(late: bool) -> None:
    gateway, key = gateway_of()
    app = flask_app(gateway)
    if late:
        app = Flask("host")
        extension = FloopGateway(gateway=gateway, prefix="/ai")
        extension.init_app(app)
        assert extension is app.extensions["floop_gateway"]
    prefix = "/ai" if late else MOUNT
    client = app.test_client()
    answer = client.post(f"{prefix}/generate", json={"prompt": "hi"}, headers={"Authorization": f"Bearer {key}"})
    assert answer.json is not None
    assert (200, "hi") == (answer.status_code, answer.json["content"])
    for method in ("OPTIONS", "HEAD", "GET"):
        assert (405, "POST") == (
            (answer := client.open(f"{prefix}/chat", method=method)).status_code,
            answer.headers["Allow"],
        )
    assert "NOT_FOUND" in client.post(prefix).text
    assert "NOT_FOUND" not in client.post(f"{prefix}x/chat").text
    assert "NOT_FOUND" not in client.post("/").text


def test_an_extension_without_a_gateway_says_so() -> None:
    with pytest.raises(ValueError, match="a gateway must be passed"):
        FloopGateway(Flask("host"))
    gateway, _ = gateway_of()
    for prefix in ("ai", "/ai/", ""):
        with pytest.raises(ValueError, match="prefix"):
            FloopGateway(Flask("host"), gateway, prefix=prefix)


def test_a_prefix_is_relative_to_what_the_server_has_mounted_away() -> None:
    gateway, key = gateway_of()
    app = FloopGatewayMiddleware(bare_app, gateway)
    body = json.dumps({"prompt": "hi"}).encode()
    authorized = {"HTTP_AUTHORIZATION": f"Bearer {key}"}
    below = called(app, f"{MOUNT}/generate", body, SCRIPT_NAME="/proxied", **authorized)
    assert ("200 OK", "hi") == (below[0], json.loads(below[2])["content"])
    assert b"the host's own" == called(app, "/generate", body, SCRIPT_NAME=MOUNT, **authorized)[2]


def test_a_client_that_leaves_is_billed_for_what_came() -> None:
    gateway, key = gateway_of(**SLOW_ECHO)
    with served(flask_app(gateway)) as address:
        ask, headers = {"prompt": "word " * 500, "stream": True}, {"Authorization": f"Bearer {key}"}
        with (
            httpx.Client() as client,
            client.stream("POST", f"{address}{MOUNT}/generate", json=ask, headers=headers) as it,
        ):
            assert b'data: {"text": "word "}\n\n' == next(it.iter_raw())[:25]
        until(lambda: records(gateway))
        (record,) = records(gateway)
        assert ("client_gone", 200, 0) == (record.ending, record.status, held(gateway))
        assert (500 + record.output_tokens) * 1250 == record.microcredits
        assert 1 <= record.output_tokens < 500


def test_a_json_answer_runs_to_its_end_though_nobody_waits() -> None:
    """Contract: a WSGI server cannot tell before it writes."""
    gateway, key = gateway_of(**SLOW_ECHO)
    with served(flask_app(gateway)) as address:
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.2) as client:
            client.post(
                f"{address}{MOUNT}/generate",
                json={"prompt": "word " * 30},
                headers={"Authorization": f"Bearer {key}"},
            )
        until(lambda: records(gateway))
    assert [("complete", 30)] == [(record.ending, record.output_tokens) for record in records(gateway)]


def test_50_requests_at_once_share_one_thread() -> None:
    gateway, key = gateway_of()
    with served(flask_app(gateway)) as address:
        answers: list[httpx.Response] = []
        url = f"{address}{MOUNT}/generate"
        threads = [
            threading.Thread(target=lambda: answers.append(post(url, key, {"prompt": "hi", "stream": True})))
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [200] * 50 == [answer.status_code for answer in answers]
    assert 1 == [thread.name for thread in threading.enumerate()].count("floop-gateway")
