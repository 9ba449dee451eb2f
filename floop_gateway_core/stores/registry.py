"""Opens the store that a configuration's URI names."""

from floop_gateway_core.stores.base import Store

__all__ = ["open_store"]


def open_store(uri: str) -> Store:
    """Return the store that `memory://` or `sqlite:///path` names; it is opened at its first use."""
    if uri == "memory://":
        from floop_gateway_core.stores.memory import MemoryStore

        return MemoryStore()
    from floop_gateway_core.stores.sqlite import SQLiteStore

    return SQLiteStore(uri.removeprefix("sqlite:///"))
