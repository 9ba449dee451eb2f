"""A gateway on each kind of host, as a real server on a free port."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from aiohttp import web
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount

import floop_gateway_aiohttp
import floop_gateway_asgi
import floop_gateway_flask
from floop_gateway_core import Gateway
from tests.adapters import test_aiohttp, test_flask
from tests.serving import MOUNT, served

__all__ = ["HOSTS", "on_asgi"]


def on_asgi(gateway: Gateway) -> AbstractContextManager[str]:
    """Serve a gateway on Starlette, and return the server's address."""
    return served(Starlette(routes=[Mount(MOUNT, floop_gateway_asgi.FloopGateway(gateway))]))


def _on_flask(gateway: Gateway) -> AbstractContextManager[str]:
    app = Flask("host")
    floop_gateway_flask.FloopGateway(app, gateway)
    return test_flask.served(app)


def _on_aiohttp(gateway: Gateway) -> AbstractContextManager[str]:
    app = web.Application()
    floop_gateway_aiohttp.setup(app, gateway)
    return test_aiohttp.served(app)


HOSTS: Mapping[str, Callable[[Gateway], AbstractContextManager[str]]] = {
    "asgi": on_asgi,
    "flask": _on_flask,
    "aiohttp": _on_aiohttp,
}
