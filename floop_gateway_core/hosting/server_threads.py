"""Keeps one of a WSGI server's threads free, so that long answers do not take the host's own pages with them.

A WSGI answer occupies a thread until its end, and a server has few. If all but one of them are busy with answers of the
gateway, a further request waits briefly for one to end and is then refused: its thread is free again immediately.
"""

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

__all__ = ["ServerThreads", "server_threads"]

WAIT_S = 1.0
"""How long a request waits for another one to end before it is refused."""
LEAST_THREADS = 4
"""A server with fewer threads is left alone: a spare one would be a large part of it."""


def server_threads() -> int | None:
    """Return how many threads serve requests, if the current thread is one of a known server's; otherwise None.

    Known are servers on a `ThreadPoolExecutor` (gunicorn's gthread), waitress and cheroot. None of them tells an
    application, so this looks at attributes that are not public and returns None if they are not there.
    """
    thread = threading.current_thread()
    arguments = getattr(thread, "_args", None) or (None,)
    executor = arguments[0]() if isinstance(arguments[0], weakref.ref) else None
    if isinstance(executor, ThreadPoolExecutor):
        return int(executor._max_workers)
    waitress = getattr(getattr(thread, "_target", None), "__self__", None)
    if type(waitress).__module__.startswith("waitress."):
        return _size(getattr(waitress, "threads", None))
    if type(thread).__module__.startswith("cheroot."):
        return _size(getattr(getattr(getattr(thread, "server", None), "requests", None), "_threads", None))
    return None


def _size(threads: object) -> int | None:
    return len(threads) if isinstance(threads, set | list) else None


class ServerThreads:
    """Counts the answers that occupy a thread of this process's server."""

    def __init__(self) -> None:
        self._open = 0
        self._changed = threading.Condition()

    def enter(self, threads: int | None) -> bool:
        """Count one more, and return whether there is a thread to spare, for which this waits up to `WAIT_S`."""
        with self._changed:
            has_room = True
            if threads is not None and threads >= LEAST_THREADS:
                has_room = self._changed.wait_for(lambda: self._open < threads - 1, WAIT_S)
            self._open += 1
            return has_room

    def leave(self) -> None:
        """Count one less."""
        with self._changed:
            self._open -= 1
            self._changed.notify()
