"""Caches results for texts that are sent repeatedly: a system prompt, a chat's history, the turn that an agent repeats
with every tool result.

The keys are digests, so no text is kept.
"""

import threading
from collections.abc import Callable
from hashlib import blake2b
from typing import Generic, TypeVar

__all__ = ["Memo", "digest"]

T = TypeVar("T")
DIGEST_BYTES = 16


def digest(*texts: str | None) -> bytes:
    """Return a short digest of texts, some of which may be None. The boundaries between the texts matter."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for text in texts:
        data = b"" if text is None else text.encode("utf-8", "surrogatepass")
        state.update(b"-" if text is None else b"%d:" % len(data))
        state.update(data)
    return state.digest()


class Memo(Generic[T]):
    """The values of the last `most` keys that were asked for, for any number of threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: dict[object, T] = {}

    def get(self, key: object, work: Callable[[], T]) -> T:
        """Return the value of a key; `work` finds it if it is not remembered."""
        with self._lock:
            known = self._values.pop(key, None)
            if known is not None:
                self._values[key] = known  # the most recently used is last
                return known
        value = work()
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._most:
                del self._values[next(iter(self._values))]
        return value
