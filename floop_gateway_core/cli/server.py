"""The uvicorn server of `serve` and `demo`: a graceful stop, and a time-out for request heads."""

import asyncio
import logging
import math
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from floop_gateway_core.config import ConfigError
from floop_gateway_core.errors import StoreUnavailable
from floop_gateway_core.gateway import Gateway

__all__ = ["server_of"]

log = logging.getLogger("floop_gateway")

HEAD_TIMEOUT_S = 10.0
"""How long a client may take to send a request's head; nginx allows 60 s; slow attacks send a byte every few seconds."""
SETTLE_MARGIN_S = 3.0
"""The part of the grace reserved for settling the answers that are ended; a third of the grace if that is less."""
MAX_REQUESTS = 10_000
"""Concurrent requests, above which the server itself answers 503."""


def server_of(app: Any, gateway: Gateway) -> uvicorn.Server:
    """Return a server for the application, which mounts the gateway."""
    grace_s = gateway.settings.serve.grace_s
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None if gateway.settings.log.format == "json" else uvicorn.config.LOGGING_CONFIG,
        http=_BoundedProtocol,
        limit_concurrency=MAX_REQUESTS,
        timeout_graceful_shutdown=math.ceil(grace_s),
    )
    return _Server(config, gateway, grace_s)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, gateway: Gateway, grace_s: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._open_s = grace_s - min(SETTLE_MARGIN_S, grace_s / 3)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):  # not on Windows
            self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        await super().startup(sockets)

    def _reload(self) -> None:
        self._reloading = asyncio.ensure_future(self._read_again())

    async def _read_again(self) -> None:
        try:
            await self._gateway.reload()
        except (ConfigError, StoreUnavailable) as error:
            log.error("reload failed, keeping the current configuration: %s", error)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_later)

    def _stop_later(self) -> None:
        if self._loop is not None:
            self._loop.call_later(self._open_s, self._gateway.stop)


class _BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is not complete in time."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self._head_timer is None and self._waits_for_head():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_late)

    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _too_late(self) -> None:
        self._head_timer = None
        if self._waits_for_head() and not self.transport.is_closing():
            self.transport.close()
