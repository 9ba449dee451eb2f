"""What the parts of the administration share: the stores, the clock, and who acts."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Self

from floop_gateway_core.clock import Clock
from floop_gateway_core.config.settings import PlanSettings, Settings
from floop_gateway_core.errors import AdminError, NoSuchProject
from floop_gateway_core.stores.stores import Stores
from floop_gateway_core.types import AuditLine, Project

__all__ = ["AdminBase", "Operator", "check_period"]

NOBODY = "host"
"""Who acts if nobody was named: the host's own code."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who administers. `projects` holds the names or ids that they may access; None means all projects.

    `origin` is where they come from, in the host's words (an address, say); it is kept in the audit log.
    """

    name: str
    projects: "frozenset[str] | list[str] | tuple[str, ...] | None" = None
    may_write: bool = True
    origin: str | None = None


def check_period(since: float | None, until: float | None) -> None:
    """Raise `AdminError` for a period that does not end after it begins."""
    if since is not None and until is not None and since >= until:
        raise AdminError("a period must end after it begins: until must be later than since")


@dataclass(slots=True)
class _Current:
    """The settings that hold now, shared by the copies that `acting` returns."""

    settings: Settings


class AdminBase:
    """The context of every administrative call. `acting` returns the same administration for another operator."""

    def __init__(self, settings: Settings, stores: Stores, clock: Clock, time_for_expiry: Clock) -> None:
        self._current = _Current(settings)
        self._stores = stores
        self._store = stores.store
        self._ledger = stores.ledger
        self._clock = clock
        self._time_for_expiry = time_for_expiry
        self._operator = Operator(NOBODY)

    def acting(self, operator: Operator) -> Self:
        """Return this administration acting for an operator, whose name is recorded in entries and audit lines."""
        other = copy(self)
        other._operator = operator
        return other

    def use(self, settings: Settings) -> None:
        """Replace the settings, also for the copies that `acting` returned."""
        self._current.settings = settings

    @property
    def _settings(self) -> Settings:
        return self._current.settings

    @property
    def operator(self) -> Operator:
        """Return who acts."""
        return self._operator

    async def project(self, name: str) -> Project:
        """Return a project by its name or its id; raise `NoSuchProject`."""
        project = await self._store.project(name)
        if project is None:
            raise NoSuchProject(name)
        return project

    def plan_of(self, project: Project) -> PlanSettings:
        """Return a project's plan, or the plan `default` if that is no longer configured."""
        return self._settings.plan(project.settings.plan)

    async def expire(self) -> int:
        """Void holds left by dead processes, so that balances and the log are correct; return how many."""
        return await self._ledger.expire(self._time_for_expiry())

    @property
    def _one_store(self) -> bool:
        """Return whether projects and money are in the same store, which can change both in one transaction."""
        return self._ledger is self._store

    def _line(
        self,
        what: str,
        details: Mapping[str, object] | None = None,
        *,
        project: Project | None = None,
        account: str | None = None,
    ) -> AuditLine:
        """Return the audit line of a change: who does what, when and from where."""
        return AuditLine(
            self._clock(),
            self._operator.name,
            what,
            None if project is None else project.id,
            None if project is None else project.name,
            account,
            self._operator.origin,
            details or {},
        )

    async def audit_lines(
        self, *, before: int | None = None, project: str | None = None, limit: int = 100
    ) -> list[AuditLine]:
        """Return what operators have changed, newest first, with numbers below `before`."""
        only = None if project is None else frozenset({(await self.project(project)).id})
        return await self._store.audit_lines(before=before, projects=only, limit=limit)
