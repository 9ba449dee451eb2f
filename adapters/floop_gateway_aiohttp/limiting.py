"""Rate limits for an aiohttp host's own routes.

    limit_requests(app, RequestLimiter("10/minute;200/hour"))

It is a middleware and a signal, because a stream's headers have been sent by the time its handler returns.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from floop_gateway_core import Refusal, RequestLimiter
from floop_gateway_core.policy.rate_headers import rate_headers

__all__ = ["limit_requests", "remote_address"]

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

WINDOWS = web.RequestKey("floop_gateway_rate_windows", tuple)


def remote_address(request: web.Request) -> str | None:
    """Return the address of the peer."""
    return request.remote


def limit_requests(
    app: web.Application,
    limiter: RequestLimiter,
    *,
    key: Callable[[web.Request], str | None] = remote_address,
    refused: Callable[[Refusal], web.StreamResponse] | None = None,
) -> None:
    """Limit each caller, named by `key(request)` (None: no limit); `refused` returns the host's own response."""
    refuse = refused or _envelope

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        caller = key(request)
        if caller is None:
            return await handler(request)
        verdict = await limiter.hit(caller)
        request[WINDOWS] = (*request.get(WINDOWS, ()), *verdict.windows)
        return await handler(request) if verdict.refusal is None else refuse(verdict.refusal)

    app.middlewares.append(middleware)
    app.on_response_prepare.append(_add_headers)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    windows = request.get(WINDOWS, ())
    for name, value in rate_headers(windows) if windows else ():
        response.headers[name] = value


def _envelope(refusal: Refusal) -> web.StreamResponse:
    return web.Response(
        body=refusal.body, status=refusal.status, headers=dict(refusal.headers), content_type="application/json"
    )
