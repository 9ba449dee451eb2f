"""The stores of one gateway: separate parts are all used, opened and closed."""

import pytest

from floop_gateway_core import Gateway, MemoryStore, RateLimitedError, Settings
from floop_gateway_core.stores.stores import Stores

pytestmark = pytest.mark.anyio


class Noted(MemoryStore):
    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.events: list[str] = []
        self.fails = fails

    async def setup(self) -> None:
        self.events.append("opened")
        await super().setup()

    async def aclose(self) -> None:
        self.events.append("closed")
        if self.fails:
            raise OSError("cannot be closed")


async def test_every_part_is_opened_and_closed_even_if_one_cannot_be() -> None:
    store, rate, ledger = Noted(), Noted(fails=True), Noted()
    stores = Stores.of(store, rate=rate, ledger=ledger)
    await stores.setup()
    with pytest.raises(OSError, match="cannot be closed"):
        await stores.aclose()
    assert [["opened", "closed"]] * 3 == [store.events, rate.events, ledger.events]


async def test_one_store_for_all_is_opened_once() -> None:
    store = Noted()
    stores = Stores.of(store)
    await stores.setup()
    await stores.aclose()
    assert ["opened", "closed"] == store.events


async def test_a_separate_rate_and_ledger_are_what_engine_and_administration_use() -> None:
    store, rate, ledger = MemoryStore(), MemoryStore(), MemoryStore()
    settings = Settings.read({"store": "memory://", "plans": {"default": {"requests_per_minute": 1}}}, source="test")
    async with Gateway(settings, store=store, rate=rate, ledger=ledger) as gateway:
        new = await gateway.admin.create_project("shop", owner="olga", credits="1")
        await gateway.generate(new.key, "Hi")
        with pytest.raises(RateLimitedError):
            await gateway.generate(new.key, "Hi")
        with pytest.raises(Exception, match="UNAUTHORIZED"):
            await gateway.generate("flp_sk_" + "x" * 33, "Hi")
        assert await store.account("olga") is not None
        paid = await ledger.account("olga")
        assert paid is not None
        assert 0 < paid.posted < 1_000_000
        assert not (await rate.acquire(new.project.id, 1, gateway.runtime.clock())).allowed
