"""A host's own events as an SSE response of Flask.

    @app.get("/ticks")
    def route(): return event_stream(ticks(), heartbeat_s=15)

The first event is awaited before there is a response (with heartbeats: as long as one of them), so an error of the source
there is answered as an error of the view. Without heartbeats the source is read in the request's own thread. With them it
is read in another thread, in a copy of the context, a few events ahead; a client that leaves is noticed at the next write,
and the source is closed after its next event.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import chain, islice

from flask import Response, request

from floop_gateway_core import SSEEncoder
from floop_gateway_core.hosting.event_stream import Event, frame_of, last_event_id, merged_headers
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
    body.begin()
    response = Response(body, headers=merged_headers(headers))
    response.call_on_close(body.close)  # also if none of it is ever read
    return response


class _End:
    """The source has ended."""


class _Plain:
    def __init__(self, source: Iterable[Event]) -> None:
        self._source = source
        self._events: Iterator[Event] = iter(())
        self._first: list[Event] = []

    def begin(self) -> None:
        """Wait for the first event; raise what the source raises."""
        try:
            self._events = iter(self._source)
            self._first = list(islice(self._events, 1))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        encoder = SSEEncoder()
        for event in chain(self._first, self._events):
            yield frame_of(event, encoder)
            if server_is_stopping():
                return

    def close(self) -> None:
        if (close := getattr(self._source, "close", None)) is not None:
            close()


class _Beating(_Plain):
    def __init__(self, source: Iterable[Event], every_s: float) -> None:
        super().__init__(source)
        self._every_s = every_s
        self._ahead: queue.Queue[Event | BaseException | _End] = queue.Queue(READ_AHEAD)
        self._held: Event | BaseException | _End | None = None
        self._left = threading.Event()
        self._reader: threading.Thread | None = None

    def begin(self) -> None:
        """Start to read, and wait for the first event as long as for a heartbeat; raise what the source raises by then."""
        read = partial(copy_context().run, self._read)
        self._reader = threading.Thread(target=read, name="floop-gateway-events", daemon=True)
        self._reader.start()
        item = self._next()
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._held = item

    def _next(self) -> "Event | BaseException | _End | None":
        """Return the next event, an error, the end, or None if nothing has come in time."""
        with suppress(queue.Empty):
            return self._ahead.get(timeout=self._every_s)
        return None

    def __iter__(self) -> Iterator[bytes]:
        encoder = SSEEncoder()
        item = self._held
        while not isinstance(item, _End):
            if isinstance(item, BaseException):
                raise item
            yield encoder.comment("keep-alive") if item is None else frame_of(item, encoder)
            if server_is_stopping():
                return
            item = self._next()

    def close(self) -> None:
        self._left.set()
        if self._reader is None:
            super().close()  # otherwise the reader closes it, because it may still be inside the source

    def _read(self) -> None:
        try:
            for event in self._source:
                if not self._put(event):
                    break
            self._put(_End())
        except BaseException as error:
            self._put(error)
        finally:
            super().close()

    def _put(self, item: "Event | BaseException | _End") -> bool:
        while not self._left.is_set():
            with suppress(queue.Full):
                self._ahead.put(item, timeout=self._every_s)
                return True
        return False
