"""A gateway in memory over a scripted upstream, with one project: what a test of a host's app needs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Unpack

from floop_gateway_core.config.settings import Settings
from floop_gateway_core.gateway import Gateway, GatewayOptions
from floop_gateway_core.money import Credits
from floop_gateway_core.testing.answers import Answer, Vendor
from floop_gateway_core.testing.upstream import ScriptedUpstream

__all__ = ["ScriptedGateway", "scripted_gateway"]

ALIASES = ("fast", "smart", "reason")


@dataclass(frozen=True, slots=True)
class ScriptedGateway:
    """A running gateway, the upstream that all its aliases lead to, and the key of its project `shop`."""

    gateway: Gateway
    upstream: ScriptedUpstream
    key: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of an authenticated request."""
        return {"Authorization": f"Bearer {self.key}"}


@asynccontextmanager
async def scripted_gateway(
    *answers: Answer,
    vendor: Vendor = "openai",
    credits: Credits = "1000",
    settings: Mapping[str, object] | None = None,
    **options: Unpack[GatewayOptions],
) -> AsyncIterator[ScriptedGateway]:
    """Run a gateway over an upstream that gives these answers, one micro-credit a token.

    `settings` overrides sections of the configuration; `options` are the gateway's. The project has generous limits.
    """
    async with ScriptedUpstream(*answers) as upstream:
        deployment = {
            "provider": vendor,
            "model": "scripted",
            "base_url": upstream.base_url(vendor),
            "microcredits_per_token": 1,
        }
        value = {
            "store": "memory://",
            "plans": {"default": {"requests_per_minute": 10_000, "daily_tokens": 10**9}},
            "deployments": {"scripted": deployment},
            "routes": {alias: ["scripted"] for alias in ALIASES},
            **(settings or {}),
        }
        async with Gateway(Settings.read(value, source="settings"), **options) as gateway:
            new = await gateway.admin.create_project("shop", credits=credits)
            yield ScriptedGateway(gateway, upstream, new.key)
