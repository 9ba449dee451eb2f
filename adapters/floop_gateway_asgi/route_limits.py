"""Rate limits for a single route of FastAPI's or Starlette's.

search_limit = RateLimit(RequestLimiter("5/minute", name="search"))

@app.get("/search", dependencies=[Depends(search_limit)])     # FastAPI: a dependency
async def search(): ...

@search_limit.route                                           # Starlette: a decorator
async def search(request): ...
"""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from floop_gateway_asgi.limiting import WINDOWS, client_address
from floop_gateway_core import RateDecision, Refusal, RequestLimiter
from floop_gateway_core.policy.rate_headers import rate_headers

__all__ = ["RateLimit", "RateLimitExceeded"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

OWN_WINDOWS = "floop_gateway.rate_windows_of_routes"


class RateLimitExceeded(HTTPException):
    """A request over its limit, raised by a dependency: a handler of the host's may answer it from `refusal`.

    Without one, FastAPI and Starlette answer with the refusal's status and headers.
    """

    def __init__(self, refusal: Refusal, headers: dict[str, str]) -> None:
        detail: Any = {"code": refusal.code.value, "message": refusal.message}  # FastAPI writes any JSON
        super().__init__(refusal.status, detail, headers)
        self.refusal = refusal


class RateLimit:
    """Limits one route: as a FastAPI dependency, or as a decorator of an endpoint that takes the request (`route`).

    `key(request)` names the caller (None: unlimited), `cost(request)` is how many requests one counts as.
    """

    def __init__(
        self,
        limiter: RequestLimiter,
        *,
        key: Callable[[Request], str | None] = lambda request: client_address(request.scope),
        cost: Callable[[Request], int] = lambda _: 1,
    ) -> None:
        self._limiter = limiter
        self._key = key
        self._cost = cost

    async def __call__(self, request: Request, response: Response) -> None:
        """Count the request; raise `RateLimitExceeded` if it is over the limit."""
        refusal, headers = await self._hit(request)
        response.headers.update(headers)
        if refusal is not None:
            raise RateLimitExceeded(refusal, {**headers, **dict(refusal.headers)})

    def route(self, endpoint: Endpoint) -> Endpoint:
        """Limit one endpoint. One of its arguments must be the request."""

        @wraps(endpoint)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            request = next((one for one in (*args, *kwargs.values()) if isinstance(one, Request)), None)
            if request is None:
                raise TypeError(f"{endpoint.__name__} must take the request to be limited")
            refusal, headers = await self._hit(request)
            if refusal is not None:
                named = {**headers, **dict(refusal.headers)}
                return Response(refusal.body, refusal.status, named, media_type="application/json")
            if iscoroutinefunction(endpoint):
                answer = await endpoint(*args, **kwargs)
            else:
                answer = await run_in_threadpool(endpoint, *args, **kwargs)
            if isinstance(answer, Response):
                answer.headers.update(headers)
            return answer

        return limited  # type: ignore[return-value]

    async def _hit(self, request: Request) -> tuple[Refusal | None, dict[str, str]]:
        """Return the refusal, and the headers to add: none if a middleware around the route adds them for all limits."""
        caller = self._key(request)
        if caller is None:
            return None, {}
        verdict = await self._limiter.hit(caller, cost=self._cost(request))
        around: list[tuple[str, RateDecision]] | None = request.scope.get(WINDOWS)
        if around is not None:
            around += verdict.windows
            return verdict.refusal, {}
        own = request.scope.setdefault(OWN_WINDOWS, [])
        own += verdict.windows
        return verdict.refusal, dict(rate_headers(own) if own else ())
