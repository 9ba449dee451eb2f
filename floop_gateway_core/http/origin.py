"""Checks whether a browser's request comes from the host's own pages; a cookie alone must never decide that.

A browser says where a request comes from in `Sec-Fetch-Site`; older ones send an `Origin`. Programs send neither.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from floop_gateway_core.wire.messages import GatewayRequest

__all__ = ["is_same_site"]


def is_same_site(request: GatewayRequest, origins: Collection[str] = ()) -> bool:
    """Return whether the request comes from the host itself, from one of `origins`, or from no browser."""
    sites = request.header("sec-fetch-site")
    if sites:
        return all(site in ("same-origin", "none") for site in sites)
    sources = request.header("origin")
    hosts = request.header("host")
    return all(_is_ours(source, hosts, origins) for source in sources)


def _is_ours(source: str, hosts: list[str], origins: Collection[str]) -> bool:
    if source in origins:
        return True
    try:
        host = urlsplit(source).netloc
    except ValueError:
        return False
    return bool(host) and hosts == [host]
