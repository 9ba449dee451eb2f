"""A host's own events as an SSE stream: frames, heartbeats, and an end of the source when the client has left.

`framed` is what the adapters' responses are made of. Events are `ServerSentEvent` values, or strings, which are the data
of unnamed ones. A source is any iterable or async iterable; a plain one is read in worker threads, for it may block.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TypeAlias

import anyio.to_thread

from floop_gateway_core.heartbeat import WithHeartbeats
from floop_gateway_core.wire.exchange import Headers
from floop_gateway_core.wire.sse import ServerSentEvent, SSEEncoder

__all__ = ["HEADERS", "Event", "Events", "framed", "last_event_id", "source_of"]

HEADERS: Headers = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store, no-transform"),
    ("X-Accel-Buffering", "no"),
)

Event: TypeAlias = ServerSentEvent | str
Events: TypeAlias = AsyncIterable[Event] | Iterable[Event]
Source: TypeAlias = Events | Callable[[str], Events]


def last_event_id(headers: Iterable[tuple[str, str]]) -> str:
    """Give the id of the last event that a client which comes back has seen; empty where it says none."""
    found = [value for name, value in headers if name.lower() == "last-event-id"]
    return found[-1] if found else ""


def source_of(source: Source, headers: Iterable[tuple[str, str]]) -> Events:
    """Give the events; a source that is a function is called with the request's `Last-Event-ID`."""
    return source(last_event_id(headers)) if callable(source) else source


@asynccontextmanager
async def framed(events: Events, heartbeat_s: float = 0.0) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the frames, one for each event, and a comment for each `heartbeat_s` of silence (0: none).

    Leaving the block closes the source, in the task that entered it.
    """
    encoder = SSEEncoder()
    async with aclosing(_frames(events, encoder)) as frames:
        if not heartbeat_s:
            yield frames
            return
        async with WithHeartbeats(frames, heartbeat_s, encoder.comment("keep-alive")) as beating:
            yield beating


async def _frames(events: Events, encoder: SSEEncoder) -> AsyncGenerator[bytes, None]:
    source = events if isinstance(events, AsyncIterable) else _in_threads(iter(events))
    try:
        async for event in source:
            yield encoder.frame(event)
    finally:
        if (close := getattr(source, "aclose", None)) is not None:
            await close()


async def _in_threads(events: Iterator[Event]) -> AsyncGenerator[Event, None]:
    done = object()
    try:
        while (event := await anyio.to_thread.run_sync(next, events, done)) is not done:
            yield event  # type: ignore[misc]
    finally:
        with suppress(ValueError):  # a generator that a thread is still in cannot be closed
            getattr(events, "close", lambda: None)()
