"""A host's own events as an SSE response of Flask.

    @app.get("/ticks")
    def route(): return event_stream(ticks(), heartbeat_s=15)

Without heartbeats the source is read in the request's own thread. With them it is read in a thread of its own, in a copy of
the context, a few events ahead; a client that leaves is seen at the next write, and the source is closed when it next gives
an event.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context

from flask import Response, request

from floop_gateway_core import ServerSentEvent, SSEEncoder
from floop_gateway_core.pieces.streaming import HEADERS, Event, last_event_id

__all__ = ["event_stream"]

AHEAD = 16


def event_stream(
    events: Iterable[Event] | Callable[[str], Iterable[Event]],
    *,
    heartbeat_s: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Stream events; a function as `events` is called with the request's `Last-Event-ID` ("" where there is none)."""
    source = events(last_event_id(request.headers.items())) if callable(events) else events
    body = _beating(source, heartbeat_s) if heartbeat_s else _plain(source)
    return Response(body, headers={**dict(HEADERS), **(headers or {})}, direct_passthrough=True)


def _plain(source: Iterable[Event]) -> Iterator[bytes]:
    encoder = SSEEncoder()
    try:
        for event in source:
            yield encoder.frame(event)
    finally:
        _close(source)


def _beating(source: Iterable[Event], every_s: float) -> Iterator[bytes]:
    encoder = SSEEncoder()
    ahead: queue.Queue[ServerSentEvent | str | BaseException | None] = queue.Queue(AHEAD)
    left = threading.Event()

    def put(item: ServerSentEvent | str | BaseException | None) -> bool:
        while not left.is_set():
            try:
                ahead.put(item, timeout=every_s)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for event in source:
                if not put(event):
                    break
            put(None)
        except BaseException as error:
            put(error)
        finally:
            _close(source)

    threading.Thread(target=copy_context().run, args=(read,), name="floop-gateway-events", daemon=True).start()
    try:
        while True:
            try:
                item = ahead.get(timeout=every_s)
            except queue.Empty:
                yield encoder.comment("keep-alive")
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield encoder.frame(item)
    finally:
        left.set()


def _close(source: Iterable[Event]) -> None:
    if (close := getattr(source, "close", None)) is not None:
        close()
