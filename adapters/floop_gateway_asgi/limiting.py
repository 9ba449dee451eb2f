"""Rate limits for an ASGI host's own routes: for all of them, or for one.

app.add_middleware(RateLimitMiddleware, limiter=RequestLimiter("10/minute;200/hour"))     # every route

search_limit = RateLimit(RequestLimiter("5/minute", name="search"))

@app.get("/search", dependencies=[Depends(search_limit)])                                 # FastAPI: a dependency
async def search(): ...

@search_limit.route                                                                       # Starlette: a decorator
async def search(request): ...
"""

from collections.abc import Callable, Collection, MutableMapping
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from floop_gateway_asgi.app import ASGIApp, Receive, Scope, Send
from floop_gateway_core import RateDecision, Refusal, RequestLimiter
from floop_gateway_core.policy.rate_headers import rate_headers

__all__ = ["RateLimit", "RateLimitExceeded", "RateLimitMiddleware", "client_address"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

WINDOWS = "floop_gateway.rate_windows"
OWN_WINDOWS = "floop_gateway.rate_windows_of_routes"
NO_ADDRESS = "no-address"


def client_address(scope: Scope) -> str:
    """Return the address of the peer. Behind a proxy it is the proxy's, unless the server reads its headers.

    Peers without an address, as on a Unix socket, share one key, so that the limit holds for all of them together.
    """
    client = scope.get("client")
    return NO_ADDRESS if client is None else str(client[0])


class RateLimitMiddleware:
    """Limits each caller identified by `key(scope)` (None: unlimited); `refused(refusal)` may return a custom response.

    A request counts as `cost(scope)` requests. The paths in `exempt` are not limited.
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: RequestLimiter,
        *,
        key: Callable[[Scope], str | None] = client_address,
        cost: Callable[[Scope], int] = lambda _: 1,
        exempt: Collection[str] = (),
        refused: Callable[[Refusal], ASGIApp] | None = None,
    ) -> None:
        self._cost = cost
        self._exempt = frozenset(exempt)
        self._app = app
        self._limiter = limiter
        self._key = key
        self._refused = refused or _envelope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a caller that is over its limit; otherwise pass the request on and add headers to its answer."""
        limited = scope["type"] == "http" and scope["path"] not in self._exempt
        caller = self._key(scope) if limited else None
        if caller is None:
            await self._app(scope, receive, send)
            return
        verdict = await self._limiter.hit(caller, cost=self._cost(scope))
        app = self._app if verdict.refusal is None else self._refused(verdict.refusal)
        around: list[tuple[str, RateDecision]] | None = scope.get(WINDOWS)
        if around is not None:  # another limiter wraps this one and reports both
            around += verdict.windows
            await app(scope, receive, send)
            return
        windows = [*verdict.windows]

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and windows:
                more = [(name.lower().encode(), value.encode()) for name, value in rate_headers(windows)]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        await app({**scope, WINDOWS: windows}, receive, with_headers)


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


def _envelope(refusal: Refusal) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        pairs = (("Content-Type", "application/json"), ("Content-Length", str(len(refusal.body))), *refusal.headers)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else refusal.body})

    return answer
