"""Rate limits for a Flask host's own routes: for every route, or for one.

limit = RateLimit(RequestLimiter("10/minute;200/hour"))
limit.init_app(app)                     # a before_request hook: all routes

@app.get("/search")
@limit                                  # a decorator: this one
def search(): ...
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from flask import Flask, Response, g, make_response, request
from flask.typing import ResponseReturnValue

from floop_gateway_core import Refusal, RequestLimiter
from floop_gateway_core.bridge import run
from floop_gateway_core.pieces.limiting import Verdict

__all__ = ["RateLimit", "remote_address"]

P = ParamSpec("P")
NAME = "_floop_gateway_verdict"


def remote_address() -> str | None:
    """Give the address of the peer of the request at hand."""
    return request.remote_addr


class RateLimit:
    """Limits what `key` gives a caller for (None: no limit); `refused` gives the host's own response."""

    def __init__(
        self,
        limiter: RequestLimiter,
        *,
        key: Callable[[], str | None] = remote_address,
        refused: Callable[[Refusal], ResponseReturnValue] | None = None,
    ) -> None:
        self._limiter = limiter
        self._key = key
        self._refused = refused or _envelope

    def init_app(self, app: Flask) -> None:
        app.before_request(self._before)
        app.after_request(_after)

    def __call__(self, view: Callable[P, ResponseReturnValue]) -> Callable[P, Response]:
        @wraps(view)
        def limited(*args: P.args, **kwargs: P.kwargs) -> Response:
            verdict = self._hit()
            if verdict.refusal is None:
                return _with_headers(make_response(view(*args, **kwargs)), verdict)
            return _with_headers(make_response(self._refused(verdict.refusal)), verdict)

        return limited

    def _hit(self) -> Verdict:
        caller = self._key()
        return Verdict() if caller is None else run(self._limiter.hit, caller)

    def _before(self) -> ResponseReturnValue | None:
        verdict = self._hit()
        setattr(g, NAME, verdict)
        return None if verdict.refusal is None else self._refused(verdict.refusal)


def _after(response: Response) -> Response:
    return _with_headers(response, getattr(g, NAME, Verdict()))


def _with_headers(response: Response, verdict: Verdict) -> Response:
    for name, value in verdict.headers:
        response.headers[name] = value
    return response


def _envelope(refusal: Refusal) -> ResponseReturnValue:
    return Response(refusal.body, refusal.status, list(refusal.headers), content_type="application/json")
