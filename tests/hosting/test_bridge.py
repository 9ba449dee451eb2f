"""The synchronous bridge by itself: threads, forks, bounds, and what stays behind when a host goes away."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from floop_gateway_core import Gateway, GatewayRequest
from floop_gateway_core.hosting.bridge import BUFFER_BYTES, BlockingBody, Bridge, SyncReply
from floop_gateway_core.hosting.threaded_body import ThreadedBody
from floop_gateway_core.testing import Hold, Reply, ScriptedUpstream
from tests.serving import gateway_of, held, records, until

ENDLESS = Reply(["x" * 10_000], endless=True)


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[ScriptedUpstream, BlockingPortal]]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(ScriptedUpstream()) as upstream:
        yield upstream, portal


MADE: list[Gateway] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the upstream connections of the gateways that a test has made."""
    yield
    while MADE:
        Bridge(MADE[-1]).call(MADE.pop().aclose)


def asking(scripted: ScriptedUpstream, **settings: Any) -> tuple[Gateway, str]:
    one = {
        "provider": "openai",
        "model": "scripted",
        "base_url": scripted.base_url("openai"),
        "microcredits_per_token": 1,
    }
    routes = {alias: ["scripted"] for alias in ("fast", "smart", "reason")}
    plan = {"output_tokens": 10_000_000}
    gateway, key = gateway_of(deployments={"scripted": one}, routes=routes, plan=plan, **settings)
    MADE.append(gateway)
    return gateway, key


def request_of(key: str, body: object, path: str = "/generate") -> GatewayRequest:
    return GatewayRequest("POST", path, [("Authorization", f"Bearer {key}")], json.dumps(body).encode())


def opened(gateway: Gateway, key: str, **body: Any) -> tuple[SyncReply, BlockingBody]:
    reply = Bridge(gateway).open(request_of(key, {"prompt": "hi", "stream": True, **body}))
    assert isinstance(reply.body, BlockingBody)
    return reply, reply.body


def test_a_plain_answer_is_bytes_and_a_stream_an_iterator() -> None:
    gateway, key = gateway_of()
    plain = Bridge(gateway).open(request_of(key, {"prompt": "one two"}))
    assert isinstance(plain.body, bytes)
    assert (200, "one two") == (plain.status, json.loads(plain.body)["content"])
    reply, chunks = opened(gateway, key, prompt="one two")
    assert ("Content-Type", "text/event-stream") in reply.headers
    assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
    assert ["complete"] * 2 == [record.ending for record in records(gateway)]


def test_all_that_is_ready_is_one_piece() -> None:
    gateway, key = gateway_of()
    _, chunks = opened(gateway, key, prompt="word " * 1000)
    assert chunks.wait_left(10)
    whole = next(chunks)
    assert 1000 == whole.count(b'{"text": "word "}')
    assert whole.endswith(b"data: [DONE]\n\n")
    with pytest.raises(StopIteration):
        next(chunks)


def test_the_first_chunk_is_there_before_the_last_exists(scripted: tuple[ScriptedUpstream, BlockingPortal]) -> None:
    upstream, portal = scripted
    gateway, key = asking(upstream)
    release = portal.call(anyio.Event)
    portal.call(upstream.script, Reply(["first", "last"], hold=Hold(release, texts=1)))
    _, chunks = opened(gateway, key)
    assert b'data: {"text": "first"}\n\n' == next(chunks)
    portal.call(release.set)
    assert b"".join(chunks).endswith(b"data: [DONE]\n\n")


def test_a_host_that_reads_nothing_holds_the_upstream_up(scripted: tuple[ScriptedUpstream, BlockingPortal]) -> None:
    upstream, portal = scripted
    gateway, key = asking(upstream)
    portal.call(upstream.script, ENDLESS)
    _, chunks = opened(gateway, key)
    request = upstream.requests[-1]
    last, pause = -1, threading.Event()
    while last != (last := request.texts_sent):
        pause.wait(0.2)
    # The owner stops at the chunk that fills the buffer; a chunk is what came in one read of the upstream.
    assert BUFFER_BYTES <= sum(map(len, chunks._ready)) < BUFFER_BYTES + 1_000_000
    sizes = [len(next(chunks)) for _ in range(50)]
    assert max(sizes) < BUFFER_BYTES + 1_000_000
    chunks.close()
    until(lambda: request.cut)
    until(lambda: records(gateway))
    assert [("client_gone", 200)] == [(record.ending, record.status) for record in records(gateway)]
    assert 0 == held(gateway)


def test_closing_settles_once_however_often_and_whenever(scripted: tuple[ScriptedUpstream, BlockingPortal]) -> None:
    upstream, portal = scripted
    gateway, key = asking(upstream)
    portal.call(upstream.script, ENDLESS)
    _, chunks = opened(gateway, key)
    for _ in range(3):
        chunks.close()
    assert chunks.wait_left(10)
    chunks.close()
    assert ["client_gone"] == [record.ending for record in records(gateway)]
    with pytest.raises(TimeoutError):  # what was cut off never looks like an end
        list(chunks)


def test_a_host_that_never_comes_back_is_ended_at_total_s(scripted: tuple[ScriptedUpstream, BlockingPortal]) -> None:
    upstream, portal = scripted
    gateway, key = asking(upstream, upstream={"total_s": 0.3})
    portal.call(upstream.script, ENDLESS)
    threads = threading.active_count()
    _, chunks = opened(gateway, key)
    assert chunks.wait_left(10)
    (record,) = records(gateway)
    assert ("client_gone", 200, 0) == (record.ending, record.status, held(gateway))
    assert not chunks._process.open & {chunks}
    assert threading.active_count() <= threads + 2
    with pytest.raises(TimeoutError):
        list(chunks)


def test_100_threads_at_once_use_one_portal() -> None:
    gateway, key = gateway_of()

    def ask(number: int) -> bytes:
        _, chunks = opened(gateway, key, prompt=f"number {number}")
        return b"".join(chunks)

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(ask, range(100)))
    assert all(f'{{"text": "{number}"}}'.encode() in answer for number, answer in enumerate(answers))
    assert 1 == [thread.name for thread in threading.enumerate()].count("floop-gateway")


def test_1000_streams_closed_anywhere_leave_one_record_each() -> None:
    gateway, key = gateway_of(plan={"daily_tokens": 10**12})

    def ask(number: int) -> None:
        _, chunks = opened(gateway, key, prompt="word " * 2000)
        for _ in range(number % 4):
            next(chunks, None)
        chunks.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(1000)))
    until(lambda: len(records(gateway)) == 1000)
    assert 0 == held(gateway)


def test_a_gateway_that_breaks_is_an_error_in_the_hosts_thread() -> None:
    gateway, _ = gateway_of()

    def broken(_: GatewayRequest) -> Any:
        raise LookupError("broken")

    gateway.open = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(LookupError):
        Bridge(gateway).open(GatewayRequest("POST", "/chat", []))


def test_call_runs_in_the_gateways_loop() -> None:
    gateway, key = gateway_of()
    new = Bridge(gateway).call(gateway.rotate_key, "p")
    assert new != key
    assert 200 == Bridge(gateway).open(request_of(new, {"prompt": "hi"})).status


# -- bodies ------------------------------------------------------------------------------------------------------------


class Trickle:
    """A file whose every read waits until it is let go, and gives one byte."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.reading = 0

    def read(self, size: int, /) -> bytes:
        self.reading += 1
        assert 1 == self.reading, "two threads read at once"
        self.go.acquire()
        self.reading -= 1
        return b"x"


@pytest.mark.anyio
async def test_a_read_that_was_given_up_is_taken_up_by_the_next(anyio_backend_name: str) -> None:
    source = Trickle()
    body = ThreadedBody(source, 3)
    for _ in range(3):
        with anyio.move_on_after(0.05) as scope:
            await body.read()
        assert scope.cancelled_caught
        assert body.blocked
    for _ in range(3):
        source.go.release()
        assert b"x" == await body.read()
        assert not body.blocked
    assert [b"", b""] == [await body.read(), await body.read()]


@pytest.mark.anyio
async def test_a_read_that_is_cancelled_before_it_begins_is_not_blocked() -> None:
    body = ThreadedBody(Trickle(), 3)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await body.read()
    assert not body.blocked


def test_a_body_that_stalls_is_answered_and_then_its_connection_cannot_be_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("floop_gateway_core.http.body.DRAIN_TIMEOUT_S", 0.2)
    gateway, key = gateway_of(body_s=0.2)
    source = Trickle()
    headers = [("Authorization", f"Bearer {key}"), ("Content-Length", "9")]
    reply = Bridge(gateway).open(GatewayRequest("POST", "/chat", headers, ThreadedBody(source, 9)))
    assert isinstance(reply.body, BlockingBody)
    assert (400, "INVALID_BODY") == (reply.status, json.loads(next(reply.body))["error"]["code"])
    with pytest.raises(Exception, match="cannot be used again"):
        next(reply.body)
    source.go.release()


def test_stalled_bodies_do_not_keep_others_waiting() -> None:
    gateway, key = gateway_of()
    sources = [Trickle() for _ in range(60)]
    headers = [("Authorization", f"Bearer {key}"), ("Content-Length", "1")]
    bridge = Bridge(gateway)
    with ThreadPoolExecutor(60) as pool:
        stalled = [
            pool.submit(bridge.open, GatewayRequest("POST", "/chat", headers, ThreadedBody(source, 1)))
            for source in sources
        ]
        until(lambda: all(source.reading for source in sources))
        started = time.monotonic()
        assert 200 == bridge.open(request_of(key, {"prompt": "hi"})).status
        assert time.monotonic() - started < 2
        for source in sources:
            source.go.release()
        assert {400} == {one.result(20).status for one in stalled}


# -- processes ---------------------------------------------------------------------------------------------------------

SCRIPT = """
    import functools, json, os, sys, threading, time
    from floop_gateway_core import Gateway, GatewayRequest, Settings
    from floop_gateway_core.hosting.bridge import Bridge

    def settings(store, words_per_second=0):
        echo = dict(provider="echo", microcredits_per_token=1, words_per_second=words_per_second)
        routes = dict(fast=["echo"], smart=["echo"], reason=["echo"])
        plans = dict(default=dict(requests_per_minute=1000, daily_tokens=10**9))
        return Settings.read(dict(store=store, plans=plans, deployments=dict(echo=echo), routes=routes), source="test")

    def ask(bridge, key, prompt="one two", stream=False):
        body = json.dumps(dict(prompt=prompt, stream=stream)).encode()
        return bridge.open(GatewayRequest("POST", "/generate", [("Authorization", f"Bearer {key}")], body))

    def project(bridge):
        make = functools.partial(bridge.gateway.admin.create_project, "p", credits=10**12)
        return bridge.call(make).key
"""


def run(script: str, *words: str, most_s: float = 30) -> str:
    """Run a script in an interpreter of its own; it ends by itself, quietly."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process",
            "-c",
            textwrap.dedent(SCRIPT) + textwrap.dedent(script),
            *words,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=most_s,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_a_process_that_ends_with_an_open_stream_settles_it(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/gateway.db"
    started = time.monotonic()
    run(
        """
        bridge = Bridge(Gateway(settings(sys.argv[1], 20)))
        reply = ask(bridge, project(bridge), "word " * 500, stream=True)
        next(reply.body)
        """,
        store,
    )
    assert time.monotonic() - started < 10
    ends = """
        bridge = Bridge(Gateway(settings(sys.argv[1])))
        async def usage():
            return [record.ending async for record in bridge.gateway.store.usage()]
        print(bridge.call(usage), bridge.call(bridge.gateway.store.account, "project:p").held)
        """
    assert "['client_gone'] 0\n" == run(ends, store)


def test_a_portal_that_was_used_before_a_fork_is_started_anew_in_the_child(tmp_path: Path) -> None:
    """Twice over: the parent goes on with its own, and every process ends by itself."""
    script = """
        bridge = Bridge(Gateway(settings(sys.argv[1])))
        key = project(bridge)
        assert 200 == ask(bridge, key).status
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                threads = [threading.Thread(target=lambda: answers.append(ask(bridge, key).status)) for _ in range(3)]
                answers = []
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
                assert b"[DONE]" in b"".join(ask(bridge, key, stream=True).body)
                sys.exit(0 if answers == [200] * 3 else 7)
            children.append(child)
        assert 200 == ask(bridge, key).status
        print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
        """
    assert "[0, 0, 0]\n" == run(script, f"sqlite:///{tmp_path}/gateway.db")


def test_a_process_that_never_asked_has_no_thread() -> None:
    assert "1\n" == run("Bridge(Gateway(settings('memory://')))\nprint(threading.active_count())")
