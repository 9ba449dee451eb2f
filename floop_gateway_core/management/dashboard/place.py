"""Where a request came in: the path that the dashboard is mounted at, and the address as the browser sees it."""

from typing import Any

from floop_gateway_core.wire.messages import GatewayRequest

__all__ = ["base_url", "is_https", "mount_of"]


def mount_of(request: GatewayRequest) -> str:
    """Return the path of the mount, without a slash at its end."""
    host: Any = request.host
    if isinstance(host, dict):
        found = host.get("SCRIPT_NAME") if "SCRIPT_NAME" in host else host.get("root_path", "")
    else:
        whole = str(getattr(host, "path", ""))
        found = whole.removesuffix(request.path)
    return str(found).rstrip("/")


def is_https(request: GatewayRequest) -> bool:
    """Return whether the request came over TLS, as far as the host knows."""
    host: Any = request.host
    if isinstance(host, dict):
        return "https" in (host.get("scheme"), host.get("wsgi.url_scheme"))
    return getattr(host, "scheme", "") == "https"


def base_url(request: GatewayRequest) -> str:
    """Return the address of the host itself."""
    host = next(iter(request.header("host")), "localhost")
    return f"{'https' if is_https(request) else 'http'}://{host}"
