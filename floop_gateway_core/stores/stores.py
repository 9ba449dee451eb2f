"""The stores of one gateway as one value: engine, administration, command and usage log all use the same ones."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from floop_gateway_core.policy.budget import utc_day
from floop_gateway_core.policy.holds import RESOLVED_HOLD_DAYS
from floop_gateway_core.stores.base import (
    KeyAdmitted,
    LedgerStore,
    RateStore,
    Store,
    StoreUnavailable,
    rate_limit,
)
from floop_gateway_core.types import Project, ProjectId

__all__ = ["Stores"]

log = logging.getLogger("floop_gateway")

PROBE, PLENTY = ProjectId("probe"), 10**9
"""Whose rate is spent to see whether a rate store answers."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores for projects, for rate limits, and for money and the usage log.

    If one store keeps projects and counts the rate, a key costs one round trip.
    """

    store: Store
    rate: RateStore
    ledger: LedgerStore
    admits_without_rate: bool = False
    """Whether requests pass uncounted while a separate rate store is unavailable."""

    @classmethod
    def of(
        cls,
        store: Store,
        *,
        rate: RateStore | None = None,
        ledger: LedgerStore | None = None,
        admits_without_rate: bool = False,
    ) -> "Stores":
        """Return the parts of a whole store, with `rate` and `ledger` in place of its own."""
        return cls(store, rate or store, ledger or store, admits_without_rate and rate is not None)

    async def admit_key(self, digest: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        """Authenticate a key's digest and spend one of its project's requests per minute; None if it is unknown.

        `limits` are requests per minute by plan.
        """
        if self.rate is self.store:
            return await self.store.authenticate_and_acquire(digest, limits, now)
        return await self._spent(await self.store.authenticate(digest, now), limits, now)

    async def admit_project(self, name: str, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        """Spend one of a project's requests per minute, for a caller who needs no key; None if there is none."""
        try:
            name.encode()
        except UnicodeEncodeError:  # no store can look for it
            return None
        return await self._spent(await self.store.project(name), limits, now)

    async def _spent(self, project: Project | None, limits: Mapping[str, int], now: float) -> KeyAdmitted | None:
        if project is None:
            return None
        if project.suspension is not None:
            return KeyAdmitted(project, None)
        try:
            return KeyAdmitted(project, await self.rate.acquire(project.id, rate_limit(project, limits), now))
        except StoreUnavailable as error:
            if not self.admits_without_rate:
                raise
            log.warning("the rate store is unavailable; a request passes uncounted: %s", error)
            return KeyAdmitted(project, None)

    async def try_rate(self, now: float) -> None:
        """Raise `StoreUnavailable` if a separate rate store does not answer."""
        if self.rate is not self.store:
            await self.rate.acquire(PROBE, PLENTY, now)

    @property
    def distinct(self) -> tuple[object, ...]:
        """Each store once, in the order in which they are opened."""
        return tuple({id(one): one for one in (self.store, self.rate, self.ledger)}.values())

    async def prune(self, now: float, *, retention_s: float, entries_s: float, limit: int) -> int:
        """Delete up to `limit` records beyond their retention, and old resolved holds; return how many.

        Old entries of accounts are replaced by their sums, unless `entries_s` is 0: they are then kept for ever.
        """
        carried = await self.ledger.carry(before=now - entries_s, limit=limit) if entries_s else 0
        day = utc_day(now) - RESOLVED_HOLD_DAYS
        return carried + await self.ledger.prune(before=now - retention_s, day=day, now=now, limit=limit)

    async def setup(self) -> None:
        """Open every store that can be opened."""
        for store in self.distinct:
            if (setup := getattr(store, "setup", None)) is not None:
                await setup()

    async def aclose(self) -> None:
        """Close every store that can be closed, the rest too if one of them fails."""
        failure: Exception | None = None
        for store in reversed(self.distinct):
            if (close := getattr(store, "aclose", None)) is not None:
                try:
                    await close()
                except Exception as error:
                    failure = failure or error
        if failure is not None:
            raise failure
