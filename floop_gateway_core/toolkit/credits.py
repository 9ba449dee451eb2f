"""The credit ledger for anything that is metered: hold before the work, capture the actual cost, in a file or database.

    credits = Credits("credits.db")
    await credits.grant("olga", Microcredits(5_000_000))
    held = await credits.hold("job-1", "olga", Microcredits(800_000), ttl_s=600)
    if isinstance(held, Insufficient): ...
    await credits.capture("job-1", Microcredits(650_000))       # or: await credits.void("job-1")

Each id resolves exactly once, and every command may be repeated. A hold that is not resolved expires after `ttl_s`. The
accounts are those of a gateway on the same file: images or searches may be paid from the balance that pays for tokens.
"""

from pathlib import Path

from floop_gateway_core.clock import Clock, system_clock
from floop_gateway_core.policy import ledger
from floop_gateway_core.policy.ledger import Account, Hold, Insufficient, Outcome, Resolved, Unknown
from floop_gateway_core.stores.base import Store
from floop_gateway_core.stores.registry import open_store
from floop_gateway_core.types import Microcredits

__all__ = ["Account", "Credits", "Hold", "Insufficient", "Microcredits", "Unknown"]


class Credits:
    """`store` is the store of a gateway, a URL of one, or a file for SQLite. Close it with `aclose`."""

    def __init__(self, store: Store | str | Path, *, clock: Clock = system_clock) -> None:
        if isinstance(store, str | Path):
            store = open_store(str(store) if "://" in str(store) else f"sqlite:///{store}")
        self._store = store
        self._clock = clock

    async def grant(self, owner: str, amount: Microcredits) -> Account:
        """Add to an account, which is created if it is missing."""
        return await self._store.grant_credits(owner, amount, self._clock())

    async def account(self, owner: str) -> Account:
        """Return the posted and held amounts, after voiding holds that have expired."""
        await self._store.expire_named_holds(self._clock())
        return await self._store.account(owner) or Account()

    async def hold(self, id: str, owner: str, amount: Microcredits, *, ttl_s: float) -> Hold | Insufficient:
        """Hold an amount and return the hold. If the id exists, return that hold, whose `state` may be resolved already.

        Raises ValueError if the id was used for another account or for another amount.
        """
        if not 0 < ttl_s < 10**9:
            raise ValueError(f"ttl_s must be greater than 0, got {ttl_s}")
        outcome = await self._apply(id, owner, ledger.Place(amount), ttl_s)
        if isinstance(outcome, Resolved | Insufficient):
            return outcome.hold if isinstance(outcome, Resolved) else outcome
        raise AssertionError("a hold is placed or refused")

    async def capture(self, id: str, amount: Microcredits) -> Hold | Unknown:
        """Charge an amount and free the rest. Beyond the hold, what the account cannot pay is written off."""
        return self._resolved(await self._apply(id, None, ledger.Capture(amount)))

    async def void(self, id: str) -> Hold | Unknown:
        """Free the hold; nothing is charged."""
        return self._resolved(await self._apply(id, None, ledger.Void()))

    async def aclose(self) -> None:
        """Close the store if this object opened it."""
        await self._store.aclose()

    @staticmethod
    def _resolved(outcome: Outcome) -> Hold | Unknown:
        return outcome.hold if isinstance(outcome, Resolved) else Unknown()

    async def _apply(self, id: str, owner: str | None, command: ledger.Command, ttl_s: float = 0.0) -> Outcome:
        now, amount = self._clock(), getattr(command, "amount", 0)
        if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= ledger.MAX_MICROCREDITS:
            raise ValueError(f"amount must be a whole number of micro-credits, at least 0, got {amount!r}")
        return await self._store.apply_named_hold(id, owner, command, now=now, expires_at=now + ttl_s)
