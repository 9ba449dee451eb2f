"""Rate limits for an aiohttp host's own routes.

    limit_requests(app, RequestLimiter("10/minute;200/hour"))      # every route

    @limited(RequestLimiter("5/minute", name="search"))            # this one
    async def search(request): ...

    @exempt                                                        # not limited by `limit_requests`
    async def healthz(request): ...

`limit_requests` is a middleware and a signal, because a stream's headers have been sent by the time its handler returns.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TypeAlias

from aiohttp import web

from floop_gateway_core import Refusal, RequestLimiter
from floop_gateway_core.policy.rate_headers import rate_headers

__all__ = ["exempt", "limit_requests", "limited", "remote_address"]

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

EXEMPT = "_floop_gateway_exempt"
WINDOWS = web.RequestKey("floop_gateway_rate_windows", tuple)


def remote_address(request: web.Request) -> str | None:
    """Return the address of the peer."""
    return request.remote


def limit_requests(
    app: web.Application,
    limiter: RequestLimiter,
    *,
    key: Callable[[web.Request], str | None] = remote_address,
    cost: Callable[[web.Request], int] = lambda _: 1,
    refused: Callable[[Refusal], web.StreamResponse] | None = None,
) -> None:
    """Limit each caller, named by `key(request)` (None: no limit); `refused` returns the host's own response.

    A request counts as `cost(request)` requests.
    """
    counted = _counter(limiter, key, cost, refused or _envelope)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if getattr(request.match_info.handler, EXEMPT, False):
            return await handler(request)
        return await counted(request, handler)

    app.middlewares.append(middleware)
    app.on_response_prepare.append(_add_headers)


def limited(
    limiter: RequestLimiter,
    *,
    key: Callable[[web.Request], str | None] = remote_address,
    cost: Callable[[web.Request], int] = lambda _: 1,
    refused: Callable[[Refusal], web.StreamResponse] | None = None,
) -> Callable[[Handler], Handler]:
    """Return a decorator that limits one handler; see `limit_requests`.

    A response that the handler has sent by itself, such as a stream, has the headers only below `limit_requests`.
    """
    counted = _counter(limiter, key, cost, refused or _envelope)

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def limited_handler(request: web.Request) -> web.StreamResponse:
            return await counted(request, handler)

        return limited_handler

    return decorate


def _counter(
    limiter: RequestLimiter,
    key: Callable[[web.Request], str | None],
    cost: Callable[[web.Request], int],
    refuse: Callable[[Refusal], web.StreamResponse],
) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """Return a function that counts a request, and answers it with the handler or a refusal."""

    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        caller = key(request)
        if caller is None:
            return await handler(request)
        verdict = await limiter.hit(caller, cost=cost(request))
        request[WINDOWS] = (*request.get(WINDOWS, ()), *verdict.windows)
        response = await handler(request) if verdict.refusal is None else refuse(verdict.refusal)
        if not response.prepared:
            await _add_headers(request, response)
        return response

    return counted


def exempt(handler: Handler) -> Handler:
    """Let a handler pass `limit_requests` without being counted, as its decorator."""
    setattr(handler, EXEMPT, True)
    return handler


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    windows = request.get(WINDOWS, ())
    for name, value in rate_headers(windows) if windows else ():
        response.headers[name] = value


def _envelope(refusal: Refusal) -> web.StreamResponse:
    return web.Response(
        body=refusal.body, status=refusal.status, headers=dict(refusal.headers), content_type="application/json"
    )
