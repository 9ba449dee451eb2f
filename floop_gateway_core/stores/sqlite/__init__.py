"""Everything in one SQLite file: the default store."""

from floop_gateway_core.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
