"""Opens the store that a configuration's URL names. No message quotes a URL: it may hold a password."""

from floop_gateway_core.stores.base import RateStore, Store

__all__ = ["check_store_url", "inspect_store", "open_rate", "open_store"]

SCHEMES = ("memory://", "sqlite:///", "postgresql://", "postgres://")
TIMEOUT_S = 2.0


def check_store_url(url: str) -> str:
    """Return the URL of a store; raise ValueError for one that none could be opened by."""
    if url == "memory://" or any(url.startswith(one) and len(url) > len(one) for one in SCHEMES[1:]):
        return url
    raise ValueError(f"must be memory://, or begin with {', '.join(SCHEMES[1:3])}")


def open_store(url: str, *, timeout_s: float = TIMEOUT_S) -> Store:
    """Return the store that a URL names; it is opened at its first use. Raises ValueError."""
    check_store_url(url)
    if url == "memory://":
        from floop_gateway_core.stores.memory import MemoryStore

        return MemoryStore()
    if url.startswith("sqlite:"):
        from floop_gateway_core.stores.sqlite import SQLiteStore

        return SQLiteStore(url.removeprefix("sqlite:///"), busy_s=timeout_s)
    try:
        from floop_gateway_core.stores.postgres import PostgresStore
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed; pip install 'floop-gateway[postgres]'") from None
    return PostgresStore(url, timeout_s=timeout_s)


def open_rate(url: str, *, timeout_s: float = TIMEOUT_S) -> RateStore:
    """Return the store of the rate alone that a URL names, connected at its first use; raise ValueError."""
    try:
        if url.startswith("limits+"):
            from floop_gateway_core.stores.limits import LimitsRate

            return LimitsRate(url.removeprefix("limits+"))
        from floop_gateway_core.stores.valkey import ValkeyRate
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed; pip install 'floop-gateway[redis]'") from None
    return ValkeyRate(url, timeout_s=timeout_s)


def inspect_store(url: str, *, timeout_s: float = TIMEOUT_S) -> tuple[str, int | None]:
    """Return the state of a store and its number of projects, without changing it; raise `StoreUnavailable`."""
    if url == "memory://":
        return "in memory", 0
    if url.startswith("sqlite:"):
        from floop_gateway_core.stores.sqlite.inspect import inspect

        return inspect(url.removeprefix("sqlite:///"))
    from floop_gateway_core.stores.postgres.migrations import inspect as inspect_postgres

    return inspect_postgres(url, timeout_s)
