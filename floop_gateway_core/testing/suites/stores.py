"""The suites that every store must pass: subclass one in your own tests and give it a `store` fixture.

    # conftest.py: the suites' assertions are explained like your own
    pytest.register_assert_rewrite("floop_gateway_core.testing.suites.stores")

    # test_my_store.py: run by anyio's pytest plugin, which comes with anyio
    @pytest.mark.anyio
    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def store(self) -> AsyncIterator[MyStore]:
            store = MyStore(...)    # new and empty for each test
            await store.setup()
            yield store
            await store.aclose()

`StoreSuite` is for a whole `Store`; `ProjectSuite`, `RateSuite` and `LedgerSuite` for a store of one protocol. Time is an
argument of every call, so nothing here sleeps, and a store must not read a clock itself. A store for several processes
needs more tests with several processes: these use one.
"""

from dataclasses import replace

from floop_gateway_core.stores.base import (
    ProjectExists,
    Store,
)
from floop_gateway_core.testing.suites.answers import AnswerSuite
from floop_gateway_core.testing.suites.books import BookSuite
from floop_gateway_core.testing.suites.facts import (
    DAY,
    NOW,
    PROJECT,
    account,
    grant,
    hold_request,
    project,
    raised,
    settlement,
)
from floop_gateway_core.testing.suites.ledger import LedgerSuite
from floop_gateway_core.testing.suites.log import LogSuite
from floop_gateway_core.testing.suites.named_holds import NamedHoldSuite
from floop_gateway_core.testing.suites.projects import ProjectSuite
from floop_gateway_core.testing.suites.rate import RateSuite
from floop_gateway_core.types import Microcredits, Project, ProjectId, ProjectSettings

__all__ = ["LedgerSuite", "ProjectSuite", "RateSuite", "StoreSuite", "hold_request", "settlement"]


class StoreSuite(ProjectSuite, RateSuite, LedgerSuite, BookSuite, LogSuite, AnswerSuite, NamedHoldSuite):
    """What a whole `Store` promises."""

    async def test_a_project_is_created_together_with_its_owners_credits(self, store: Store) -> None:
        for id in ("p", "q"):
            await store.create_project(project(id), digest=id, credits=Microcredits(70))
        assert account(140) == await store.account("o")

    async def test_a_project_without_credits_makes_its_owners_account(self, store: Store) -> None:
        await self._create(store)
        assert account(0) == await store.account("o")

    async def test_a_name_that_exists_adds_no_credits(self, store: Store) -> None:
        await self._create(store)
        other = replace(project(), id=ProjectId("q"))
        again = store.create_project(other, digest="digest-2", credits=Microcredits(70))
        assert ProjectExists is await raised(again)
        assert account(0) == await store.account("o")

    async def test_an_unknown_key_spends_nothing(self, store: Store) -> None:
        await self._create(store)
        assert await store.authenticate_and_acquire("digest-2", {"default": 1}, NOW) is None
        assert (await store.acquire(PROJECT, 1, NOW)).allowed

    async def test_a_known_key_spends_one_request_of_its_project(self, store: Store) -> None:
        project = await self._create(store)
        assert (project, True) == await self._admitted(store, "digest-1")
        assert (project, False) == await self._admitted(store, "digest-1")
        assert not (await store.acquire(PROJECT, 1, NOW)).allowed

    async def _admitted(self, store: Store, digest: str) -> tuple[Project, bool] | None:
        admitted = await store.authenticate_and_acquire(digest, {"default": 1}, NOW)
        return (
            None
            if admitted is None
            else (admitted.project, admitted.decision is not None and admitted.decision.allowed)
        )

    async def test_the_limit_is_asked_of_the_project_as_it_is_now(self, store: Store) -> None:
        await self._create(store)
        await store.set_project(PROJECT, ProjectSettings(requests_per_minute=7))
        admitted = await store.authenticate_and_acquire("digest-1", {"default": 1}, NOW)
        assert admitted is not None
        assert admitted.decision is not None
        assert 7 == admitted.decision.limit

    async def test_rate_budget_and_credits_outlive_a_rotation(self, store: Store) -> None:
        await self._create(store)
        await grant(store, 1_000)
        await store.hold(hold_request("req_1"))
        assert (await store.acquire(PROJECT, 1, NOW)).allowed
        await store.rotate_key(PROJECT, digest="digest-2", key_prefix="…", now=NOW)
        admitted = await self._admitted(store, "digest-2")
        assert admitted is not None
        assert not admitted[1]
        assert (0, 100) == await store.day(PROJECT, DAY)
        assert account(1_000, 100) == await store.account("o")

    async def test_setting_up_again_does_nothing(self, store: Store) -> None:
        await self._create(store)
        await store.setup()
        assert ["shop-p"] == [project.name for project in await store.projects()]
