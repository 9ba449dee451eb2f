"""Rate limits for all routes of an ASGI host; `route_limits` has those for a single one.

app.add_middleware(RateLimitMiddleware, limiter=RequestLimiter("10/minute;200/hour"))
"""

from collections.abc import Callable, Collection, MutableMapping
from typing import Any

from floop_gateway_asgi.app import ASGIApp, Receive, Scope, Send
from floop_gateway_core import RateDecision, Refusal, RequestLimiter
from floop_gateway_core.policy.rate_headers import rate_headers

__all__ = ["RateLimitMiddleware", "client_address"]

WINDOWS = "floop_gateway.rate_windows"
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


def _envelope(refusal: Refusal) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        pairs = (("Content-Type", "application/json"), ("Content-Length", str(len(refusal.body))), *refusal.headers)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else refusal.body})

    return answer
