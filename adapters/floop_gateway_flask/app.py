"""The WSGI adapter: reads the body, opens an exchange, writes the reply, notices disconnects (PEP 3333)."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from floop_gateway_core import Gateway, GatewayRequest
from floop_gateway_core.hosting.bridge import BlockingBody, Bridge, SyncReply
from floop_gateway_core.hosting.prefix import PREFIX, below, checked_prefix
from floop_gateway_core.hosting.server_threads import ServerThreads, server_threads
from floop_gateway_core.hosting.threaded_body import ThreadedBody
from floop_gateway_core.management import AdminApplication, Authorize
from floop_gateway_core.observability import request_id
from floop_gateway_core.types import RequestId
from floop_gateway_core.wire.messages import CLIENT_GONE_STATUS
from floop_gateway_flask.cors import HostCORS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask

__all__ = ["FloopAdmin", "FloopDashboard", "FloopGateway", "FloopGatewayMiddleware", "wsgi_app"]


def FloopAdmin(gateway: Gateway, authorize: Authorize) -> "WSGIApplication":  # noqa: N802 - the same name on every host
    """Return the administration over HTTP as a WSGI application, for a dispatcher. `authorize` gets the environ.

    `authorize` runs in the gateway's own thread, outside any context of Flask's.
    """
    return _application(Bridge(gateway, AdminApplication(gateway, authorize)))


def FloopDashboard(  # noqa: N802 - the same name on every host
    gateway: Gateway, authorize: Authorize, login_url: str | None = None, *, gateway_path: str = PREFIX
) -> "WSGIApplication":
    """Return the dashboard as a WSGI application, for a dispatcher. `authorize` gets the environ."""
    from floop_gateway_core.management.dashboard import DashboardApplication  # it needs Jinja2, which is an extra

    return _application(Bridge(gateway, DashboardApplication(gateway, authorize, login_url, gateway_path=gateway_path)))


_threads = ServerThreads()
"""A process has one WSGI server, whatever it mounts."""


def wsgi_app(gateway: Gateway) -> "WSGIApplication":
    """Return the gateway as a WSGI application. The prefix it is mounted at is in `SCRIPT_NAME`, not in its path."""
    return _application(Bridge(gateway), spares_thread=True)


def _application(bridge: Bridge, *, names_thread: bool = False, spares_thread: bool = False) -> "WSGIApplication":
    """Return the application.

    `names_thread` sets `request_id` in the host's thread; the caller must reset it. With `spares_thread`, answers leave one
    of the server's threads to others.
    """

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        request = GatewayRequest(
            method,
            environ.get("PATH_INFO", ""),
            _headers(environ),
            _body(environ),
            environ.get("QUERY_STRING", ""),
            environ,
            spares_thread and not _threads.enter(server_threads()),
        )
        reply = _opened(bridge, request) if spares_thread else bridge.open(request)
        if names_thread:
            request_id.set(RequestId(dict(reply.headers)["X-Request-Id"]))
        try:
            phrase = "Client Closed Request" if reply.status == CLIENT_GONE_STATUS else HTTPStatus(reply.status).phrase
            start_response(f"{reply.status} {phrase}", list(reply.headers))
        except BaseException:
            _close(reply.body)
            raise
        if method == "HEAD":  # servers differ in whether they drop a body that must not be sent
            return [] if isinstance(reply.body, bytes) else _without_content(reply.body)
        return [reply.body] if isinstance(reply.body, bytes) else reply.body

    return application


def _opened(bridge: Bridge, request: GatewayRequest) -> SyncReply:
    """Open an exchange; its thread counts as busy until the body is closed."""
    try:
        reply = bridge.open(request)
    except BaseException:
        _threads.leave()
        raise
    if isinstance(reply.body, bytes):
        _threads.leave()
    else:
        reply.body.on_close(_threads.leave)
    return reply


def _without_content(body: BlockingBody) -> Iterable[bytes]:
    """Run the body to its end, so that the rest of the request is read and the connection can be reused."""
    try:
        for _ in body:
            yield b""
    finally:
        body.close()


def _close(body: bytes | BlockingBody) -> None:
    if not isinstance(body, bytes):
        body.close()


def _headers(environ: "WSGIEnvironment") -> list[tuple[str, str]]:
    headers = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
    plain = ("CONTENT_TYPE", "CONTENT_LENGTH")
    return headers + [(name.replace("_", "-"), environ[name]) for name in plain if environ.get(name)]


def _body(environ: "WSGIEnvironment") -> bytes | ThreadedBody:
    """Return the body. Without a length there is one only if the server says that its input ends, as for decoded chunks."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isascii() and length.isdigit():
        return ThreadedBody(environ["wsgi.input"], int(length)) if int(length) else b""
    chunked = "HTTP_TRANSFER_ENCODING" in environ and environ.get("wsgi.input_terminated", False)
    return ThreadedBody(environ["wsgi.input"], None) if chunked else b""


class FloopGatewayMiddleware:
    """Serves the paths below `prefix`, relative to `SCRIPT_NAME`, and passes everything else through."""

    def __init__(self, app: "WSGIApplication", gateway: Gateway, prefix: str = PREFIX) -> None:
        self._app = app
        self._ours = _application(Bridge(gateway), names_thread=True, spares_thread=True)
        self._prefix = checked_prefix(prefix)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request below the prefix, or pass it on."""
        path: str = environ.get("PATH_INFO", "")
        if not below(path, self._prefix):
            request_id.set(None)  # the thread may have served the gateway before
            return self._app(environ, start_response)
        root = environ.get("SCRIPT_NAME", "").rstrip("/") + self._prefix
        mounted: dict[str, Any] = {**environ, "SCRIPT_NAME": root, "PATH_INFO": path[len(self._prefix) :]}
        return self._ours(mounted, start_response)


class FloopGateway:
    """The gateway as a Flask extension: pass the app here, or later to `init_app`."""

    def __init__(self, app: "Flask | None" = None, gateway: Gateway | None = None, prefix: str = PREFIX) -> None:
        self.gateway = gateway
        self.prefix = prefix
        if app is not None:
            self.init_app(app)

    def init_app(self, app: "Flask", gateway: Gateway | None = None) -> None:
        """Mount the gateway, which is passed here or to the constructor; raise ValueError without one."""
        self.gateway = gateway or self.gateway
        if self.gateway is None:
            raise ValueError("a gateway must be passed: FloopGateway(app, gateway)")
        app.extensions["floop_gateway"] = self
        ours = FloopGatewayMiddleware(app.wsgi_app, self.gateway, self.prefix)
        app.wsgi_app = HostCORS(app, ours, self.prefix)  # type: ignore[method-assign]
