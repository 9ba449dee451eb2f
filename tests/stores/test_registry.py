"""What a store's URI opens, and what can be seen of it without opening it."""

import sqlite3
from pathlib import Path

import pytest

from floop_gateway_core import MemoryStore, SQLiteStore, StoreUnavailable
from floop_gateway_core.stores.registry import inspect_store, open_store
from floop_gateway_core.stores.sqlite import schema


def test_a_uri_names_a_store(tmp_path: Path) -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    assert isinstance(store, SQLiteStore)
    assert tmp_path / "a.db" == store.path
    assert not store.path.exists()


def test_looking_at_a_store_changes_nothing(tmp_path: Path) -> None:
    path, uri = tmp_path / "a.db", f"sqlite:///{tmp_path}/a.db"
    assert ("in memory", 0) == inspect_store("memory://")
    assert ("will be created", None) == inspect_store(uri)
    assert not path.exists()
    with pytest.raises(StoreUnavailable, match="is not a directory"):
        inspect_store(f"sqlite:///{tmp_path}/nowhere/a.db")
    file = sqlite3.connect(path)
    for step in schema.STEPS[:2]:
        file.executescript(step)
    file.execute("PRAGMA user_version = 2")
    file.close()
    assert (f"will be migrated from schema 2 to {len(schema.STEPS)}", None) == inspect_store(uri)
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable, match="SQLite"):
        inspect_store(uri)
