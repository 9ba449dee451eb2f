"""The circuit breaker around any call of a host's own: as a decorator, or as a context manager.

    search = Breaker(failures=5, cool_down_s=30)

    @search
    async def find(words): ...             # plain functions too

    with search.call():                    # or `async with`
        ...

While it is open a call raises `BreakerOpen` and does nothing. Every `Exception` counts as a failure, or only those
that the host lists in `counts`; cancellation counts as neither success nor failure. One breaker may be used from any
number of threads and tasks.
"""

import inspect
import logging
import threading
import time
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar, cast

from floop_gateway_core.clock import Clock
from floop_gateway_core.policy.breaker import BreakerState, CircuitBreaker, Permit

__all__ = ["Breaker", "BreakerOpen"]

log = logging.getLogger("floop_gateway")

P = ParamSpec("P")
R = TypeVar("R")
Counts = type[BaseException] | tuple[type[BaseException], ...]


class BreakerOpen(Exception):
    """The call was not made. After `retry_after_s` a probe may pass."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the circuit breaker is open; a probe may pass in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class Breaker:
    """`on_state_change` is called on every change of state, in the thread of the call that caused it.

    >>> breaker = Breaker(failures=1, cool_down_s=60.0, clock=lambda: 0.0)
    >>> @breaker
    ... def divide(a, b):
    ...     return a / b
    >>> divide(6, 2)
    3.0
    >>> divide(1, 0)
    Traceback (most recent call last):
    ZeroDivisionError: division by zero
    >>> divide(6, 2)
    Traceback (most recent call last):
    floop_gateway_core.toolkit.breaker.BreakerOpen: the circuit breaker is open; a probe may pass in 60.0 s
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        window_s: float = 60.0,
        cool_down_s: float = 60.0,
        counts: Counts = Exception,
        on_state_change: Callable[[BreakerState], object] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._policy = CircuitBreaker(failures=failures, window_s=window_s, cool_down_s=cool_down_s)
        self._counts = counts
        self._on_turn = on_state_change
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def state(self) -> BreakerState:
        """Return the state now."""
        with self._lock:
            return self._policy.state(self._clock())

    def call(self) -> "_Guarded":
        """Return a context manager for one call, sync or async."""
        return _Guarded(self)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function guarded by this breaker, as a decorator."""
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError("cannot decorate a generator, whose body runs after the call; use `call()` inside it")
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):

            @wraps(function)
            async def guarded(*args: P.args, **kwargs: P.kwargs) -> object:
                with self.call():
                    return await function(*args, **kwargs)  # type: ignore[misc]

            return cast(Callable[P, R], guarded)

        @wraps(function)
        def guarded_plain(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.call():
                return function(*args, **kwargs)

        return guarded_plain

    def _admit(self) -> Permit:
        with self._lock:
            now = self._clock()
            permit = self._policy.admit(now)
            left_s = self._policy.cool_down_left_s(now)
        if permit is None:
            raise BreakerOpen(left_s)
        return permit

    def _give_back(self, permit: Permit, error: BaseException | None) -> None:
        with self._lock:
            before, now = self._policy.generation, self._clock()
            if error is None:
                self._policy.success(permit)
            elif isinstance(error, self._counts):
                self._policy.failure(permit, now)
            elif isinstance(error, Exception):
                self._policy.success(permit)  # an error that does not count is an answer
            else:
                self._policy.cancel(permit)
            turned = None if self._policy.generation == before else self._policy.state(now)
        if turned is not None and self._on_turn is not None:
            try:
                self._on_turn(turned)
            except Exception:  # it must not mask the call's own result or exception
                log.exception("the listener of a circuit breaker failed")


class _Guarded:
    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def __enter__(self) -> None:
        self._permit = self._breaker._admit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._breaker._give_back(self._permit, error)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
