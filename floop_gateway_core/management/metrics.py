"""The page of the gateway's exporter, which is one of its listeners."""

from typing import Protocol, runtime_checkable

import anyio.to_thread

from floop_gateway_core.gateway import Gateway

__all__ = ["metrics_page"]


@runtime_checkable
class Exporter(Protocol):
    """A listener whose metrics can be read."""

    def page(self, accept: str = "") -> tuple[str, bytes]:
        """Return the content type, chosen by an `Accept` header, and the text."""


async def metrics_page(gateway: Gateway, accept: str) -> tuple[str, bytes] | None:
    """Return the page of the first exporter among the listeners; None if there is none."""
    for listener in gateway.runtime.listeners:
        if isinstance(listener, Exporter):
            return await anyio.to_thread.run_sync(listener.page, accept)  # with several processes it reads files
    return None
