"""The administration over HTTP, as an application that every adapter mounts like the gateway itself.

    login free?  →  authorize  →  path and method  →  cross-site?  →  query and body  →  handler  →  envelope

Nothing but `/healthz`, `/readyz` and public metrics is reached without `authorize`, which gets the host's own request.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from decimal import Decimal
from typing import Any, TypeAlias
from urllib.parse import unquote

import msgspec
from pydantic import BaseModel

from floop_gateway_core.admin import Operator
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.http.body import read_body
from floop_gateway_core.http.login import ask_host
from floop_gateway_core.http.origin import is_same_site
from floop_gateway_core.management.desk import Desk
from floop_gateway_core.management.faults import Refused, refused
from floop_gateway_core.management.handlers import Call, Page, Raw
from floop_gateway_core.management.health import readiness, store_answers
from floop_gateway_core.management.metrics import metrics_page
from floop_gateway_core.management.openapi import document
from floop_gateway_core.management.query import Query
from floop_gateway_core.management.routes import ROUTES, Route
from floop_gateway_core.wire.messages import CLIENT_GONE_STATUS, ClientDisconnected, GatewayRequest, Headers, Reply

__all__ = ["AdminApplication", "Authorize"]

Authorize: TypeAlias = Callable[[Any], "Operator | Awaitable[Operator | None] | None"]
BODY_BYTES = 64 * 1024
BODY_S = 10.0
SAFE_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
UNAUTHORIZED = Refusal(ErrorCode.UNAUTHORIZED, "Log in as an operator.")
METRICS = "/metrics"
NO_METRICS = Refusal(ErrorCode.NOT_FOUND, "The gateway has no exporter; pass listeners=[Prometheus()] to it.")
CROSS_SITE = Refusal(ErrorCode.FORBIDDEN, "Requests from another site may not make changes.")


class AdminApplication:
    """`authorize(request)` returns the `Operator` of a host's own request, or None; sync or async. It must be given."""

    def __init__(self, gateway: Gateway, authorize: Authorize) -> None:
        if not callable(authorize):
            raise TypeError(f"authorize must be a callable, got {type(authorize).__name__}")
        self.gateway = gateway
        self._authorize = authorize
        self._document: bytes | None = None

    async def start(self) -> None:
        """Do nothing: the gateway is started by the application that serves it."""

    async def aclose(self) -> None:
        """Do nothing: the gateway is closed by the application that serves it."""

    @asynccontextmanager
    async def open(self, request: GatewayRequest) -> AsyncGenerator[Reply, None]:
        """Answer one request."""
        async with AsyncExitStack() as stack:
            try:
                reply = await self._answer(request)
            except ClientDisconnected:
                reply = Reply(CLIENT_GONE_STATUS, [], b"")
            except Exception as error:
                reply = _error(refused(error))
            if not isinstance(reply.body, bytes):
                body = reply.body
                if isinstance(body, AsyncGenerator):
                    await stack.enter_async_context(aclosing(body))
            yield reply

    async def _answer(self, request: GatewayRequest) -> Reply:
        if request.path in ("/healthz", "/readyz"):
            return await self._probe(request)
        if request.path == METRICS and self.gateway.settings.metrics.public:
            return await self._metrics(request)
        operator = await ask_host(self._authorize, request.host)
        if operator is None:
            raise Refused(UNAUTHORIZED)
        if not isinstance(operator, Operator):
            raise TypeError(f"authorize must return an Operator or None, got {type(operator).__name__}")
        if request.path == METRICS:
            Desk(self.gateway, operator).must_see_all()
            return await self._metrics(request)
        if request.path == "/openapi.json":
            return await self._described(request)
        route, path = _routed(request)
        if request.method != "GET":
            self._check_write(request)
        query = Query(request.query, frozenset(route.query))
        body = None if route.takes is None else await _read(request, route.takes)
        result = await route.handler(Call(Desk(self.gateway, operator), path, query, body))
        return _reply(route, result)

    async def _probe(self, request: GatewayRequest) -> Reply:
        """Answer the liveness and readiness probes."""
        if request.method not in ("GET", "HEAD"):
            raise Refused(_not_allowed("GET, HEAD"))
        if request.path == "/healthz":
            return _json(200, {"data": {"status": "ok"}})
        ready = not self.gateway.runtime.stopping and await store_answers(self.gateway)
        return _json(200 if ready else 503, {"data": readiness(self.gateway, ready=ready)})

    async def _metrics(self, request: GatewayRequest) -> Reply:
        """Answer with Prometheus' text."""
        if request.method != "GET":
            raise Refused(_not_allowed("GET"))
        page = await metrics_page(self.gateway, ", ".join(request.header("accept")))
        if page is None:
            raise Refused(NO_METRICS)
        content_type, body = page
        return Reply(200, [("Content-Type", content_type), _length(body), *SAFE_HEADERS], body)

    async def _described(self, request: GatewayRequest) -> Reply:
        if request.method != "GET":
            raise Refused(_not_allowed("GET"))
        if self._document is None:
            self._document = msgspec.json.encode(document(ROUTES))
        return Reply(
            200, [("Content-Type", "application/json"), _length(self._document), *SAFE_HEADERS], self._document
        )

    def _check_write(self, request: GatewayRequest) -> None:
        """A page of another site can send a browser's cookies, but neither this content type nor this origin."""
        if not is_same_site(request, self.gateway.settings.admin.origins):
            raise Refused(CROSS_SITE)
        kinds = request.header("content-type")
        if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != "application/json":
            message = "Send Content-Type: application/json."
            raise Refused(Refusal(ErrorCode.VALIDATION_ERROR, message), 415)


def _routed(request: GatewayRequest) -> tuple[Route, dict[str, str]]:
    allowed: list[str] = []
    for route in ROUTES:
        found = route.pattern.fullmatch(request.path)
        if found is None:
            continue
        if route.method == request.method:
            return route, {name: unquote(value) for name, value in found.groupdict().items()}
        allowed.append(route.method)
    if allowed:
        raise Refused(_not_allowed(", ".join(allowed)))
    raise Refused(Refusal(ErrorCode.NOT_FOUND, "Unknown path; see /openapi.json."))


def _not_allowed(allow: str) -> Refusal:
    return Refusal(ErrorCode.METHOD_NOT_ALLOWED, f"This path only accepts {allow}.", extra_headers=(("Allow", allow),))


async def _read(request: GatewayRequest, model: type[BaseModel]) -> BaseModel:
    """Parse a JSON object, keeping numbers exact, and validate it against its model."""
    body = await read_body(request, cap_bytes=BODY_BYTES, limit_s=BODY_S)
    if isinstance(body, Refusal):
        raise Refused(body)
    try:
        value = json.loads(body or b"{}", parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused(Refusal(ErrorCode.INVALID_BODY, "The body must be a JSON object in UTF-8."))
    return model.model_validate(value)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _reply(route: Route, result: object) -> Reply:
    match result:
        case None:
            return Reply(route.status, [("Content-Length", "0"), *SAFE_HEADERS], b"")
        case Page(items, next):
            return _json(route.status, {"data": items, "next": next})
        case Raw(content_type, chunks):
            return Reply(200, [("Content-Type", content_type), *SAFE_HEADERS], chunks)
        case _:
            return _json(route.status, {"data": result})


_encoder = msgspec.json.Encoder(decimal_format="number")


def _json(status: int, value: object, headers: Headers = ()) -> Reply:
    body = _encoder.encode(value)
    return Reply(status, [("Content-Type", "application/json"), _length(body), *headers, *SAFE_HEADERS], body)


def _length(body: bytes) -> tuple[str, str]:
    return "Content-Length", str(len(body))


def _error(fault: Refused) -> Reply:
    body, refusal = fault.refusal.body, fault.refusal
    headers = [("Content-Type", "application/json"), _length(body), *refusal.headers, *SAFE_HEADERS]
    return Reply(fault.status, headers, body)
