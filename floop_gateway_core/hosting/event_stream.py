"""A host's own events as an SSE stream: frames, heartbeats, and closing the source when the client has left.

`framed` is what the adapters' responses are made of. Events are `ServerSentEvent` values; strings, which are the data of
unnamed ones; or dictionaries with `data`, `event`, `id`, `retry` and `comment`, whose `data` is sent as JSON unless it is a
string. A source is any iterable or async iterable; a plain one is read in worker threads because it may block.
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, TypeAlias, cast

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from floop_gateway_core.concurrency.heartbeat import WithHeartbeats
from floop_gateway_core.wire.sse import STREAM_HEADERS, ServerSentEvent, SSEEncoder

__all__ = ["Event", "Events", "frame_of", "framed", "last_event_id", "merged_headers", "source_of"]

MAX_SILENT_SOURCES = 1000
FIRST_EVENT_S = 0.25
"""How long an answer's head waits for the first event: a source that fails by then is answered with its error's status."""
MEMBERS = frozenset({"data", "event", "id", "retry", "comment"})
_DONE = object()

Event: TypeAlias = ServerSentEvent | str | Mapping[str, Any]
Events: TypeAlias = AsyncIterable[Event] | Iterable[Event]
Source: TypeAlias = Events | Callable[[str], Events]


def last_event_id(headers: Iterable[tuple[str, str]]) -> str:
    """Return the `Last-Event-ID` of a client that reconnects, or an empty string."""
    found = [value for name, value in headers if name.lower() == "last-event-id"]
    return found[-1] if found else ""


def source_of(source: Source, headers: Iterable[tuple[str, str]]) -> Events:
    """Return the events; if the source is a function, call it with the request's `Last-Event-ID`."""
    return source(last_event_id(headers)) if callable(source) else source


def merged_headers(own: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of a stream; the host's own override them, whatever their letter case."""
    names = {name.lower() for name in own or ()}
    kept = {name: value for name, value in STREAM_HEADERS if name.lower() not in names}
    return {**kept, **(own or {})}


def frame_of(event: Event, encoder: SSEEncoder) -> bytes:
    """Return the frame of an event; raise ValueError for a dictionary with other members.

    >>> frame_of({"data": {"n": 1}, "event": "tick"}, SSEEncoder())
    b'event: tick\\ndata: {"n": 1}\\n\\n'
    """
    if not isinstance(event, Mapping):
        return encoder.frame(event)
    if unknown := event.keys() - MEMBERS:
        raise ValueError(f"an event may have {', '.join(sorted(MEMBERS))}, got {sorted(unknown)[0]!r}")
    comment = b"" if event.get("comment") is None else encoder.comment(str(event["comment"]))[:-1]
    if "data" not in event:
        return comment + b"\n"
    data = event["data"]
    id = None if event.get("id") is None else str(event["id"])
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return comment + encoder.encode(text, event=event.get("event"), id=id, retry=event.get("retry"))


@asynccontextmanager
async def framed(events: Events, heartbeat_s: float = 0.0) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield the frames, one for each event, and a comment after each `heartbeat_s` of silence (0: none).

    Entering waits up to `FIRST_EVENT_S` for the first event, and raises what the source raises by then. The source is read
    and closed in one task: it may hold task groups and cancel scopes across its events. Leaving the block closes it.
    """
    encoder = SSEEncoder()
    source = aiter(events) if isinstance(events, AsyncIterable) else _Threaded(iter(events))
    async with WithHeartbeats(_frames(source, encoder), FIRST_EVENT_S, b"") as beating:
        first = await anext(beating, None)
        beating.every_s, beating.beat = heartbeat_s or math.inf, encoder.comment("keep-alive")
        yield _behind(first, beating)


async def _behind(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    if first is None:  # the source has ended without an event
        return
    if first:
        yield first
    async for frame in rest:
        yield frame


async def _frames(source: AsyncIterator[Event], encoder: SSEEncoder) -> AsyncGenerator[bytes, None]:
    try:
        async for event in source:
            yield frame_of(event, encoder)
    finally:
        await _close(source)


async def _close(source: AsyncIterator[Event]) -> None:
    if (close := getattr(source, "aclose", None)) is not None:
        await close()


class _Threaded:
    """A plain iterator, read and closed in worker threads and in one context: it may set variables and reset them."""

    _limiter: RunVar[anyio.CapacityLimiter] = RunVar("floop_gateway_source_threads")

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._context = copy_context()

    def __aiter__(self) -> "_Threaded":
        return self

    async def __anext__(self) -> Event:
        event = await self._in_thread(next, self._events, _DONE)
        if event is _DONE:
            raise StopAsyncIteration
        return cast(Event, event)

    async def aclose(self) -> None:
        if (close := getattr(self._events, "close", None)) is not None:
            with anyio.CancelScope(shield=True):
                await self._in_thread(close)

    async def _in_thread(self, function: Callable[..., object], *args: object) -> object:
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(MAX_SILENT_SOURCES)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(self._context.run, function, *args, limiter=limiter)
