"""A gateway with all dialects on each host, for the vendors' own SDKs."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount

import floop_gateway_aiohttp
import floop_gateway_asgi
import floop_gateway_flask
from floop_gateway_core import Gateway
from tests.adapters import test_aiohttp, test_flask
from tests.serving import MOUNT, gateway_of, served


class Site:
    """A running host, and the key of its project `p`."""

    def __init__(self, gateway: Gateway, key: str, url: str) -> None:
        self.gateway = gateway
        self.key = key
        self.url = url + MOUNT


def _asgi(gateway: Gateway) -> Any:
    return served(Starlette(routes=[Mount(MOUNT, floop_gateway_asgi.FloopGateway(gateway))]))


def _flask(gateway: Gateway) -> Any:
    app = Flask("host")
    floop_gateway_flask.FloopGateway(app, gateway)
    return test_flask.served(app)


def _aiohttp(gateway: Gateway) -> Any:
    app = web.Application()
    floop_gateway_aiohttp.setup(app, gateway)
    return test_aiohttp.served(app)


def gateway_with(**settings: Any) -> tuple[Gateway, str]:
    """Return a gateway over `echo` that maps the names of some models, and a key."""
    return gateway_of(
        **{
            "deployments": {"echo": {"provider": "echo", "microcredits_per_token": 7}},
            "routes": {alias: ["echo"] for alias in ("fast", "smart", "reason")},
            "dialects": {"models": {"claude-*haiku*": "fast", "claude-*": "smart", "gpt-5": "smart"}},
            **settings,
        }
    )


@pytest.fixture(params=[_asgi, _flask, _aiohttp], ids=["asgi", "flask", "aiohttp"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    gateway, key = gateway_with()
    with request.param(gateway) as url:
        yield Site(gateway, key, url)


@pytest.fixture
def make_site() -> Iterator[Any]:
    """Return a function that serves a gateway of other settings, on one host."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(**settings: Any) -> Site:
            gateway, key = gateway_with(**settings)
            return Site(gateway, key, stack.enter_context(_asgi(gateway)))

        yield make
