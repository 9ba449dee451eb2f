"""A host's own events as an SSE response of aiohttp.

async def route(request): return await event_stream(request, ticks(), heartbeat_s=15)
"""

import math
from collections.abc import Awaitable, Mapping
from functools import partial

import anyio
from aiohttp import ClientConnectionError, web

from floop_gateway_aiohttp.app import cancel_on_disconnect
from floop_gateway_core import ClientDisconnected
from floop_gateway_core.concurrency.background import BackgroundTask, Block
from floop_gateway_core.hosting.event_stream import Source, framed, merged_headers, source_of
from floop_gateway_core.hosting.stopping import stop_event_streams, wait_for_stop

__all__ = ["end_event_streams", "event_stream"]


async def event_stream(
    request: web.Request,
    events: Source,
    *,
    heartbeat_s: float = 0.0,
    send_timeout_s: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Stream events; a function as `events` is called with the request's `Last-Event-ID` ("" if there is none).

    A client that leaves cancels the source, even if the host has not set `handler_cancellation`. One that takes longer
    than `send_timeout_s` for an event is cut off (0: no limit). An `HTTPException` that the source raises at its beginning
    is the answer. So that endless streams end with the server: `app.on_shutdown.append(end_event_streams)`.
    """
    response = web.StreamResponse(headers=merged_headers(headers))
    source = source_of(events, request.headers.items())
    async with (
        BackgroundTask(_cancel_at_stop),
        BackgroundTask(partial(cancel_on_disconnect, request)),
        framed(source, heartbeat_s) as frames,
    ):
        try:
            await _to_client(response.prepare(request))
            if request.method != "HEAD":
                async for frame in frames:
                    with anyio.fail_after(send_timeout_s or math.inf):
                        await _to_client(response.write(frame))
            await _to_client(response.write_eof())
        except ClientDisconnected:
            pass
    return response


async def end_event_streams(app: web.Application) -> None:
    """End all open event streams of the process; for `app.on_shutdown`."""
    stop_event_streams()


async def _cancel_at_stop(stream: Block) -> None:
    await wait_for_stop()
    stream.cancel()


async def _to_client(sending: Awaitable[object]) -> None:
    """Write; distinguish a client that has gone from an error of the source."""
    try:
        await sending
    except (OSError, ClientConnectionError):
        raise ClientDisconnected from None
