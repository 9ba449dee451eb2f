"""Opens the store that a configuration's URI names."""

from floop_gateway_core.stores.base import RateStore, Store

__all__ = ["inspect_store", "open_rate", "open_store"]


def open_store(uri: str) -> Store:
    """Return the store that `memory://` or `sqlite:///path` names; it is opened at its first use."""
    if uri == "memory://":
        from floop_gateway_core.stores.memory import MemoryStore

        return MemoryStore()
    from floop_gateway_core.stores.sqlite import SQLiteStore

    return SQLiteStore(uri.removeprefix("sqlite:///"))


def open_rate(url: str) -> RateStore:
    """Return the store of the rate alone that a URL names, connected at its first use.

    Raises ValueError, which never quotes the URL: it may hold a password.
    """
    try:
        if url.startswith("limits+"):
            from floop_gateway_core.stores.limits import LimitsRate

            return LimitsRate(url.removeprefix("limits+"))
        from floop_gateway_core.stores.valkey import ValkeyRate
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed; pip install 'floop-gateway[redis]'") from None
    return ValkeyRate(url)


def inspect_store(uri: str) -> tuple[str, int | None]:
    """Return the state of a store and its number of projects, without changing it; raise `StoreUnavailable`."""
    if uri == "memory://":
        return "in memory", 0
    from floop_gateway_core.stores.sqlite.inspect import inspect

    return inspect(uri.removeprefix("sqlite:///"))
