"""The suite for a `ProjectStore`."""

from dataclasses import replace

from floop_gateway_core.stores.base import (
    NoSuchProject,
    ProjectExists,
    ProjectStore,
)
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, project, raised, together
from floop_gateway_core.types import Project, ProjectId, ProjectSettings

__all__ = ["ProjectSuite"]


class ProjectSuite:
    """What `ProjectStore` promises."""

    async def _create(self, store: ProjectStore, id: str = "p", digest: str = "digest-1") -> Project:
        return await store.create_project(project(id), digest=digest)

    async def test_a_new_project_is_found_by_its_name_and_by_its_key(self, store: ProjectStore) -> None:
        settings = ProjectSettings("gold", 20, 50_000)
        created = await store.create_project(project(settings=settings), digest="digest-1")
        assert created == project(settings=settings)
        assert created == await store.project("shop-p")
        assert created == await store.authenticate("digest-1", NOW)

    async def test_an_unknown_name_or_key_is_no_project(self, store: ProjectStore) -> None:
        await self._create(store)
        assert await store.project("shop-q") is None
        assert await store.project("prj_p") is None
        assert await store.authenticate("digest-2", NOW) is None

    async def test_projects_come_by_name(self, store: ProjectStore) -> None:
        assert [] == await store.projects()
        for name in ("b", "c", "a"):
            await self._create(store, name, "digest of " + name)
        assert ["shop-a", "shop-b", "shop-c"] == [project.name for project in await store.projects()]

    async def test_a_name_that_exists_is_refused_and_changes_nothing(self, store: ProjectStore) -> None:
        before = await self._create(store)
        other = replace(before, id=ProjectId("q"), owner="x", settings=ProjectSettings("gold"))
        again = store.create_project(other, digest="digest-2")
        assert ProjectExists is await raised(again)
        assert [before] == await store.projects()
        assert before == await store.authenticate("digest-1", NOW)
        assert await store.authenticate("digest-2", NOW) is None

    async def test_changed_settings_show_at_once(self, store: ProjectStore) -> None:
        before = await self._create(store)
        settings = ProjectSettings("gold", 99, None)
        after = await store.set_project(PROJECT, settings)
        assert replace(before, settings=settings) == after
        assert after == await store.project("shop-p")
        assert after == await store.authenticate("digest-1", NOW)

    async def test_a_rotation_puts_a_new_key_in_place_of_the_old(self, store: ProjectStore) -> None:
        before = await self._create(store)
        after = await store.rotate_key(PROJECT, digest="digest-2", key_prefix="flp_sk_cd34…", now=NOW + 1)
        assert replace(before, key_prefix="flp_sk_cd34…", key_created_at=NOW + 1) == after
        assert await store.authenticate("digest-1", NOW) is None
        assert after == await store.authenticate("digest-2", NOW)

    async def test_a_key_stays_revoked_through_further_rotations(self, store: ProjectStore) -> None:
        await self._create(store)
        for number in (2, 3):
            await store.rotate_key(PROJECT, digest=f"digest-{number}", key_prefix=f"flp_sk_000{number}…", now=NOW)
        active = [number for number in (1, 2, 3) if await store.authenticate(f"digest-{number}", NOW)]
        assert [3] == active

    async def test_a_rotation_leaves_other_projects_keys_alone(self, store: ProjectStore) -> None:
        await self._create(store)
        other = await self._create(store, "q", "digest-q")
        await store.rotate_key(PROJECT, digest="digest-2", key_prefix="…", now=NOW)
        assert other == await store.authenticate("digest-q", NOW)

    async def test_of_concurrent_rotations_one_key_is_active(self, store: ProjectStore) -> None:
        await self._create(store)
        digests = [f"new-{number}" for number in range(20)]
        await together([store.rotate_key(PROJECT, digest=digest, key_prefix="…", now=NOW) for digest in digests])
        active = [digest for digest in ("digest-1", *digests) if await store.authenticate(digest, NOW)]
        assert 1 == len(active)

    async def test_an_unknown_project_can_be_neither_changed_nor_rotated(self, store: ProjectStore) -> None:
        assert NoSuchProject is await raised(store.set_project(PROJECT, ProjectSettings()))
        assert NoSuchProject is await raised(store.rotate_key(PROJECT, digest="digest-1", key_prefix="…", now=NOW))
        assert await store.authenticate("digest-1", NOW) is None
        assert [] == await store.projects()
