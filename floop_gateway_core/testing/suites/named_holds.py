"""The suite for a `NamedHoldStore`: holds that do not belong to requests."""

import pytest

from floop_gateway_core.policy.ledger import (
    Capture,
    Command,
    Expire,
    Hold,
    Insufficient,
    Outcome,
    Place,
    Resolved,
    Unknown,
    Void,
)
from floop_gateway_core.stores.base import Store
from floop_gateway_core.testing.suites.facts import NOW, TTL_S, account, captured, grant, together
from floop_gateway_core.types import Microcredits

__all__ = ["NamedHoldSuite"]


class NamedHoldSuite:
    """What `NamedHoldStore` promises, on the accounts of the same store."""

    async def _apply(
        self, store: Store, command: Command, *, id: str = "job", owner: str | None = None, now: float = NOW
    ) -> Outcome:
        return await store.apply_named_hold(id, owner, command, now=now, expires_at=now + TTL_S)

    async def test_a_named_hold_is_placed_and_captured_once(self, store: Store) -> None:
        await grant(store, 100)
        place, capture = Place(Microcredits(60)), Capture(Microcredits(25))
        for _ in range(2):
            assert Resolved(Hold(Microcredits(60))) == await self._apply(store, place, owner="o")
        assert account(100, 60) == await store.account("o")
        for _ in range(2):
            assert Resolved(captured(60, 25)) == await self._apply(store, capture)
        assert account(75) == await store.account("o")

    async def test_a_named_hold_is_voided(self, store: Store) -> None:
        await grant(store, 100)
        await self._apply(store, Place(Microcredits(60)), owner="o")
        voided = Resolved(Hold(Microcredits(60), "voided"))
        assert [voided] * 2 == [await self._apply(store, Void()) for _ in range(2)]
        assert voided == await self._apply(store, Capture(Microcredits(25)))
        assert account(100) == await store.account("o")

    async def test_a_named_hold_takes_only_what_is_available(self, store: Store) -> None:
        await grant(store, 100)
        await self._apply(store, Place(Microcredits(60)), owner="o")
        refused = await self._apply(store, Place(Microcredits(41)), id="other", owner="o")
        assert Insufficient(Microcredits(41), Microcredits(40)) == refused
        assert account(100, 60) == await store.account("o")

    async def test_an_unknown_name_is_told(self, store: Store) -> None:
        for command in (Capture(Microcredits(1)), Void(), Expire()):
            assert Unknown() == await self._apply(store, command)

    async def test_a_name_belongs_to_one_account_and_amount(self, store: Store) -> None:
        await grant(store, 100)
        await grant(store, 100, owner="other")
        await self._apply(store, Place(Microcredits(60)), owner="o")
        for owner, amount in (("other", 60), ("o", 61)):
            with pytest.raises(ValueError, match="already exists"):
                await self._apply(store, Place(Microcredits(amount)), owner=owner)
        assert account(100) == await store.account("other")

    async def test_named_holds_expire(self, store: Store) -> None:
        await grant(store, 100)
        await self._apply(store, Place(Microcredits(60)), owner="o")
        assert 0 == await store.expire_named_holds(NOW + TTL_S - 0.001)
        assert 1 == await store.expire_named_holds(NOW + TTL_S)
        assert 0 == await store.expire_named_holds(NOW + TTL_S)
        assert account(100) == await store.account("o")

    async def test_a_named_hold_can_take_what_has_expired(self, store: Store) -> None:
        await grant(store, 100)
        await self._apply(store, Place(Microcredits(60)), owner="o")
        placed = await self._apply(store, Place(Microcredits(90)), id="other", owner="o", now=NOW + TTL_S)
        assert Resolved(Hold(Microcredits(90))) == placed

    async def test_concurrent_named_holds_never_set_aside_more_than_there_is(self, store: Store) -> None:
        await grant(store, 100)
        calls = [self._apply(store, Place(Microcredits(9)), id=f"job {number}", owner="o") for number in range(30)]
        placed = [one for one in await together(calls) if isinstance(one, Resolved)]
        assert 11 == len(placed)
        assert account(100, 99) == await store.account("o")
