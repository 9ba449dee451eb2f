"""A host's own events as an SSE response of Flask.

    @app.get("/ticks")
    def route(): return event_stream(ticks(), heartbeat_s=15)

Without heartbeats the source is read in the request's own thread. With them it is read in another thread, in a copy of
the context, a few events ahead; a client that leaves is noticed at the next write, and the source is closed after its next
event.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial

from flask import Response, request

from floop_gateway_core import ServerSentEvent, SSEEncoder
from floop_gateway_core.hosting.event_stream import Event, last_event_id, merged_headers
from floop_gateway_core.hosting.stopping import server_is_stopping

__all__ = ["event_stream"]

READ_AHEAD = 16


def event_stream(
    events: Iterable[Event] | Callable[[str], Iterable[Event]],
    *,
    heartbeat_s: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Stream events; a function as `events` is called with the request's `Last-Event-ID` ("" if there is none)."""
    source = events(last_event_id(request.headers.items())) if callable(events) else events
    body = _Beating(source, heartbeat_s) if heartbeat_s else _Plain(source)
    response = Response(body, headers=merged_headers(headers))
    response.call_on_close(body.close)  # also if none of it is ever read
    return response


class _Plain:
    def __init__(self, source: Iterable[Event]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        encoder = SSEEncoder()
        for event in self._source:
            yield encoder.frame(event)
            if server_is_stopping():
                return

    def close(self) -> None:
        if (close := getattr(self._source, "close", None)) is not None:
            close()


class _Beating(_Plain):
    def __init__(self, source: Iterable[Event], every_s: float) -> None:
        super().__init__(source)
        self._every_s = every_s
        self._ahead: queue.Queue[ServerSentEvent | str | BaseException | None] = queue.Queue(READ_AHEAD)
        self._left = threading.Event()
        self._reader: threading.Thread | None = None

    def __iter__(self) -> Iterator[bytes]:
        encoder = SSEEncoder()
        read = partial(copy_context().run, self._read)
        self._reader = threading.Thread(target=read, name="floop-gateway-events", daemon=True)
        self._reader.start()
        while True:
            try:
                item = self._ahead.get(timeout=self._every_s)
            except queue.Empty:
                yield encoder.comment("keep-alive")
                if server_is_stopping():
                    return
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield encoder.frame(item)
            if server_is_stopping():
                return

    def close(self) -> None:
        self._left.set()
        if self._reader is None:
            super().close()  # else the reader closes it, which may be in the middle of the source

    def _read(self) -> None:
        try:
            for event in self._source:
                if not self._put(event):
                    break
            self._put(None)
        except BaseException as error:
            self._put(error)
        finally:
            super().close()

    def _put(self, item: ServerSentEvent | str | BaseException | None) -> bool:
        while not self._left.is_set():
            with suppress(queue.Full):
                self._ahead.put(item, timeout=self._every_s)
                return True
        return False
