"""The rate over any storage of the `limits` package that has a moving window, for hosts that run one already.

`limits` keeps an instant through the moment at which it is exactly as old as the window, and reads its own clock: the wait
that is promised is therefore rounded up past that moment. Right after a
limit was lowered, the wait is that of the oldest instant only. On trio, where its asynchronous storages do not run, give
the URI of a synchronous one (`memory://`, `redis://…`): it is called in a worker thread.
"""

import math
import time
from functools import partial
from inspect import isawaitable

import anyio.to_thread
from limits import RateLimitItemPerSecond
from limits.aio.strategies import MovingWindowRateLimiter as AsyncMovingWindow
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter

from floop_gateway_core.policy.window import WINDOW_S, Decision
from floop_gateway_core.stores.base import StoreUnavailable

__all__ = ["LimitsRate"]

NAMESPACE = "floop-gateway"


class _Requests(RateLimitItemPerSecond):
    """One counter for a project whatever its limit: `limits` itself would begin anew where the limit changes."""

    def key_for(self, *identifiers: bytes | str | int | float) -> str:
        return "/".join((self.namespace, *map(str, identifiers)))


class LimitsRate:
    """`uri` as `limits` writes it: `async+redis://localhost:6379`, `memory://`, …; one without a moving window raises."""

    def __init__(self, uri: str) -> None:
        storage = storage_from_string(uri, wrap_exceptions=True)
        self._limiter = AsyncMovingWindow(storage) if uri.startswith("async+") else MovingWindowRateLimiter(storage)

    async def acquire(self, project: str, limit: int, now: float) -> Decision:
        """`now` is ignored: the storage has its own clock."""
        item = _Requests(limit, int(WINDOW_S), NAMESPACE)
        try:
            allowed = await self._call("hit", item, project)
            stats = await self._call("get_window_stats", item, project)
        except StorageError as error:
            raise StoreUnavailable(f"limits: {type(error.storage_error).__name__}") from None
        left_s = max(1, math.floor(stats.reset_time - time.time()) + 1)
        return Decision(
            bool(allowed), limit, max(0, stats.remaining) if allowed else 0, 0 if allowed else left_s, left_s, WINDOW_S
        )

    async def _call(self, name: str, item: RateLimitItemPerSecond, project: str):  # type: ignore[no-untyped-def]
        method = getattr(self._limiter, name)
        if isinstance(self._limiter, MovingWindowRateLimiter):
            return await anyio.to_thread.run_sync(partial(method, item, project))
        answer = method(item, project)
        return await answer if isawaitable(answer) else answer
