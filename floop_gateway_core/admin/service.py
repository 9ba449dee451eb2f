"""The administration: projects, keys, accounts.

A key is generated here and returned once; only its digest is stored. A rotation replaces the old key in one
transaction; after the commit, in the process that rotated, the host's hook is called, so that a platform can redeploy.
"""

import inspect
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from floop_gateway_core.admin.log import LogAdmin
from floop_gateway_core.clock import Clock, new_project_id, system_clock
from floop_gateway_core.config.settings import Settings
from floop_gateway_core.errors import AdminError, Forbidden
from floop_gateway_core.money import Credits, format_credits, to_microcredits
from floop_gateway_core.policy.budget import DAY_S, utc_day
from floop_gateway_core.policy.ledger import MAX_MICROCREDITS, Account
from floop_gateway_core.stores.base import Posting
from floop_gateway_core.stores.stores import Stores
from floop_gateway_core.types import Project, ProjectSettings, Suspension
from floop_gateway_core.types.amounts import OWN_ACCOUNT, ZERO_CREDITS, Microcredits
from floop_gateway_core.wire import keys

__all__ = ["NAME", "Admin", "KeyRotated", "KeyRotatedHook", "NewKey", "ProjectStatus"]

log = logging.getLogger("floop_gateway")

MAX_GRACE_S = 86_400
"""The longest time that an old key is accepted beside the new one."""
MAX_PRUNED = 1000
"""Rows deleted in one transaction, so that pruning never keeps requests waiting."""
MAX_COUNT = 10**12
"""Bounds the limits that an operator may set, like the configuration does."""
NAME = r"[A-Za-z0-9_@:+~-][A-Za-z0-9._@:+~-]{0,99}"
"""What the names of new projects and owners match."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A project and its new key, which cannot be read again later."""

    project: Project
    key: str = field(repr=False)
    hook_error: Exception | None = None
    """What the host's hook raised after a rotation, which remains valid."""


@dataclass(frozen=True, slots=True)
class KeyRotated:
    """What the host's hook receives."""

    project: str
    owner: str
    key_prefix: str
    key: str = field(repr=False)


KeyRotatedHook: TypeAlias = Callable[[KeyRotated], object | Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """A project, its effective limits, its account, and what is left of today's budget."""

    project: Project
    requests_per_minute: int
    daily_tokens: int
    account: Account
    tokens_used_today: int
    tokens_held_today: int

    @property
    def tokens_left_today(self) -> int:
        """Return the tokens of today's budget that are neither used nor held."""
        return max(0, self.daily_tokens - self.tokens_used_today - self.tokens_held_today)


class Admin(LogAdmin):
    """The operations of an operator: projects and their keys, plus money and the log from the base classes.

    Every change writes an audit line in the operator's name; see `acting`.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        clock: Clock = system_clock,
        on_key_rotated: KeyRotatedHook | None = None,
        time_for_expiry: Clock | None = None,
    ) -> None:
        super().__init__(settings, stores, clock, time_for_expiry or clock)
        self._hook = on_key_rotated

    async def create_project(
        self,
        name: str,
        *,
        owner: str | None = None,
        settings: ProjectSettings | None = None,
        credits: Credits = ZERO_CREDITS,
    ) -> NewKey:
        """Create a project and its key; raise `AdminError`, or `ProjectExists`, which changes nothing."""
        _check_name("project", name)
        if owner is not None:
            _check_name("owner", owner)
            if owner.startswith(OWN_ACCOUNT):
                raise AdminError(f"an owner's name may not start with {OWN_ACCOUNT!r}: that is a project's own account")
        settings = settings or ProjectSettings()
        self._check_settings(settings)
        owner = owner or OWN_ACCOUNT + name
        amount = to_microcredits(credits)
        _check_balance(await self._ledger.account(owner), amount)
        key = _mint()
        now = self._clock()
        project = Project(new_project_id(now), name, owner, settings, keys.short(key), now, now)
        details = {"plan": settings.plan, "owner": owner, "credits": format_credits(amount)}
        await self._store.create_project(
            project,
            digest=keys.digest(key),
            credits=amount if self._one_store else ZERO_CREDITS,
            by=self._operator.name,
            line=self._line("create", details, project=project),
        )
        if amount and not self._one_store:
            await self._ledger.post(Posting("grant", owner, amount, now, project_id=project.id, by=self._operator.name))
        return NewKey(project, key)

    async def rotate_key(self, name: str, *, grace_s: float = 0.0) -> NewKey:
        """Generate a new key, revoke the old one (after `grace_s`), and call the host's hook.

        The hook is loaded first, so if it cannot be loaded (`ConfigError`) nothing changes. An exception that it raises
        does not undo the rotation: it is logged and returned as `hook_error`.
        """
        hook = self._hook or self._settings.hooks.load("key_rotated")
        if not 0 <= grace_s <= MAX_GRACE_S:
            raise AdminError(f"grace_s must be from 0 to {MAX_GRACE_S}, got {grace_s}")
        key, now = _mint(), self._clock()
        project = await self.project(name)
        project = await self._store.rotate_key(
            project.id,
            digest=keys.digest(key),
            key_prefix=keys.short(key),
            now=now,
            grace_until=now + grace_s if grace_s else None,
            line=self._line("rotate-key", {"key_prefix": keys.short(key), "grace_s": grace_s}, project=project),
        )
        rotated = KeyRotated(project.name, project.owner, project.key_prefix, key)
        error = None if hook is None else await _call_hook(hook, rotated)
        return NewKey(project, key, error)

    async def suspend(self, name: str) -> Project:
        """Refuse a project's requests from now on; running requests finish and are billed. Raises `NoSuchProject`."""
        project = await self.project(name)
        if project.suspension is not None and (project.suspension.by_operator or self._operator.projects is not None):
            return project
        suspension = Suspension(self._clock(), by_operator=self._operator.projects is None)
        return await self._store.suspend(project.id, suspension, line=self._line("suspend", project=project))

    async def resume(self, name: str) -> Project:
        """Serve a suspended project again.

        Raises `NoSuchProject`, and `Forbidden` if an operator of all projects has suspended it and another one resumes.
        """
        project = await self.project(name)
        if project.suspension is None:
            return project
        if project.suspension.by_operator and self._operator.projects is not None:
            raise Forbidden(
                f"project {project.name!r} was suspended by an operator of all projects, who must resume it"
            )
        return await self._store.suspend(project.id, None, line=self._line("resume", project=project))

    async def delete_project(self, name: str, *, erase: bool = False) -> None:
        """Delete a project: its key stops working, its name becomes free, and a later namesake inherits nothing.

        Running requests finish and are billed. The project's own account closes with its last hold; an owner's
        account is kept. Records are kept until retention removes them; `erase` replaces the name in them by the id.
        """
        project = await self.project(name)
        line = self._line("delete", {"erase": erase}, project=project)
        await self._store.delete_project(project.id, now=self._clock(), erase=erase, line=line)

    async def change_settings(self, name: str, **changes: object) -> Project:
        """Change the named settings of a project (`plan`, `requests_per_minute`, `daily_tokens`) and keep the others.

        None resets a limit to the plan's value.
        """
        project = await self.project(name)
        if not changes:
            return project
        settings = replace(project.settings, **changes)  # type: ignore[arg-type]
        self._check_settings(settings)
        return await self._store.set_project(
            project.id, settings, line=self._line("settings", changes, project=project)
        )

    async def projects(self, *, deleted: bool = False) -> list[Project]:
        """Return all projects, ordered by name; if `deleted`, those that were deleted too, as their records remain."""
        return await self._store.projects(deleted=deleted)

    async def status(self, name: str) -> ProjectStatus:
        """Return a project's status; raise `NoSuchProject`."""
        project = await self.project(name)
        await self.expire()
        plan = self.plan_of(project)
        used, held = await self._ledger.day(project.id, utc_day(self._clock()))
        return ProjectStatus(
            project,
            project.settings.requests_per_minute or plan.requests_per_minute,
            project.settings.daily_tokens or plan.daily_tokens,
            await self._ledger.account(project.owner) or Account(),
            used,
            held,
        )

    async def prune(self, *, limit: int = MAX_PRUNED) -> int:
        """Delete up to `limit` records and entries older than `[retention]` allows, and old holds; return how many.

        The old entries of an account are replaced by a single entry with their sum.
        """
        kept = self._settings.retention
        return await self._stores.prune(
            self._clock(), retention_s=kept.usage_days * DAY_S, entries_s=kept.entries_days * DAY_S, limit=limit
        )

    def _check_settings(self, settings: ProjectSettings) -> None:
        if settings.plan not in self._settings.plan_names:
            known = ", ".join(self._settings.plan_names)
            raise AdminError(f"unknown plan {settings.plan!r}; configured plans: {known}")
        for what, value in (("rpm", settings.requests_per_minute), ("daily tokens", settings.daily_tokens)):
            if value is not None and not 1 <= value <= MAX_COUNT:
                raise AdminError(f"{what} must be from 1 to {MAX_COUNT}, got {value}")


def _check_balance(account: Account | None, credits: Microcredits) -> None:
    if account is not None and credits > MAX_MICROCREDITS - account.posted:
        raise AdminError(f"the balance would exceed the maximum of {format_credits(MAX_MICROCREDITS)} credits")


def _check_name(what: str, name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise AdminError(
            f"{what} {name!r}: a name must be 1 to 100 letters of ASCII, digits and ._@:+~-, and must not begin with '.'"
        )


async def _call_hook(hook: KeyRotatedHook, rotated: KeyRotated) -> Exception | None:
    try:
        result = hook(rotated)
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        # Without a traceback: the hook got the key, and its exception may contain it.
        log.error("the key_rotated hook failed for project %s: %s", rotated.project, type(error).__name__)
        return error
    return None


def _mint() -> str:
    return keys.KEY_PREFIX + "".join(secrets.choice(keys.KEY_ALPHABET) for _ in range(keys.KEY_LENGTH))
