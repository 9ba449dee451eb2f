"""Settlement: shielded, with a deadline, exactly once however often it is tried.

Once a request has ended its money must not hang on whether its task is being cancelled. Stores settle by the request's
id, so trying again is safe, and that is what makes it sure: a native `task.cancel()` passes a shield, and then the
settlement is simply run to its end before the cancellation goes on.

A store that does not answer until the deadline leaves the settlement *owed*: its run keeps it with the engine, and it is
tried again behind the next one that succeeds, and when the gateway is closed. Only a process that dies first loses it;
then the hold expires.
"""

import logging

import anyio

from floop_gateway_core.engine.routing import Engine
from floop_gateway_core.observability.events import Settled as SettledEvent
from floop_gateway_core.observability.events import notify
from floop_gateway_core.stores.base import LedgerStore, Settled, Settlement, StoreUnavailable

__all__ = ["retry_pending_settlements", "settle"]

log = logging.getLogger("floop_gateway")

RETRY_S = 0.2


async def settle(engine: Engine, settlement: Settlement) -> Settled:
    """Settle, and try again while the store does not answer; raise `StoreUnavailable` at the deadline."""
    try:
        with anyio.fail_after(engine.limits.settle_s, shield=True):
            try:
                settled = await _until_answered(engine.ledger, settlement)
            except anyio.get_cancelled_exc_class():
                await _until_answered(engine.ledger, settlement)
                raise
    except TimeoutError:
        log.error("request %s could not be settled yet: the store does not answer", settlement.record.request_id)
        raise StoreUnavailable("no settlement in time") from None
    notify(engine.listeners, SettledEvent(settlement.record))
    if engine.owed:
        await retry_pending_settlements(engine)
    return settled


async def retry_pending_settlements(engine: Engine) -> None:
    """Try what is owed once more, and stop at the first that the store does not take."""
    with anyio.move_on_after(engine.limits.settle_s, shield=True):
        while engine.owed:
            settlement = engine.owed[0]
            try:
                await engine.ledger.settle(settlement)
            except StoreUnavailable:
                return
            except Exception:  # it must not break the request that happens to be at it, nor keep the others waiting
                log.exception("request %s cannot be settled: its hold will expire", settlement.record.request_id)
            if engine.owed and engine.owed[0] is settlement:  # another request may have been at it too
                engine.owed.popleft()
                notify(engine.listeners, SettledEvent(settlement.record))


async def _until_answered(ledger: LedgerStore, settlement: Settlement) -> Settled:
    while True:
        try:
            return await ledger.settle(settlement)
        except StoreUnavailable:
            await anyio.sleep(RETRY_S)
