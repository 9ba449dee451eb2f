"""Windows on any storage of the `limits` package, with its strategies and its clock, for hosts that already use one.

`limits` still counts an instant when it is exactly as old as the window, so the promised wait is rounded up past that
moment. Right after a limit was lowered, the wait only covers the oldest instant. On trio, which its asynchronous
storages do not support, pass the URI of a synchronous one (`memory://`, `redis://…`): it is called in a worker thread.
"""

import math
import time
from collections.abc import Sequence
from functools import partial
from inspect import isawaitable

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.strategies import STRATEGIES as ASYNC_STRATEGIES
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES, RateLimiter

from floop_gateway_core.policy.rate_window import WINDOW_S, RateDecision
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.types import ProjectId

__all__ = ["LimitsRate", "LimitsStorage"]

NAMESPACE = "floop-gateway"
TIMEOUT_S = 2.0
"""How long a storage may take; a server that does not answer, as behind a firewall, counts as down."""
MAX_THREADS = 16
"""Size of a separate thread pool for synchronous storages, so that a slow one does not use up the host's threads."""


class LimitsStorage:
    """`uri` as `limits` writes it: `async+redis://localhost:6379`, `memory://`, …

    Raises ValueError for an unknown strategy, or one that the storage does not have.
    """

    def __init__(self, uri: str, strategy: str = "moving-window") -> None:
        known = ASYNC_STRATEGIES if uri.startswith("async+") else STRATEGIES
        if strategy not in known:
            raise ValueError(f"strategy is {strategy!r}; allowed are {', '.join(sorted(known))}")
        try:
            # Every storage raises its own library's errors, which only `limits` knows.
            storage = storage_from_string(uri, wrap_exceptions=True, **_timeouts(uri))
            self._limiter = known[strategy](storage)  # type: ignore[abstract]
            # Counters know their time to live in whole seconds, rounded down; a moving window knows its instants.
            self._rounding_s = 0 if strategy == "moving-window" else 1
        except NotImplementedError as error:
            raise ValueError(f"the storage does not support {strategy}: {error}") from None
        except ConfigurationError as error:
            raise ValueError(f"storage is not supported by limits: {error}") from None

    _threads: RunVar[anyio.CapacityLimiter] = RunVar("floop_gateway_limits_threads")

    async def acquire_windows(self, items: Sequence[RateLimitItem], key: str, *, cost: int = 1) -> list[RateDecision]:
        """Spend `cost` of every limit, or of none; raise `StoreUnavailable`.

        Of several limits, requests at the same moment may spend one of the shorter ones and be refused by a longer one.
        """
        try:
            with anyio.fail_after(TIMEOUT_S):
                return await self._acquire(items, key, cost)
        except TimeoutError:
            raise StoreUnavailable(f"limits: no answer within {TIMEOUT_S:g} s") from None
        except StorageError as error:
            raise StoreUnavailable(f"limits: {type(error.storage_error).__name__}") from None

    async def _acquire(self, items: Sequence[RateLimitItem], key: str, cost: int) -> list[RateDecision]:
        more = {} if cost == 1 else {"cost": cost}
        order = sorted(range(len(items)), key=lambda index: items[index].get_expiry())
        # One limit is hit directly, which is atomic. Several are tested first, or those before a refusal would be spent.
        allowed = [len(items) == 1 or bool(await self._call("test", item, key, **more)) for item in items]
        if all(allowed):
            for index in order:
                allowed[index] = bool(await self._call("hit", items[index], key, **more))
                if not allowed[index]:
                    break
        return [await self._decision(item, key, one) for item, one in zip(items, allowed, strict=True)]

    async def _decision(self, item: RateLimitItem, key: str, allowed: bool) -> RateDecision:
        stats = await self._call("get_window_stats", item, key)
        left_s = max(1, math.floor(stats.reset_time - time.time()) + 1 + self._rounding_s)
        remaining = max(0, stats.remaining) if allowed else 0
        return RateDecision(allowed, item.amount, remaining, 0 if allowed else left_s, left_s, float(item.get_expiry()))

    async def _call(self, name: str, item: RateLimitItem, key: str, **options: int):  # type: ignore[no-untyped-def]
        method = getattr(self._limiter, name)
        if isinstance(self._limiter, RateLimiter):
            limiter = self._threads.get(None)
            if limiter is None:
                limiter = anyio.CapacityLimiter(MAX_THREADS)
                self._threads.set(limiter)
            return await anyio.to_thread.run_sync(
                partial(method, item, key, **options), abandon_on_cancel=True, limiter=limiter
            )
        answer = method(item, key, **options)
        return await answer if isawaitable(answer) else answer


def _timeouts(uri: str) -> dict[str, float]:
    """Return time-outs for the storage's client, so that a thread waiting for a silent server returns."""
    scheme = uri.removeprefix("async+").partition(":")[0]
    if scheme not in ("redis", "rediss", "redis+unix", "valkey", "valkeys", "valkey+unix"):
        return {}
    return {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}


class _Requests(RateLimitItemPerSecond):
    """One counter per project, independent of its limit: `limits` itself would start over when the limit changes."""

    def key_for(self, *identifiers: bytes | str | int | float) -> str:
        return "/".join((self.namespace, *map(str, identifiers)))


class LimitsRate:
    """The gateway's rate on such a storage; one without a moving window raises ValueError."""

    def __init__(self, uri: str) -> None:
        self._storage = LimitsStorage(uri)

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        """`now` is ignored: the storage has its own clock."""
        (decision,) = await self._storage.acquire_windows([_Requests(limit, int(WINDOW_S), NAMESPACE)], project)
        return decision
