"""Settlements that wait in a file while the store is down: written to the disk before the client is told its usage.

The file has one settlement per line. Processes that share it append to it under a lock; to deliver, a process renames
the whole file to a unique name. Delivering a settlement twice changes nothing the second time, so files left behind by
a killed process are delivered again by the next one.
"""

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from floop_gateway_core.stores.base import Settlement

try:
    import fcntl
except ImportError:  # Windows: one process only
    fcntl = None  # type: ignore[assignment]

__all__ = ["SettlementSpool"]

MAX_BYTES = 64 * 1024 * 1024
log = logging.getLogger("floop_gateway")
_decoder = msgspec.json.Decoder(Settlement, dec_hook=lambda kind, value: kind(value))


class SettlementSpool:
    """`path` is a file, which is there while something waits. Every method waits for the disk."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes

    def add(self, settlement: Settlement) -> None:
        """Append a settlement, and wait until it is on the disk. Raises OSError if it cannot be or the spool is full."""
        line = b"\n" + msgspec.json.encode(settlement, enc_hook=int) + b"\n"  # the line before may have been cut short
        with self._locked() as file:
            size = os.fstat(file).st_size
            if size + len(line) > self._max_bytes:
                raise OSError(f"the spool is full: it has {size} bytes")
            try:
                if os.write(file, line) < len(line):
                    raise OSError("the disk is full")
                os.fsync(file)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file, size)
                raise

    def taken(self) -> list[Path]:
        """Return the files to deliver: those that were left behind; without any, take what waits."""
        left = self._left_behind()
        if not left and self.path.exists():
            with self._locked() as file:
                if os.fstat(file).st_size:
                    taken = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
                    self.path.rename(taken)
                    left.append(taken)
        return left

    def _left_behind(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}.{'[0-9a-f]' * 32}"))

    @property
    def is_empty(self) -> bool:
        """Return whether nothing waits."""
        return not self.path.exists() and not self._left_behind()

    @staticmethod
    def read(taken: Path) -> list[Settlement]:
        """Return the settlements in a file. A truncated line was never acknowledged to a client, and is skipped."""
        found = []
        for line in taken.read_bytes().split(b"\n"):
            if line:
                try:
                    found.append(_decoder.decode(line))
                except msgspec.MsgspecError as error:
                    log.error("%s: skipping a settlement that cannot be read: %s", taken, error)
        return found

    @contextmanager
    def _locked(self) -> Iterator[int]:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
                if _is_at(file, self.path):  # else another process has taken it away meanwhile
                    yield file
                    return
            finally:
                os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
