"""Settlement: shielded, with a deadline, exactly once however often it is tried.

Once a request has ended, its settlement must not depend on whether its task is being cancelled. Stores settle by the
request's id, so retrying is safe: a native `task.cancel()` passes a shield, and then the settlement is run to its end
before the cancellation continues.

If the store does not answer before the deadline, the settlement becomes *pending*: the runtime keeps it, and it is tried
again after the next one that succeeds, and when the gateway is closed. It is lost only if the process dies first; then the
hold expires.
"""

import logging
from dataclasses import replace

import anyio

from floop_gateway_core.engine.routing import Runtime
from floop_gateway_core.observability.events import Notifier
from floop_gateway_core.observability.events import Settled as SettledEvent
from floop_gateway_core.stores.base import LedgerStore, Settled, Settlement, StoreUnavailable

__all__ = ["retry_pending_settlements", "settle"]

log = logging.getLogger("floop_gateway")

RETRY_S = 0.2
"""How long to wait before settling again."""


async def settle(runtime: Runtime, settlement: Settlement, settle_s: float) -> Settled:
    """Settle, retrying while the store does not answer; raise `StoreUnavailable` after `settle_s`."""
    settled: Settled | None = None
    with anyio.CancelScope(deadline=anyio.current_time() + settle_s, shield=True):
        try:
            settled = await _until_answered(runtime.stores.ledger, settlement)
        except anyio.get_cancelled_exc_class():
            settled = await _until_answered(runtime.stores.ledger, settlement)
            raise
    if settled is None:
        log.error("request %s could not be settled yet: the store does not answer", settlement.record.request_id)
        raise StoreUnavailable("no settlement in time")
    if runtime.pending_settlements:
        await retry_pending_settlements(runtime)
    return settled


async def retry_pending_settlements(runtime: Runtime) -> None:
    """Try every pending settlement once more; stop at the first that the store does not take."""
    pending = runtime.pending_settlements
    notifier = Notifier(runtime.listeners)
    with anyio.move_on_after(runtime.routing.limits.settle_s, shield=True):
        while pending:
            settlement = pending[0]
            try:
                settled = await runtime.stores.ledger.settle(settlement)
            except StoreUnavailable:
                return
            except Exception:  # it must not break the request that happens to retry it, nor keep the others waiting
                log.exception("request %s cannot be settled: its hold will expire", settlement.record.request_id)
                settled = None
            if pending and pending[0] is settlement:  # another request may have settled it meanwhile
                pending.popleft()
                if settled is not None:
                    notifier.notify(SettledEvent, replace(settlement.record, microcredits=settled.hold.charged))
                    await notifier.flush()


async def _until_answered(ledger: LedgerStore, settlement: Settlement) -> Settled:
    while True:
        try:
            return await ledger.settle(settlement)
        except StoreUnavailable:
            await anyio.sleep(RETRY_S)
