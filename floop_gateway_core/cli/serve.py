"""Serving: a Starlette application with the gateway mounted, on uvicorn (extra `[serve]`)."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from floop_gateway_core.admin import AdminError
from floop_gateway_core.gateway import Gateway

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["host_app", "run", "run_server"]


def run(args: argparse.Namespace) -> int:
    gateway = Gateway.from_config(args.config)
    run_server(host_app(gateway, args.mount), host=args.host, port=args.port)
    return 0


def host_app(gateway: Gateway, mount: str) -> "Starlette":
    """Make the application; the gateway is started and closed with it."""
    try:
        from starlette.applications import Starlette
        from starlette.routing import Mount

        from floop_gateway_asgi import FloopGateway
    except ImportError as error:
        raise AdminError(f"{error.name} is not installed; pip install 'floop-gateway[serve]'") from error

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with gateway:
            yield

    return Starlette(routes=[Mount(mount, FloopGateway(gateway))], lifespan=lifespan)


def run_server(app: "Starlette", *, host: str, port: int) -> None:
    try:
        import uvicorn
    except ImportError as error:
        raise AdminError("uvicorn is not installed; pip install 'floop-gateway[serve]'") from error
    uvicorn.run(app, host=host, port=port, access_log=False)
