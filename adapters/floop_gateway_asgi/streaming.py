"""A host's own events as an SSE response of Starlette and FastAPI, which any ASGI host can call.

async def ticks():
    yield ServerSentEvent("1", id="1")

@app.get("/ticks")
async def route(): return EventStreamResponse(ticks(), heartbeat_s=15)
"""

import math
from collections.abc import Mapping

import anyio
from starlette.background import BackgroundTask as BackgroundTasks
from starlette.responses import Response

from floop_gateway_asgi.app import Receive, Scope, Send, disconnected
from floop_gateway_core.concurrency.background import BackgroundTask, Block
from floop_gateway_core.hosting.event_stream import Source, framed, merged_headers, source_of
from floop_gateway_core.hosting.stopping import wait_for_stop

__all__ = ["EventStreamResponse"]


class EventStreamResponse(Response):
    """Streams events. A function as `events` is called with the request's `Last-Event-ID` ("" if there is none).

    A client that leaves cancels the source immediately. One that takes longer than `send_timeout_s` for an event is cut off
    (0: no limit). An `HTTPException` that the source raises at its beginning is the answer. `background` runs after the
    stream, as in Starlette; FastAPI sets it for its `BackgroundTasks`.
    """

    def __init__(
        self,
        events: Source,
        *,
        heartbeat_s: float = 0.0,
        send_timeout_s: float = 0.0,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTasks | None = None,
    ) -> None:
        self._events = events
        self._heartbeat_s = heartbeat_s
        self._send_timeout_s = send_timeout_s or math.inf
        self.background = background
        self.status_code = status_code
        self.init_headers(merged_headers(headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends or the client leaves."""
        asked = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        source = source_of(self._events, asked)
        watch = _Watch(receive)
        async with BackgroundTask(watch.cancel), framed(source, self._heartbeat_s) as frames:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async for frame in frames:
                    with anyio.fail_after(self._send_timeout_s):
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        if watch.server_stops:
            await send({"type": "http.response.body", "body": b""})
        if self.background is not None:
            await self.background()


class _Watch:
    """Ends the stream when the client leaves or the server stops."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.server_stops = False

    async def cancel(self, stream: Block) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_at_stop, stream)
            await disconnected(self._receive)
            stream.cancel()

    async def _cancel_at_stop(self, stream: Block) -> None:
        await wait_for_stop()
        self.server_stops = True
        stream.cancel()
