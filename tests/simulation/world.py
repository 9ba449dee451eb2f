"""Lets a schedule happen: several gateways on one store, their clients and operators, in virtual time.

Nothing here waits, listens or looks at a real clock, and nothing is left to chance but by the schedule's seed: the same
schedule gives the same trace.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import anyio

from floop_gateway_core import AdminError, Gateway
from floop_gateway_core.engine.routing import Stoppable
from floop_gateway_core.errors import StoreUnavailable
from floop_gateway_core.stores.base import Store
from floop_gateway_core.types import Microcredits
from tests.simulation.auditor import Auditor, Process, Violation
from tests.simulation.client import Seen, ask
from tests.simulation.lane import LANE, Lane
from tests.simulation.link import Link, Outages, ProcessDied
from tests.simulation.loop import SimulatedLoop, new_loop
from tests.simulation.schedule import (
    PROCESSES,
    PROJECTS,
    Leave,
    Outage,
    Post,
    Reload,
    Replace,
    Rotate,
    Schedule,
    Send,
    Step,
    StepClock,
    Wait,
)
from tests.simulation.stores import InFile, InMemory, Shared
from tests.simulation.upstream import ScriptedProvider
from tests.simulation.variants import HOLD_S, TOTAL_S, VARIANTS, settings_of

__all__ = ["Ran", "run"]

OWNER = "olga"
MIDNIGHT = 20_000 * 86_400.0


@dataclass(frozen=True)
class Ran:
    """How a schedule went: line by line, and the rule that was broken, if one was."""

    trace: tuple[str, ...]
    violation: Violation | None


@dataclass(slots=True)
class _Key:
    """A project's key, and the time on the wall clock from which it opens nothing."""

    value: str
    dead_at: float = math.inf


class _Runs(dict[Stoppable, None]):
    """Stands for a set whose order is that of what was added."""

    def add(self, run: Stoppable) -> None:
        self[run] = None

    def discard(self, run: Stoppable) -> None:
        self.pop(run, None)


async def _inline(work: Callable[..., Any], *values: Any, **_: Any) -> Any:
    """Stand for a worker thread."""
    return work(*values)


class World:
    """One run of one schedule."""

    def __init__(self, schedule: Schedule, loop: SimulatedLoop, stores: Shared) -> None:
        self.schedule = schedule
        self._loop = loop
        self._stores = stores
        self._began = loop.time()
        self._clock_offset = MIDNIGHT - schedule.to_midnight_s - self._began
        self._outages = Outages(random.Random(schedule.seed))
        self._here: Process | None = None  # whose tasks begin now
        self._tasks: dict[asyncio.Task[Any], Process] = {}
        self._gateways: dict[int, Gateway] = {}
        self._places: list[Process] = []
        self._clients: dict[int, tuple[Seen, asyncio.Task[None]]] = {}
        self._keys: dict[int, list[_Key]] = {}
        self._projects: dict[int, str] = {}
        self._shown: dict[int, str] = {}
        self.trace: list[str] = []
        self.over = False
        self.auditor = Auditor(OWNER, schedule.credits, settings=VARIANTS, total_s=TOTAL_S)
        loop.set_task_factory(cast(Any, self._make_task))
        loop.set_exception_handler(self._unexpected)

    def wall(self) -> float:
        """Return the time on the wall clock, which all processes see."""
        return self._loop.time() + self._clock_offset

    # -- tasks and processes ---------------------------------------------------------------------------------------

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **named: Any
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(work, loop=loop, **named)
        owner = self._here
        running = asyncio.current_task(loop)
        if owner is None and running is not None:
            owner = self._tasks.get(running)
        if owner is not None:
            self._tasks[task] = owner
            task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, ProcessDied):
            self.auditor.unexpected.append(f"{context.get('message')}: {error!r}")

    def _start(self, place: int, variant: int) -> Process:
        process = Process(len(self.auditor.processes), place, variant, self._loop.time())
        self.auditor.processes.append(process)

        def check() -> None:
            if self.over or not process.alive:
                raise ProcessDied

        link = Link(self._stores.open(), place, self._outages, check, self.wall)
        gateway = Gateway(
            settings_of(variant),
            store=cast(Store, link),
            environ={},
            clock=self.wall,
            providers={name: ScriptedProvider(check) for name in ("a", "b")},
        )
        # A gateway takes no other monotonic clock: it is given ours, and begins again.
        gateway.runtime.monotonic = self._loop.time
        gateway.runtime.__post_init__()
        gateway.runtime.runs = cast("set[Stoppable]", _Runs())
        self._gateways[process.number] = gateway
        return process

    def _spawn(self, process: Process, work: Coroutine[Any, Any, None], lane: Lane | None) -> asyncio.Task[None]:
        """Run something in a process."""
        self._here = process
        token = LANE.set(lane)
        try:
            return self._loop.create_task(work)
        finally:
            LANE.reset(token)
            self._here = None

    async def _kill(self, process: Process) -> None:
        process.alive = False
        for _ in range(10):
            left = [task for task, owner in self._tasks.items() if owner is process]
            if not left:
                return
            for task in left:
                task.cancel()
            await self._loop.quiet()
        raise RuntimeError("a dead process does not end")

    # -- steps -----------------------------------------------------------------------------------------------------

    async def happen(self) -> None:
        """Let all of it happen; raise `Violation`."""
        await self._begin()
        for number, step in enumerate(self.schedule.steps):
            await self._do(number, step)
            await self._loop.quiet()
            self._note(str(step))
            self._audit(number)
        await self._end()

    async def _begin(self) -> None:
        self._places = [self._start(place, self.schedule.variant) for place in range(PROCESSES)]
        admin = self._gateways[0].admin
        for project in range(PROJECTS):
            credits = Microcredits(0 if project else self.schedule.credits)
            new = await admin.create_project(f"p{project}", owner=OWNER, credits=credits)
            self._keys[project] = [_Key(new.key)]
            self._projects[project] = new.project.id

    async def _do(self, number: int, step: Step) -> None:
        match step:
            case Send():
                self._send(step)
            case Leave(name, native):
                self._leave(name, native=native)
            case Wait(seconds):
                await self._wait(seconds, number)
            case StepClock(seconds):
                self._clock_offset += seconds
                self.auditor.clock_stepped(self._loop.time(), seconds)
            case Outage(seconds, effect, whose):
                self._outages.planned.append((self._loop.time() + seconds, effect, whose))
            case Replace(place, gently):
                await self._replace(place, gently=gently)
            case Reload(place, variant):
                process = self._places[place]
                self._spawn(process, self._reload(process, variant), None)
            case Rotate(project, place, grace_s):
                process = self._places[place]
                self._spawn(process, self._rotate(process, project, grace_s), None)
            case Post():
                process = self._places[step.process]
                lane = Lane(f"post{number}", random.Random(number))
                self._spawn(process, self._post(process, step), lane)

    async def _wait(self, seconds: float, number: int) -> None:
        """Let time go by, looking at the books on the way."""
        while seconds > 0:
            part = min(seconds, 2.0 if seconds < 20.0 else 20.0)
            await self._loop.pass_time(part)
            self._audit(number)
            seconds -= part

    def _send(self, step: Send) -> None:
        process = self._places[step.process]
        keys = self._keys[step.project]
        lane = Lane(f"r{step.name}", random.Random(step.seed), step.attempts)
        of = VARIANTS[process.variant]
        seen = Seen(
            step, lane, process.number, self._projects[step.project], self._loop.time(), self.wall(), of["rpm"],
            of["tokens"],
        )  # fmt: skip
        key = keys[-2] if step.old_key and len(keys) > 1 else keys[-1]
        seen.key_is_dead = key.dead_at <= seen.sent_wall
        self._clients[step.name] = seen, self._spawn(process, self._client(process, key.value, seen), lane)
        self.auditor.seen.append(seen)

    async def _client(self, process: Process, key: str, seen: Seen) -> None:
        chance = random.Random(seen.step.seed + 1)
        try:
            with anyio.CancelScope() as seen.scope:
                await ask(
                    self._gateways[process.number], key, seen, lambda: chance.choice((0.0, 0.0, 0.0, 0.05, 1.0, 7.0))
                )
                if seen.how == "running" and self._loop.time() - seen.sent_at < TOTAL_S:
                    seen.how, seen.error = "error", "the answer has no end"
        except asyncio.CancelledError:
            if process.alive:
                seen.how = "left" if seen.how == "running" else seen.how
            raise
        except ProcessDied:
            pass
        except StoreUnavailable as error:  # who leaves hears that it is settled later
            if process.alive and not (seen.how == "left" or seen.is_leaving):
                seen.how, seen.error = "error", repr(error)
        except Exception as error:
            if process.alive:
                seen.how, seen.error = "error", repr(error)
        finally:
            if seen.how == "running":
                seen.how = "left" if process.alive else "died"
            if seen.how == "refused" and seen.is_leaving:
                seen.how = "left"  # the refusal finds nobody
            seen.over = True
            seen.took_s = self._loop.time() - seen.sent_at

    def _leave(self, name: int, *, native: bool) -> None:
        if name not in self._clients:
            return
        seen, task = self._clients[name]
        if task.done() or seen.is_leaving:
            return
        seen.is_leaving = True
        if native:
            task.cancel()
        elif seen.scope is not None:
            seen.scope.cancel()

    async def _replace(self, place: int, *, gently: bool) -> None:
        process = self._places[place]
        if gently:
            process.stopped_at = self._loop.time()
            self._gateways[process.number].stop()
            self._spawn(process, self._close(process), None)
        else:
            process.crashed = True
            await self._kill(process)
        self._places[place] = self._start(place, process.variant)

    async def _close(self, process: Process) -> None:
        with _expected():
            await self._gateways[process.number].aclose()

    async def _reload(self, process: Process, variant: int) -> None:
        with _expected():
            await self._gateways[process.number].reload(settings_of(variant))
            process.variant = variant

    async def _rotate(self, process: Process, project: int, grace_s: float) -> None:
        now = self.wall()
        self.auditor.rotates(self._projects[project], self._loop.time())
        with _expected():
            new = await self._gateways[process.number].admin.rotate_key(f"p{project}", grace_s=grace_s)
            *old, last = self._keys[project]
            last.dead_at = now + grace_s
            for key in old:
                key.dead_at = -math.inf
            self._keys[project].append(_Key(new.key))

    async def _post(self, process: Process, step: Post) -> None:
        admin, id = self._gateways[process.number].admin, f"{step.kind}-{step.id}"
        with _expected():
            if step.kind != "refund":
                amount = Microcredits(step.amount)
                said = self.auditor.said(id, step.kind, amount, None)
                move = admin.grant if step.kind == "grant" else admin.debit
                said.posted(await move(OWNER, amount, id=id))
                return
            if step.request not in self._clients:
                return
            request_id = self._clients[step.request][0].request_id
            if request_id is None:
                return
            charged = (await admin.request(request_id)).microcredits
            amount = Microcredits(max(1, charged // 2 if step.halves else charged))
            said = self.auditor.said(id, step.kind, amount, request_id)
            said.posted(await admin.refund(request_id, amount, id=id))

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Let the store be well, every request end, every process deliver what it owes, and every lease run out."""
        last = len(self.schedule.steps)
        self._outages.planned.clear()
        await self._wait(2 * TOTAL_S, last)
        for process in self.auditor.processes:
            if process.alive and process.stopped_at is None:
                self._gateways[process.number].stop()
                self._spawn(process, self._close(process), None)
        await self._wait(20.0, last)
        for process in self.auditor.processes:
            await self._kill(process)
        leases = [hold.expires_at or 0.0 for hold in self._stores.source.read().holds.values() if hold.state == "open"]
        await self._loop.pass_time(max([0.0, *(until - self.wall() for until in leases)]) + 2 * HOLD_S)
        witness = self._start(0, self.schedule.variant)
        await self._gateways[witness.number].admin.expire()
        await self._loop.quiet()
        self._note("the end")
        self._audit(last, at_the_end=True)

    def _audit(self, number: int, *, at_the_end: bool = False) -> None:
        try:
            self.auditor.look(self._stores.source.read())
            if at_the_end:
                self.auditor.close()
        except Violation as violation:
            violation.step = number
            raise

    def _note(self, what: str) -> None:
        self.trace.append(f"{self._loop.time() - self._began:.3f} {what}")
        for name, (seen, _) in self._clients.items():
            if self._shown.get(name) != (line := str(seen)):
                self._shown[name] = line
                self.trace.append(f"    {line}")
        self.trace.append(f"    {self.auditor.balance()}")


@contextmanager
def _expected() -> Iterator[None]:
    """Let an operator's command fail as it may: the store is down, or what is there forbids it."""
    with suppress(StoreUnavailable, AdminError, ProcessDied):
        yield


def run(schedule: Schedule, *, sqlite: bool = False) -> Ran:
    """Run a schedule from its beginning to its end, or to the first rule that is broken."""
    stores: Shared = InFile() if sqlite else InMemory()
    loop = new_loop()
    log = logging.getLogger("floop_gateway")
    before, level = random.getstate(), log.level
    chance = random.Random(schedule.seed)
    world = World(schedule, loop, stores)
    violation: Violation | None = None
    try:
        log.setLevel(logging.CRITICAL + 1)
        random.seed(schedule.seed)
        with (
            patch("floop_gateway_core.clock.os", SimpleNamespace(urandom=chance.randbytes)),
            patch("anyio.to_thread.run_sync", _inline),
        ):
            try:
                loop.run_until_complete(world.happen())
            except Violation as error:
                violation = error
            world.over = True
            _clear(loop)
    finally:
        log.setLevel(level)
        random.setstate(before)
        loop.close()
        stores.close()
    return Ran(tuple(world.trace), violation)


def _clear(loop: SimulatedLoop) -> None:
    """End the tasks that a broken rule has left."""
    for _ in range(20):
        left = asyncio.all_tasks(loop)
        if not left:
            return
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
