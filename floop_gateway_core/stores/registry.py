"""Opens the store that a configuration's URI names."""

from floop_gateway_core.stores.base import Store

__all__ = ["inspect_store", "open_store"]


def open_store(uri: str) -> Store:
    """Return the store that `memory://` or `sqlite:///path` names; it is opened at its first use."""
    if uri == "memory://":
        from floop_gateway_core.stores.memory import MemoryStore

        return MemoryStore()
    from floop_gateway_core.stores.sqlite import SQLiteStore

    return SQLiteStore(uri.removeprefix("sqlite:///"))


def inspect_store(uri: str) -> tuple[str, int | None]:
    """Return the state of a store and its number of projects, without changing it; raise `StoreUnavailable`."""
    if uri == "memory://":
        return "in memory", 0
    from floop_gateway_core.stores.sqlite.inspect import inspect

    return inspect(uri.removeprefix("sqlite:///"))
