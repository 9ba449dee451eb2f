"""A gateway on each kind of host, with or without its administration, as a real server on a free port."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from aiohttp import web
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import floop_gateway_aiohttp
import floop_gateway_asgi
import floop_gateway_flask
from floop_gateway_core import Gateway
from floop_gateway_core.management import Authorize
from tests.adapters import test_aiohttp, test_flask
from tests.serving import MOUNT, served

__all__ = ["ADMIN", "ADMIN_HOSTS", "HOSTS", "on_asgi"]

ADMIN = "/admin/ai"


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


def _admin_on_asgi(gateway: Gateway, authorize: Authorize) -> AbstractContextManager[str]:
    ours, admin = floop_gateway_asgi.FloopGateway(gateway), floop_gateway_asgi.FloopAdmin(gateway, authorize)
    return served(Starlette(routes=[Mount(MOUNT, ours), Mount(ADMIN, admin)]))


def _admin_on_flask(gateway: Gateway, authorize: Authorize) -> AbstractContextManager[str]:
    app = Flask("host")
    floop_gateway_flask.FloopGateway(app, gateway)
    admin = floop_gateway_flask.FloopAdmin(gateway, authorize)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {ADMIN: admin})  # type: ignore[method-assign]
    return test_flask.served(app)


def _admin_on_aiohttp(gateway: Gateway, authorize: Authorize) -> AbstractContextManager[str]:
    app = web.Application()
    app.add_subapp(ADMIN, floop_gateway_aiohttp.FloopAdmin(gateway, authorize))
    floop_gateway_aiohttp.setup(app, gateway)
    return test_aiohttp.served(app)


ADMIN_HOSTS: Mapping[str, Callable[[Gateway, Authorize], AbstractContextManager[str]]] = {
    "asgi": _admin_on_asgi,
    "flask": _admin_on_flask,
    "aiohttp": _admin_on_aiohttp,
}
