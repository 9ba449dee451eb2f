"""Keeps a misbehaving client from filling the usage log: most of its refusals at the gate share one record.

This covers refusals by the rate limit and those of suspended projects.

The first ten refusals of a project in a UTC minute get their own records. The others share one record per process,
which counts them in `repeats`. It is written at the first of them, then at most once a second, and finally by a later
request or when the gateway is closed.
"""

import math
from dataclasses import dataclass, replace

from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.stores.base import LedgerStore
from floop_gateway_core.types import ProjectId, RequestId, UsageRecord

__all__ = ["RefusalLog"]

OWN_RECORDS = 10
MINUTE_S = 60
WRITE_EVERY_S = 1.0
"""A misbehaving client causes at most one write per interval."""


@dataclass(slots=True)
class _Minute:
    number: int
    refusals: int = 0
    shared: UsageRecord | None = None
    written: int = 0
    written_at: float = 0.0

    @property
    def dirty(self) -> bool:
        return self.shared is not None and self.shared.repeats != self.written


class RefusalLog:
    """Counts the refusals of one process. `now` is wall time, `monotonic` the time between writes."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[ProjectId, ErrorCode], _Minute] = {}
        self._flushed_at = -math.inf

    async def note(
        self, record: UsageRecord, refusal: Refusal, ledger: LedgerStore, *, now: float, monotonic: float
    ) -> RequestId | None:
        """Count a refusal that `record` would describe; return the shared record's id, or None if it has its own."""
        key = record.project_id, refusal.code
        minute = self._minutes.get(key)
        if minute is None or minute.number != int(now // MINUTE_S):
            if minute is not None:
                await self._write(minute, ledger, monotonic)
            minute = self._minutes[key] = _Minute(int(now // MINUTE_S))
        minute.refusals += 1
        if minute.refusals <= OWN_RECORDS:
            return None
        if minute.shared is None:
            minute.shared = replace(record, status=refusal.status, code=refusal.code, ending="refused", settled_at=now)
        else:
            minute.shared = replace(minute.shared, repeats=minute.shared.repeats + 1, settled_at=now)
        if minute.written == 0 or monotonic - minute.written_at >= WRITE_EVERY_S:
            await self._write(minute, ledger, monotonic)
        return minute.shared.request_id

    async def flush(self, ledger: LedgerStore, *, now: float, monotonic: float, every: bool = False) -> None:
        """Write counts that are more than a second old (with `every`, all of them), and forget past minutes.

        It is called for each request, but scans the projects at most once a second.
        """
        if not every and monotonic - self._flushed_at < WRITE_EVERY_S:
            return
        self._flushed_at = monotonic
        for key, minute in list(self._minutes.items()):
            if minute.dirty and (every or monotonic - minute.written_at >= WRITE_EVERY_S):
                await self._write(minute, ledger, monotonic)
            if not minute.dirty and minute.number != int(now // MINUTE_S):
                self._minutes.pop(key, None)

    @staticmethod
    async def _write(minute: _Minute, ledger: LedgerStore, monotonic: float) -> None:
        if minute.shared is not None and minute.dirty:
            written, minute.written, minute.written_at = minute.written, minute.shared.repeats, monotonic
            try:
                await ledger.log(minute.shared)
            except BaseException:
                minute.written = written
                raise
