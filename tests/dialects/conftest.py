"""A gateway with all dialects on each host, for the vendors' own SDKs."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from floop_gateway_core import Gateway
from tests.hosts import HOSTS, on_asgi
from tests.serving import MOUNT, gateway_of


class Site:
    """A running host, and the key of its project `p`."""

    def __init__(self, gateway: Gateway, key: str, url: str) -> None:
        self.gateway = gateway
        self.key = key
        self.url = url + MOUNT


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


@pytest.fixture(params=HOSTS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    gateway, key = gateway_with()
    with HOSTS[request.param](gateway) as url:
        yield Site(gateway, key, url)


@pytest.fixture
def make_site() -> Iterator[Any]:
    """Return a function that serves a gateway of other settings, on one host."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Site:
            gateway, key = gateway_with(**settings)
            return Site(gateway, key, stack.enter_context(on_asgi(gateway)))

        yield make
