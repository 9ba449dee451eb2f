"""The event loop that is running, as a value: a key for what belongs to it."""

import asyncio

from anyio.lowlevel import current_token

__all__ = ["current_event_loop"]


def current_event_loop() -> object:
    """Return the running asyncio loop, or trio's token of this run."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        token = current_token()
        return getattr(token, "native_token", token)  # newer versions of anyio wrap it
