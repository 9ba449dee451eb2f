"""A host's own events as an SSE response of aiohttp.

async def route(request): return await event_stream(request, ticks(), heartbeat_s=15)
"""

from collections.abc import Mapping
from contextlib import suppress

import anyio
from aiohttp import ClientConnectionError, web

from floop_gateway_aiohttp.app import cancel_on_disconnect
from floop_gateway_core.pieces.streaming import HEADERS, Source, framed, source_of

__all__ = ["event_stream"]


async def event_stream(
    request: web.Request, events: Source, *, heartbeat_s: float = 0.0, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Stream events; a function as `events` is called with the request's `Last-Event-ID` ("" where there is none).

    A client that leaves cancels the source, also where the host has no `handler_cancellation`.
    """
    response = web.StreamResponse(headers={**dict(HEADERS), **(headers or {})})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_on_disconnect, request, tasks.cancel_scope)
        with suppress(OSError, ClientConnectionError):  # the client has gone
            await response.prepare(request)
            async with framed(source_of(events, request.headers.items()), heartbeat_s) as frames:
                async for frame in frames:
                    await response.write(frame)
            await response.write_eof()
        tasks.cancel_scope.cancel()
    return response
