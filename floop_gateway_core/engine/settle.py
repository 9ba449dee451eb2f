"""Settlement: shielded, with a deadline, exactly once however often it is tried.

Once a request has ended, its settlement must not depend on whether its task is being cancelled. Stores settle by
request id, so retrying is safe: if a native `task.cancel()` gets through the shield, the settlement is retried to
completion before the cancellation continues.

If the store is unavailable, the settlement is written to the spool file: the client still gets its usage, and the
charge is made once the store is back, by this process or the next one. Without a spool, the settlement becomes
*pending* after a deadline: the runtime keeps it and retries it after the next successful settlement and when the
gateway is closed. It is lost only if the process dies first; then the hold expires.

A request that the store has failed before it had any output waits for nothing: its settlement goes to the spool, or
becomes pending, immediately, and is retried in the background for a while.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from floop_gateway_core.engine.routing import Runtime
from floop_gateway_core.observability.events import Notifier, PendingSettlements
from floop_gateway_core.observability.events import Settled as SettledEvent
from floop_gateway_core.stores.base import Settled, Settlement, StoreUnavailable
from floop_gateway_core.stores.spool import SettlementSpool

__all__ = ["deliver_spool", "retry_pending_settlements", "retry_soon", "settle"]

log = logging.getLogger("floop_gateway")

RETRY_S = 0.2
"""How long to wait before settling again."""


async def settle(
    runtime: Runtime, settlement: Settlement, settle_s: float, *, store_failed: bool = False
) -> Settled | None:
    """Settle, or write the settlement to the spool, which returns None: it will be made once the store is back.

    Without a usable spool, retry while the store is unavailable; raise `StoreUnavailable` after `settle_s`, or immediately
    if the store has just failed: the client has waited for it once already.
    """
    made = _Made(runtime, settlement, store_failed)
    with anyio.CancelScope(deadline=anyio.current_time() + settle_s, shield=True):
        try:
            await made.until_answered()
        except anyio.get_cancelled_exc_class():
            await made.until_answered()
            raise
    if not made.done and store_failed:
        raise StoreUnavailable("the store has just failed")
    if not made.done:
        log.error("request %s could not be settled yet: the store is unavailable", settlement.record.request_id)
        raise StoreUnavailable("the settlement timed out")
    if made.settled is not None and (runtime.pending_settlements or runtime.spooled):
        await retry_pending_settlements(runtime)
    return made.settled


@dataclass(slots=True)
class _Made:
    """A settlement under way; `settled` is None if it was spooled."""

    runtime: Runtime
    settlement: Settlement
    store_failed: bool
    done: bool = False
    settled: Settled | None = None

    async def until_answered(self) -> None:
        if self.store_failed:
            self.done = self.done or await _spooled(self.runtime, self.settlement)
            return
        while not self.done:
            try:
                self.settled = await self.runtime.stores.ledger.settle(self.settlement)
                self.done = True
            except StoreUnavailable:
                self.done = await _spooled(self.runtime, self.settlement)
                if not self.done:
                    await anyio.sleep(RETRY_S)


async def _spooled(runtime: Runtime, settlement: Settlement) -> bool:
    """Write a settlement to the spool, if there is one that takes it."""
    if runtime.spool is None:
        return False
    try:
        await anyio.to_thread.run_sync(runtime.spool.add, settlement)
    except OSError as error:
        log.error("%s: cannot write a settlement: %s", runtime.spool.path, error)
        return False
    runtime.spooled += 1
    log.warning("request %s will be settled later: the store is unavailable", settlement.record.request_id)
    return True


def retry_soon(runtime: Runtime) -> None:
    """Retry in the background what waits for the store, for `settle_s`, unless that is being done."""
    now = runtime.monotonic()
    if now >= runtime.retries_until:
        runtime.retries_until = now + runtime.routing.limits.settle_s
        runtime.tasks.start(partial(_retry_for_a_while, runtime))


async def _retry_for_a_while(runtime: Runtime) -> None:
    with anyio.move_on_after(runtime.routing.limits.settle_s):
        while (runtime.pending_settlements or runtime.spooled) and runtime.monotonic() < runtime.retries_until:
            await anyio.sleep(RETRY_S)
            await retry_pending_settlements(runtime)
    runtime.retries_until = 0.0


async def retry_pending_settlements(runtime: Runtime) -> None:
    """Retry every pending settlement once; stop at the first for which the store is unavailable."""
    pending, tried = runtime.pending_settlements, runtime.tried_settlements
    with anyio.move_on_after(runtime.routing.limits.settle_s, shield=True):
        while pending:
            settlement = pending[0]
            if settlement.record.request_id in tried:
                return  # another task is settling it, and goes on with the rest
            tried.add(settlement.record.request_id)
            try:
                if not await _settle_again(runtime, settlement):
                    return
            finally:
                tried.discard(settlement.record.request_id)
            if pending and pending[0] is settlement:
                pending.popleft()
                notifier = Notifier(runtime.listeners)
                notifier.notify(PendingSettlements, len(pending) + runtime.spooled, settlement.record.request_id)
                await notifier.flush()
        await deliver_spool(runtime)


async def deliver_spool(runtime: Runtime) -> None:
    """Deliver the settlements in the spool, including those left there by killed processes."""
    spool = runtime.spool
    if spool is None or runtime.delivers:
        return
    runtime.delivers = True
    try:
        while True:
            before = runtime.spooled
            files = await anyio.to_thread.run_sync(spool.taken)
            if not files:
                runtime.spooled -= before  # what was written since then still waits
                return
            for taken in files:
                if not await _delivered(runtime, spool, taken):
                    return
    except OSError as error:
        log.error("%s cannot be read: %s", spool.path, error)
    finally:
        runtime.delivers = False


async def _delivered(runtime: Runtime, spool: SettlementSpool, taken: Path) -> bool:
    """Make the settlements of a file; return False if the store does not answer."""
    try:
        settlements = await anyio.to_thread.run_sync(spool.read, taken)
    except FileNotFoundError:
        return True  # another process has delivered it meanwhile
    for settlement in settlements:
        if not await _settle_again(runtime, settlement):
            return False
    await anyio.to_thread.run_sync(partial(taken.unlink, missing_ok=True))
    return True


async def _settle_again(runtime: Runtime, settlement: Settlement) -> bool:
    """Make a settlement that waited; return False if the store does not answer."""
    try:
        settled = await runtime.stores.ledger.settle(settlement)
    except StoreUnavailable:
        return False
    except Exception:  # it must not break the request that happens to retry it, nor keep the others waiting
        log.exception("request %s cannot be settled: its hold will expire", settlement.record.request_id)
        return True
    notifier = Notifier(runtime.listeners)
    notifier.notify(SettledEvent, replace(settlement.record, microcredits=settled.hold.charged))
    await notifier.flush()
    return True
