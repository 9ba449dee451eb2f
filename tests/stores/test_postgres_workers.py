"""The threads of the PostgreSQL store answer every job, whatever happens to their connections."""

import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest

from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.stores.postgres.jobs import Job
from floop_gateway_core.stores.postgres.session import Guarded
from floop_gateway_core.stores.postgres.workers import Workers

pytestmark = pytest.mark.anyio


class Server:
    """Opens sessions that run their work in this process, until it ends them all or refuses more."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.refuses = False

    def connect(self) -> Any:
        if self.refuses:
            raise psycopg.OperationalError("too many connections")
        self.sessions.append(Session())
        return self.sessions[-1]

    def end_all(self) -> None:
        """End the sessions and refuse others."""
        self.refuses = True
        for session in self.sessions:
            session.lost = True


class Session:
    def __init__(self) -> None:
        self.began = self.lost = self.closed = False

    def transaction(self, groups: Sequence[Guarded], *, durable: bool) -> list[bool]:
        self.began = False
        if self.lost:
            raise psycopg.OperationalError("the server closed the connection")
        self.began = True
        for _, works in groups:
            for work in works:
                work(None)  # type: ignore[arg-type]
        return [True] * len(groups)

    def close(self) -> None:
        self.closed = True


async def outcomes(workers: Workers, jobs: dict[str, Job[Any]]) -> Callable[[], Awaitable[dict[str, object]]]:
    """Start jobs; return a function that waits for them."""
    found: dict[str, object] = {}
    ended = anyio.Event()

    async def run(name: str, job: Job[Any]) -> None:
        try:
            found[name] = await workers.run(job)
        except Exception as error:
            found[name] = type(error)
        if len(found) == len(jobs):
            ended.set()

    for name, job in jobs.items():
        GROUP[-1].start_soon(run, name, job)
        await anyio.sleep(0.02)

    async def wait() -> dict[str, object]:
        with anyio.fail_after(10):
            await ended.wait()
        return found

    return wait


GROUP: list[Any] = []


@pytest.fixture
async def _group() -> Any:
    async with anyio.create_task_group() as group:
        GROUP.append(group)
        yield
        GROUP.pop()


@pytest.mark.usefixtures("_group")
async def test_what_was_done_before_the_connections_are_lost_is_answered() -> None:
    server, first, second = Server(), threading.Event(), threading.Event()
    workers = Workers(server.connect, 2, 2.0)

    def lose(_: Any) -> str:
        server.end_all()
        return "done"

    def bad(_: Any) -> str:
        raise ValueError("bad")

    wait = await outcomes(
        workers,
        {
            "x": Job(lambda _: str(first.wait(5)), ("x",)),
            "y": Job(lambda _: str(second.wait(5)), ("y",)),
            "bad": Job(bad, ("a",)),
            "done": Job(lose, ("b",)),
            "left": Job(lambda _: "left", ("c",)),
        },
    )
    second.set()  # the second thread takes the three that wait, one of which fails the batch
    await anyio.sleep(0.1)
    first.set()
    found = await wait()
    assert ("done", ValueError, StoreUnavailable) == (found["done"], found["bad"], found["left"])
    await anyio.to_thread.run_sync(workers.stop)


@pytest.mark.usefixtures("_group")
async def test_stopping_ends_every_thread_and_session() -> None:
    server, busy = Server(), threading.Event()
    workers = Workers(server.connect, 4, 2.0)
    wait = await outcomes(workers, {"a": Job(lambda _: str(busy.wait(5)), ("a",))})
    server.refuses = True
    other = await outcomes(workers, {"b": Job(lambda _: "b", ("b",))})
    threading.Timer(0.1, busy.set).start()
    await anyio.to_thread.run_sync(workers.stop)
    assert {"a": "True"} == await wait()
    assert {"b": "b"} == await other()
    assert not workers._threads
    assert all(session.closed for session in server.sessions)


@pytest.mark.usefixtures("_group")
async def test_a_thread_that_cannot_be_started_fails_its_jobs_and_no_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers(Server().connect, 2, 2.0)
    with monkeypatch.context() as full:

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        full.setattr(threading.Thread, "start", start)
        with pytest.raises(StoreUnavailable, match="can't start new thread"):
            await workers.run(Job(lambda _: "a"))
    wait = await outcomes(workers, {"b": Job(lambda _: "b")})
    assert {"b": "b"} == await wait()
    await anyio.to_thread.run_sync(workers.stop)
