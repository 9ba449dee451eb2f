"""A store in PostgreSQL."""

from floop_gateway_core.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
