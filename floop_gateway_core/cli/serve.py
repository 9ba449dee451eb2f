"""`floop-gateway serve`: the gateway at its prefix, on uvicorn (extra `[serve]`)."""

import argparse
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from floop_gateway_core.cli.logs import show_log
from floop_gateway_core.config import Settings
from floop_gateway_core.errors import AdminError
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.management.health import readiness, store_answers
from floop_gateway_core.management.metrics import metrics_page

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute

    from floop_gateway_core.observability import Listener

__all__ = ["bound", "exporters", "host_app", "run", "run_server"]


def run(args: argparse.Namespace) -> int:
    """`serve`; return the exit code."""
    gateway = Gateway.from_config(args.config, listeners=exporters(Settings.find(args.config)[0]))
    anyio.run(_try_store, gateway)
    with bound(args.host, args.port) as listener:
        return run_server(host_app(gateway, args.mount), listener, gateway)


def exporters(settings: Settings) -> "list[Listener]":
    """Return what the configuration's public `/metrics` reads; without it, nothing is counted."""
    if not settings.metrics.public:
        return []
    try:
        from floop_gateway_core.observability.prometheus import Prometheus
    except ImportError as error:
        raise AdminError(f"{error.name} is not installed; pip install 'floop-gateway[prometheus]'") from error
    return [Prometheus()]


async def _try_store(gateway: Gateway) -> None:
    """Report a store that cannot be opened in one line, before the server starts."""
    await gateway.stores.setup()
    await gateway.aclose()  # the server runs another event loop


def bound(host: str, port: int) -> socket.socket:
    """Bind the port before anything else changes; raise `AdminError` if it is in use."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        hint = "; use another --port" if error.errno == errno.EADDRINUSE else ""
        raise AdminError(f"cannot listen on {host}:{port}: {reason}{hint}") from None


def host_app(gateway: Gateway, mount: str, routes: "Sequence[BaseRoute]" = ()) -> "Starlette":
    """Make the application, with `/healthz`, `/readyz` and, if public, `/metrics`.

    The gateway is started and closed with it.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route

        from floop_gateway_asgi import FloopGatewayMiddleware
    except ImportError as error:
        raise AdminError(f"{error.name} is not installed; pip install 'floop-gateway[serve]'") from error

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        yield

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"data": {"status": "ok"}})

    async def readyz(_: Request) -> JSONResponse:
        ready = not gateway.runtime.stopping and await store_answers(gateway)
        return JSONResponse({"data": readiness(gateway, ready=ready)}, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        page = await metrics_page(gateway, request.headers.get("accept", ""))
        if page is None:
            return Response(status_code=404)
        return Response(page[1], headers={"Content-Type": page[0]})

    # A middleware, because a `Mount` would redirect the bare path to the one with a slash. It also closes the gateway.
    middleware = [Middleware(FloopGatewayMiddleware, gateway=gateway, prefix=mount)]
    probes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    if gateway.settings.metrics.public:
        probes.append(Route("/metrics", metrics))
    return Starlette(routes=[*probes, *routes], middleware=middleware, lifespan=lifespan)


def run_server(app: "Starlette", listener: socket.socket, gateway: Gateway) -> int:
    """Serve until a signal asks to stop, and return the exit code.

    After the signal, open answers may continue until shortly before the end of `[serve] grace_s`; then they are ended.
    """
    try:
        from floop_gateway_core.cli.server import server_of
    except ImportError as error:
        raise AdminError(f"{error.name} is not installed; pip install 'floop-gateway[serve]'") from error
    _raise_limit_of_files()
    show_log(gateway.settings.log.format)
    server = server_of(app, gateway)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _raise_limit_of_files() -> None:
    """Raise the limit of open files to what the system allows: every stream takes two."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
