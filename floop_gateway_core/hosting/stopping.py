"""Ends event streams that would delay a server's shutdown.

A server that is shutting down waits for open responses, and an endless stream never ends by itself. Under uvicorn and
gunicorn the streams detect the shutdown; on other servers the host calls `stop_event_streams` when it shuts down.
"""

import signal
import threading

import anyio

__all__ = ["server_is_stopping", "stop_event_streams", "wait_for_stop"]

POLL_INTERVAL_S = 0.5
"""How often a stream checks for a shutdown: short compared with any server's grace period."""

_stopped = threading.Event()


def stop_event_streams(*_: object) -> None:
    """End all open event streams of this process, and those that are opened later."""
    _stopped.set()


def server_is_stopping() -> bool:
    """Return whether the host or its server is stopping.

    uvicorn and gunicorn handle SIGTERM in a method of the server or worker, and that object says if it is stopping.
    """
    if _stopped.is_set():
        return True
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(owner, "should_exit", False) is True or getattr(owner, "alive", True) is False


async def wait_for_stop() -> None:
    """Wait until the server is stopping."""
    while not server_is_stopping():  # noqa: ASYNC110 - the server says it in an attribute
        await anyio.sleep(POLL_INTERVAL_S)
