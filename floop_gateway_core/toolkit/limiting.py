"""Rate limits for a host's own routes: several at once, on our stores or on any storage of the `limits` package.

    limiter = RequestLimiter("10/minute;200/hour")                                   # this process's memory
    limiter = RequestLimiter("10/minute;200/hour", store=SQLiteStore("limits.db"))   # all processes of a machine
    limiter = RequestLimiter("10/minute", storage="redis://localhost:6379", strategy="sliding-window-counter")
    verdict = await limiter.hit("203.0.113.7")

On our stores, a request that one limit refuses does not count against the others, and `Retry-After` is exact. A
storage of `limits` uses its own clock; there, `Retry-After` is only as accurate as the strategy.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from limits import RateLimitItem, parse_many

from floop_gateway_core.clock import Clock, system_clock
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy.admission import rate_refusal
from floop_gateway_core.policy.rate_headers import Header, most_restrictive, rate_headers
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.stores.base import StoreUnavailable, WindowLimit, WindowStore
from floop_gateway_core.stores.limits import LimitsStorage
from floop_gateway_core.stores.memory import MemoryStore

__all__ = ["LimitResult", "RequestLimiter"]

DOWN_RETRY_AFTER_S = 5
"""What clients are told while the storage does not answer."""
MAX_KEY_BYTES = 500
"""Longer keys are stored as a digest."""

WhenDown: TypeAlias = Literal["refuse", "admit"]


@dataclass(frozen=True, slots=True)
class LimitResult:
    """Whether a request may pass, and what its answer's headers should say; `refusal` is the catalogue's envelope."""

    refusal: Refusal | None = None
    windows: tuple[tuple[str, RateDecision], ...] = field(default=(), repr=False)

    @property
    def headers(self) -> tuple[Header, ...]:
        """Return the rate headers of the answer."""
        return rate_headers(self.windows) if self.windows else ()

    @property
    def allowed(self) -> bool:
        """Return whether the request may pass."""
        return self.refusal is None


class RequestLimiter:
    """`limits` uses the notation of the `limits` package, or a function that returns them for a caller's key.

    `when_down` says what happens while the storage does not answer. A limiter whose `enabled` is False lets everything pass
    uncounted, for tests.

    Limiters with the same `name` on one store share their counts; use different names for different routes.
    Raises ValueError for a malformed limit and for an unknown storage or strategy.

    >>> import anyio
    >>> limiter = RequestLimiter("2/minute;100/hour", clock=lambda: 1_000_000.0)
    >>> [anyio.run(limiter.hit, "alice").allowed for _ in range(3)]
    [True, True, False]
    >>> anyio.run(limiter.hit, "alice").refusal.retry_after_s
    60
    """

    def __init__(
        self,
        limits: str | Callable[[str], str],
        *,
        store: WindowStore | None = None,
        storage: str | None = None,
        strategy: str = "moving-window",
        name: str = "default",
        when_down: WhenDown = "refuse",
        enabled: bool = True,
        clock: Clock = system_clock,
    ) -> None:
        self._limits_of = limits if callable(limits) else _always(limits)
        self._name = name
        self.enabled = enabled
        self._when_down = when_down
        self._clock = clock
        self._store = store or MemoryStore()
        self._foreign = None if storage is None else LimitsStorage(storage, strategy)
        if storage is not None and store is not None:
            raise ValueError("pass either store or storage, not both")
        if storage is None and strategy != "moving-window":
            raise ValueError(f"strategy {strategy!r} needs a storage; our own stores only have a moving window")

    async def hit(self, key: str, *, cost: int = 1) -> LimitResult:
        """Count one request against each of a caller's limits, or against none if one of them refuses it.

        A request may count as several (`cost`); a cost above any of the limits raises ValueError.
        """
        if not self.enabled:
            return LimitResult()
        items = _distinct(self._limits_of(key))
        least = min(item.amount for item in items)
        if not 1 <= cost <= least:
            raise ValueError(f"cost must be from 1 to the lowest limit, {least}, got {cost}")
        try:
            decisions = await self._acquire(items, _storable(key), cost)
        except StoreUnavailable:
            return LimitResult() if self._when_down == "admit" else LimitResult(_DOWN)
        names = map(_name, items)
        return LimitResult(rate_refusal(most_restrictive(decisions)), tuple(zip(names, decisions, strict=True)))

    async def _acquire(self, items: Sequence[RateLimitItem], key: str, cost: int) -> Sequence[RateDecision]:
        if self._foreign is not None:
            return await self._foreign.acquire_windows(items, f"{self._name} {key}", cost=cost)
        windows = [WindowLimit(f"{self._name} {key}", item.amount, item.get_expiry(), cost) for item in items]
        return await self._store.acquire_windows(windows, self._clock())


_DOWN = Refusal(
    ErrorCode.SERVICE_UNAVAILABLE,
    f"The rate limit store is unavailable. Retry after {DOWN_RETRY_AFTER_S} s.",
    retry_after_s=DOWN_RETRY_AFTER_S,
)


def _storable(key: str) -> str:
    """Return the key as storages can keep it: valid text, and a digest if it is long.

    A caller's bytes that are not text (a header, as servers pass it) are as good a key as any.
    """
    raw = key.encode("utf-8", "backslashreplace")
    return raw.decode() if len(raw) <= MAX_KEY_BYTES else f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _always(limits: str) -> Callable[[str], str]:
    _distinct(limits)  # raises for what cannot be read
    return lambda _: limits


@lru_cache(maxsize=1024)
def _distinct(limits: str) -> Sequence[RateLimitItem]:
    """Read the limits; of several for the same time only the lowest can ever matter."""
    items: dict[int, RateLimitItem] = {}
    for item in parse_many(limits):
        if item.amount < 1:
            raise ValueError(f"a limit must be at least 1, got {item.amount} in {limits!r}")
        other = items.get(item.get_expiry())
        if other is None or item.amount < other.amount:
            items[item.get_expiry()] = item
    return list(items.values())


def _name(item: RateLimitItem) -> str:
    multiple = "" if item.multiples == 1 else f"{item.multiples}-"
    return f"per-{multiple}{item.GRANULARITY.name}"
