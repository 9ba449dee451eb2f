"""Rate limits for a Flask host's own routes: for every route, or for one.

limit = RateLimit(RequestLimiter("10/minute;200/hour"))
limit.init_app(app)                     # a before_request hook: all routes

@app.get("/search")
@limit                                  # a decorator: this one
def search(): ...

@app.get("/healthz")
@limit.exempt                           # not limited by the hook
def healthz(): ...
"""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from flask import Flask, Response, current_app, g, make_response, request
from flask.typing import ResponseReturnValue

from floop_gateway_core import Refusal, RequestLimiter
from floop_gateway_core.hosting.bridge import run
from floop_gateway_core.policy.rate_headers import rate_headers
from floop_gateway_core.toolkit.limiting import LimitResult

__all__ = ["RateLimit", "remote_address"]

P = ParamSpec("P")
View = TypeVar("View", bound=Callable[..., Any])
VERDICTS = "_floop_gateway_verdicts"


def remote_address() -> str | None:
    """Return the peer's address of the current request."""
    return request.remote_addr


class RateLimit:
    """Limits each caller, named by `key()` (None: no limit); `refused` returns the host's own response.

    A request counts as `cost()` requests.
    """

    def __init__(
        self,
        limiter: RequestLimiter,
        *,
        key: Callable[[], str | None] = remote_address,
        cost: Callable[[], int] = lambda: 1,
        refused: Callable[[Refusal], ResponseReturnValue] | None = None,
    ) -> None:
        self._limiter = limiter
        self._key = key
        self._cost = cost
        self._exempt: set[Callable[..., Any]] = set()
        self._refused = refused or _envelope

    def init_app(self, app: Flask) -> None:
        """Limit every route of an app."""
        app.before_request(self._before_any)
        app.after_request(_with_headers)

    def __call__(
        self, view: Callable[P, ResponseReturnValue | Awaitable[ResponseReturnValue]]
    ) -> Callable[P, Response]:
        """Limit one view, as its decorator."""

        @wraps(view)
        def limited(*args: P.args, **kwargs: P.kwargs) -> Response:
            refused = self._before()
            if refused is None:
                refused = current_app.ensure_sync(view)(*args, **kwargs)
            return _with_headers(make_response(refused))

        return limited

    def exempt(self, view: View) -> View:
        """Let a view pass the hook of `init_app` without being counted, as its decorator."""
        self._exempt.add(view)
        return view

    def _before_any(self) -> ResponseReturnValue | None:
        view = current_app.view_functions.get(request.endpoint or "")
        return None if view in self._exempt else self._before()

    def _before(self) -> ResponseReturnValue | None:
        """Count the request only once, even if this limiter wraps it several times; return the refusal, if any."""
        verdicts: dict[RateLimit, LimitResult] = g.setdefault(VERDICTS, {})
        if self not in verdicts:
            caller = self._key()
            verdicts[self] = (
                LimitResult() if caller is None else run(partial(self._limiter.hit, cost=self._cost()), caller)
            )
        refusal = verdicts[self].refusal
        return None if refusal is None else self._refused(refusal)


def _with_headers(response: Response) -> Response:
    """Return the headers for all limiters around the request."""
    verdicts: dict[RateLimit, LimitResult] = g.get(VERDICTS, {})
    windows = [window for verdict in verdicts.values() for window in verdict.windows]
    for name, value in rate_headers(windows) if windows else ():
        response.headers[name] = value
    return response


def _envelope(refusal: Refusal) -> ResponseReturnValue:
    return Response(refusal.body, refusal.status, list(refusal.headers), content_type="application/json")
