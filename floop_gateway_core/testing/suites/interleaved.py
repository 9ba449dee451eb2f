"""Runs random commands over several connections to one store: each answer must equal that of an in-memory store."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from floop_gateway_core.policy import ledger
from floop_gateway_core.stores.base import HoldRequest, Posting, Store, WindowLimit
from floop_gateway_core.stores.memory import MemoryStore
from floop_gateway_core.testing.suites.facts import DAY, NOW, TTL_S, hold_request, settlement
from floop_gateway_core.types import Microcredits, ProjectId, RequestId

__all__ = ["SEEDS", "InterleavedSuite"]

SEEDS = range(12)
STEPS = 80
OWNERS = ("a", "b", "c")
PROJECTS = {"p": "a", "q": "a", "r": "b"}


class InterleavedSuite:
    """Subclass it with a fixture `stores`: at least two open stores over the same empty database."""

    async def test_commands_in_turns_are_answered_like_those_of_one_store(self, stores: Sequence[Store]) -> None:
        for seed in SEEDS:
            await _Schedule(seed, stores).run()


class _Schedule:
    """The commands of one seed. Ids and owners carry the seed, so that schedules do not meet."""

    def __init__(self, seed: int, stores: Sequence[Store]) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._stores = stores
        self._reference = MemoryStore()
        self._now = NOW
        self._holds: list[HoldRequest] = []
        self._trace: list[str] = []

    async def run(self) -> None:
        commands = (
            self._hold, self._hold, self._hold_again, self._settle, self._settle, self._settle, self._settle_unknown,
            self._grant, self._post, self._refund, self._named_hold, self._acquire, self._windows, self._wait,
        )  # fmt: skip
        for _ in range(STEPS):
            await self._random.choice(commands)()
        await self._same("the end", self._everything)

    async def _same(self, said: str, call: Callable[[Any], Awaitable[object]]) -> None:
        self._trace.append(said)
        wanted = await call(self._reference)
        found = await call(self._random.choice(self._stores))
        trace = "\n".join(self._trace)
        assert wanted == found, f"seed {self._seed}: {wanted} is not {found} after\n{trace}"

    def _owner(self, name: str) -> str:
        return f"{name}-{self._seed}"

    def _project(self, name: str) -> ProjectId:
        return ProjectId(f"{name}-{self._seed}")

    async def _hold(self) -> None:
        name = self._random.choice(list(PROJECTS))
        request = hold_request(
            f"req_{self._seed}_{len(self._holds)}",
            project=self._project(name),
            owner=self._owner(PROJECTS[name]),
            fixed_tokens=self._random.randrange(50),
            output_tokens=self._random.randrange(50),
            microcredits_per_token=self._random.choice((0, 1, 7)),
            budget_tokens=self._random.choice((40, 300, 10_000)),
            now=self._now,
        )
        self._holds.append(request)
        await self._same(f"hold {request}", lambda store: store.hold(request))

    async def _hold_again(self) -> None:
        if self._holds:
            request = self._random.choice(self._holds)
            await self._same(f"hold again {request}", lambda store: store.hold(request))

    async def _settle(self) -> None:
        if not self._holds:
            return
        request = self._random.choice(self._holds[-8:])
        charge = self._random.choice((None, 0, 5, 60, 900))
        settled = settlement(request, charge, tokens=self._random.randrange(60))
        await self._same(f"settle {settled}", lambda store: store.settle(settled))

    async def _settle_unknown(self) -> None:
        request = hold_request(
            f"req_{self._seed}_u{len(self._trace)}", project=self._project("p"), owner=self._owner("a")
        )
        self._holds.append(request)
        settled = settlement(request, self._random.choice((None, 9)))
        await self._same(f"settle unknown {settled}", lambda store: store.settle(settled))

    async def _grant(self) -> None:
        owner, amount = self._owner(self._random.choice(OWNERS)), Microcredits(self._random.randrange(400))
        await self._same(f"grant {owner} {amount}", lambda store: store.grant_credits(owner, amount, self._now))

    async def _post(self) -> None:
        posting = Posting(
            self._random.choice(("grant", "debit")),
            self._owner(self._random.choice(OWNERS)),
            Microcredits(self._random.randrange(1, 300)),
            self._now,
            id=self._random.choice((None, "one", "two", "three")),
        )
        await self._posted(posting)

    async def _refund(self) -> None:
        if not self._holds:
            return
        request = self._random.choice(self._holds)
        amount = Microcredits(self._random.randrange(1, 80))
        refund = Posting("refund", request.owner, amount, self._now, request_id=RequestId(request.record.request_id))
        await self._posted(refund)

    async def _posted(self, posting: Posting) -> None:
        """Compare postings without the numbers of their entries, which differ between stores."""

        async def amounts(store: Store) -> object:
            posted = await store.post(posting)
            entry = getattr(posted, "entry", None)
            return (
                type(posted),
                getattr(posted, "account", None),
                entry and (entry.kind, entry.amount, entry.posted_after),
            )

        await self._same(f"post {posting}", amounts)

    async def _named_hold(self) -> None:
        id = f"job-{self._seed}-{self._random.randrange(6)}"
        command = self._random.choice((ledger.Place(Microcredits(30)), ledger.Capture(Microcredits(20)), ledger.Void()))
        owner = self._owner("c") if isinstance(command, ledger.Place) else None
        until = self._now + TTL_S
        await self._same(
            f"named hold {id} {command}",
            lambda store: store.apply_named_hold(id, owner, command, now=self._now, expires_at=until),
        )

    async def _acquire(self) -> None:
        project, limit = self._project("p"), self._random.choice((3, 5))
        await self._same(f"acquire {limit}", lambda store: store.acquire(project, limit, self._now))

    async def _windows(self) -> None:
        windows = [WindowLimit(f"w{self._seed}", 2, 10.0), WindowLimit(f"w{self._seed}", 4, 60.0)]

        async def spent(store: Store) -> object:
            return list(await store.acquire_windows(windows, self._now))

        await self._same("windows", spent)

    async def _wait(self) -> None:
        self._now += self._random.choice((0.5, 7.0, 61.0, TTL_S))
        await self._same(f"now {self._now - NOW}", self._expired)  # a store may void them earlier, or not

    async def _expired(self, store: Store) -> None:
        await store.expire(self._now)
        await store.expire_named_holds(self._now)

    async def _everything(self, store: Store) -> object:
        names = {self._owner(name) for name in OWNERS}
        await store.expire(self._now + 2 * TTL_S)
        accounts = [await store.account(owner) for owner in sorted(names)]
        days = [await store.day(self._project(name), DAY + later) for name in PROJECTS for later in (0, 1)]
        records = [await store.record(RequestId(one.record.request_id)) for one in self._holds]
        entries = [
            [(entry.kind, entry.amount, entry.posted_after) for entry in await store.entries(owner)]
            for owner in sorted(names)
        ]
        return accounts, days, records, entries
