"""What one operator may see and do: a permission layer over the shared administration.

Objects that an operator may not see are reported as missing; this is checked before any permission to act.
"""

from collections.abc import Mapping

from floop_gateway_core.admin import Operator, ProjectStatus
from floop_gateway_core.config import PlanSettings
from floop_gateway_core.errors import Forbidden, NoSuchAccount, NoSuchProject, NoSuchRequest
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.types import Project, ProjectId, UsageRecord

__all__ = ["Desk"]


class Desk:
    """Made for one request; `admin` acts in the operator's name."""

    def __init__(self, gateway: Gateway, operator: Operator) -> None:
        self.gateway = gateway
        self.operator = operator
        self.admin = gateway.admin.acting(operator)
        self._names: dict[str, str] | None = None

    @property
    def sees_all(self) -> bool:
        """Return whether the operator has access to all projects."""
        return self.operator.projects is None

    async def visible(self) -> list[Project]:
        """Return the projects that the operator may see, ordered by name."""
        every = await self.admin.projects()
        theirs = self.operator.projects
        return every if theirs is None else [one for one in every if one.name in theirs or one.id in theirs]

    async def ids(self) -> frozenset[ProjectId] | None:
        """Return the ids of the visible projects; None is all, deleted ones too."""
        return None if self.sees_all else frozenset(one.id for one in await self.visible())

    async def names(self) -> Mapping[str, str]:
        """Return the names of the projects by their ids."""
        if self._names is None:
            self._names = {one.id: one.name for one in await self.admin.projects()}
        return self._names

    async def project(self, name: str) -> Project:
        """Return a visible project by its name or id; raise `NoSuchProject`."""
        project = await self.admin.project(name)
        theirs = self.operator.projects
        if theirs is not None and project.name not in theirs and project.id not in theirs:
            raise NoSuchProject(name)
        return project

    async def logged(self, name: str) -> ProjectId:
        """Return the id of a project whose records are visible: a deleted one too, by its id; raise `NoSuchProject`."""
        try:
            return (await self.project(name)).id
        except NoSuchProject:
            if (self.sees_all or name in (self.operator.projects or ())) and any(
                one.id == name for one in await self.admin.projects(deleted=True)
            ):
                return ProjectId(name)
            raise

    async def status(self, name: str) -> tuple[ProjectStatus, PlanSettings]:
        """Return a visible project's status and its plan."""
        project = await self.project(name)
        return await self.admin.status(project.id), self.admin.plan_of(project)

    async def account(self, owner: str) -> None:
        """Raise `NoSuchAccount` unless all projects of this owner are visible, and there is one."""
        if self.sees_all:
            return
        theirs = {one.id for one in await self.visible()}
        owned = [one.id for one in await self.admin.projects() if one.owner == owner]
        if not owned or not theirs.issuperset(owned):
            raise NoSuchAccount(owner)

    async def record(self, request_id: str) -> UsageRecord:
        """Return a visible record; raise `NoSuchRequest`."""
        record = await self.admin.request(request_id)
        ids = await self.ids()
        if ids is not None and record.project_id not in ids:
            raise NoSuchRequest(request_id)
        return record

    def must_write(self) -> None:
        """Raise `Forbidden` for an operator who only reads."""
        if not self.operator.may_write:
            raise Forbidden("this operator has read-only access")

    def must_see_all(self) -> None:
        """Raise `Forbidden` unless the operator has access to all projects."""
        if not self.sees_all:
            raise Forbidden("only an operator with access to all projects may do this")
