"""Providers that do what the schedule says, and note what they did in the lane of the request."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from floop_gateway_core.providers.base import Delta, FaultKind, UpstreamCall, UpstreamFault
from floop_gateway_core.types import Usage
from tests.simulation.lane import LANE, Attempt

__all__ = ["TOKENS_PER_TEXT", "ScriptedProvider"]

TOKENS_PER_TEXT = 3
STALLED_S = 1_000.0
KINDS = {
    "transient": FaultKind.TRANSIENT,
    "rate_limited": FaultKind.RATE_LIMITED,
    "unusable": FaultKind.UNUSABLE,
    "rejected": FaultKind.REJECTED,
}


class ScriptedProvider:
    """`check` raises if the process that asks is dead."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def open(self, call: UpstreamCall, on_sent: Callable[[], None]) -> "_Answer":
        """Begin the next attempt of the request that asks."""
        lane = LANE.get()
        if lane is None:
            raise RuntimeError("an upstream is asked for no request")
        return _Answer(lane.name, len(lane.attempts), lane.asked(call.model), call.max_tokens, on_sent, self._check)


class _Answer:
    def __init__(
        self,
        name: str,
        number: int,
        attempt: Attempt,
        room: int,
        on_sent: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        self._name, self._number, self._attempt, self._room = name, number, attempt, room
        self._on_sent, self._check = on_sent, check
        script = attempt.script
        wanted = min(script.texts, room // TOKENS_PER_TEXT)
        self._texts, self._cut = (script.texts, False) if script.excess_tokens else (wanted, wanted < script.texts)

    async def __aenter__(self) -> "_Answer":
        script = self._attempt.script
        await asyncio.sleep(script.pace_s)
        self._check()
        if script.fault is not None and script.at < 0:
            await self._fail()
        self._attempt.sent = True
        self._on_sent()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    async def _fail(self) -> None:
        fault = self._attempt.script.fault
        if fault is None or fault == "stall":
            await asyncio.sleep(STALLED_S)
            raise UpstreamFault(FaultKind.TRANSIENT, "stalled")
        self._attempt.failed = True
        raise UpstreamFault(KINDS[fault], fault)

    async def next(self) -> Delta:
        """Return the next text, or the end; or fail."""
        attempt, script = self._attempt, self._attempt.script
        await asyncio.sleep(script.pace_s)
        self._check()
        if script.fault is not None and attempt.texts >= script.at:
            await self._fail()
        if attempt.texts < self._texts:
            attempt.texts += 1
            attempt.tokens = attempt.texts * TOKENS_PER_TEXT
            reports = script.reports == "each"
            text = f"{self._name}.{self._number}.{attempt.texts} "
            return Delta(1, [text], self._usage() if reports else None, reports)
        attempt.tokens = attempt.texts * TOKENS_PER_TEXT + script.excess_tokens
        attempt.finished = True
        return Delta(1, [], self._usage(), True, "max_tokens" if self._cut else "end_turn")

    def _usage(self) -> Usage:
        return Usage(self._attempt.script.input_tokens, self._attempt.tokens)
