"""A Flask host's own CORS around the gateway, so that browsers on other origins can call it.

Flask extensions such as flask-cors add their headers in `after_request` functions, which run for Flask's responses only.
For a request with an `Origin`, these functions are called on an empty response, and the CORS headers that they add are
copied to the gateway's.
"""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from floop_gateway_core.hosting.prefix import below

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask

__all__ = ["HostCORS"]

log = logging.getLogger("floop_gateway")

ALLOW_ORIGIN = "access-control-allow-origin"
COPIED = "access-control-"
"""The name prefix of the headers that are copied; `Vary` is copied as well."""


class HostCORS:
    """Passes every request to `application`; below `prefix`, adds the CORS headers of `app` and answers preflights.

    A preflight that the host does not allow is answered by `application`, as are all other requests.
    """

    def __init__(self, app: "Flask", application: "WSGIApplication", prefix: str) -> None:
        self._app = app
        self._application = application
        self._prefix = prefix

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        if "HTTP_ORIGIN" not in environ or not below(environ.get("PATH_INFO", ""), self._prefix):
            return self._application(environ, start_response)
        cors = self._headers(environ)
        allowed = any(name.lower() == ALLOW_ORIGIN for name, _ in cors)
        if allowed and environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            start_response("204 No Content", cors)
            return []

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, headers + cors, *exc_info)

        return self._application(environ, start)

    def _headers(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        """Return the CORS headers that the host's `after_request` functions add to an empty response."""
        try:
            with self._app.request_context(environ):
                response = self._app.process_response(self._app.response_class())
        except Exception:
            log.exception("the host's after_request functions failed; the answer has no CORS headers")
            return []
        return [
            (name, value)
            for name, value in response.headers.items()
            if name.lower().startswith(COPIED) or name.lower() == "vary"
        ]
