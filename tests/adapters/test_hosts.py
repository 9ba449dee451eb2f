"""One contract suite over every host: what a client sees, and what stays behind, is the same under all of them."""

import json
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from floop_gateway_core.testing import Hold, Reply
from floop_gateway_core.types import Usage
from tests.adapters.world import SERVERS, STARLETTE_HOSTS, World, world_in
from tests.serving import MOUNT, post, raw, until


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("hosts")) as world:
        yield world


@pytest.fixture(scope="module", params=SERVERS)
def server(world: World, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    with world.serving(request.param) as (address, _):
        yield request.param, address


@pytest.fixture
def address(server: tuple[str, str]) -> str:
    return server[1]


@contextmanager
def streaming(url: str, key: str, **body: Any) -> Iterator[Iterator[bytes]]:
    """Open a stream of its own connection; leaving closes it at once, whatever is still on its way."""
    with (
        httpx.Client(timeout=30) as client,
        client.stream(
            "POST", f"{url}/generate", json={"stream": True, **body}, headers={"Authorization": f"Bearer {key}"}
        ) as answer,
    ):
        assert 200 == answer.status_code
        yield answer.iter_raw()


def test_it_serves_the_contract(world: World, server: tuple[str, str]) -> None:
    _, key = world.project()
    name, address = server
    url = address + MOUNT
    plain = post(f"{url}/chat", key, {"messages": [{"role": "user", "content": "one two"}]})
    assert (200, "one two") == (plain.status_code, plain.json()["content"])
    assert ("application/json", "echo") == (plain.headers["content-type"], plain.headers["x-gateway-model"])
    stream = post(f"{url}/generate", key, {"prompt": "one two", "stream": True})
    assert 'data: {"text": "one "}\n\ndata: {"text": "two"}\n\n' == stream.text[:47]
    assert stream.text.endswith('"finishReason": "end_turn"}\n\ndata: [DONE]\n\n')
    assert ("text/event-stream", "no-store, no-transform", "no") == tuple(
        stream.headers[name] for name in ("content-type", "cache-control", "x-accel-buffering")
    )
    for path, status in (("/chat/", 404), ("/nope", 404), ("/", 404), ("", 404), ("/a%0Ab", 404), ("/%63hat", 400)):
        if path in ("", "/a%0Ab") and name in STARLETTE_HOSTS:
            continue  # not below the mount for Starlette: it leads the bare path to the one with a slash
        answer = post(url + path, key, {})
        assert (path, status) == (path, answer.status_code)
        assert answer.headers["x-request-id"].startswith("req_")
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        answer = httpx.request(method, f"{url}/chat")
        assert (405, "POST") == (answer.status_code, answer.headers["allow"])
        assert (method == "HEAD") == (answer.content == b"")
    assert 401 == post(f"{url}/chat", "flp_sk_" + "x" * 33, {}).status_code
    assert 400 == post(f"{url}/chat", key, b"{").status_code
    assert 501 == post(f"{url}/embed", key, b"x").status_code
    assert "the host's own" == httpx.get(f"{address}/hello").text
    theirs = httpx.get(f"{url}x/chat")
    assert (404, False) == (theirs.status_code, "x-request-id" in theirs.headers)


def test_a_chunked_body_is_read_to_its_end(world: World, server: tuple[str, str]) -> None:
    _, key = world.project()
    name, address = server
    if name == "development":
        pytest.skip("it speaks HTTP/1.0, where there are no chunks")
    body = json.dumps({"prompt": "word " * 50_000}).encode()
    with httpx.Client(timeout=30) as client:
        pieces = (body[at : at + 1000] for at in range(0, len(body), 1000))
        headers = {"Authorization": f"Bearer {key}"}
        answer = client.post(f"{address}{MOUNT}/generate", content=pieces, headers=headers)
    assert (200, "word " * 50_000) == (answer.status_code, answer.json()["content"])


def test_the_first_frame_leaves_before_the_last_exists(world: World, address: str) -> None:
    project, key = world.project()
    release = world.portal.call(anyio.Event)
    world.script(Reply(["first", "last"], usage=Usage(3, 2), hold=Hold(release, texts=1)))
    with streaming(address + MOUNT, key, prompt="hi", model="scripted") as chunks:
        assert b'data: {"text": "first"}\n\n' == next(chunks)
        world.portal.call(release.set)
        rest = b"".join(chunks)
    assert rest.startswith(b'data: {"text": "last"}\n\ndata: {"usage": ')
    assert rest.endswith(b"data: [DONE]\n\n")
    assert [("complete", 3, 2)] == [(one.ending, one.input_tokens, one.output_tokens) for one in world.records(project)]


def test_1000_clients_that_leave_anywhere_leave_one_record_each_and_nothing_open(
    world: World, server: tuple[str, str]
) -> None:
    project, key = world.project()
    name, address = server
    chance = random.Random(7)
    shares = [chance.random() if number % 10 else 0.0 for number in range(1000)]
    models = [chance.choice(["scripted", "slow", "echo"]) for _ in shares]

    def leave(share: float, model: str) -> None:
        leave_anywhere(address, key, {"prompt": "a few words", "stream": True, "model": model}, share)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(leave, shares[:300], models[:300]))
        warm_bytes = world.memory(name)
        list(pool.map(leave, shares[300:], models[300:]))
    # Who was seen to be answered has a record; who left at once may not even have been heard.
    until(lambda: world.upstream.streams_open == 0 and world.held(project) == 0, most_s=20)
    answered = sum(wanted(share) > 0 for share in shares)
    until(lambda: len(world.records(project)) >= answered)
    settled = world.records(project)
    assert answered <= len(settled) <= 1000
    assert {"client_gone", "complete"} == {record.ending for record in settled}
    assert 200 == post(f"{address}{MOUNT}/generate", key, {"prompt": "hi"}).status_code
    assert world.memory(name) - warm_bytes < 16_000_000


def wanted(share: float) -> int:
    """Give how many bytes a client takes before it leaves."""
    return int(share * 3000)


def leave_anywhere(address: str, key: str, body: object, share: float) -> None:
    """Ask, take a share of what comes (0: nothing), and leave: gently, or with a reset where the share is odd."""
    content = json.dumps(body).encode()
    head = (
        f"POST {MOUNT}/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with connected(address) as connection:
        connection.sendall(head.encode() + content)
        most, taken = wanted(share), b""
        while len(taken) < most and b"[DONE]" not in taken and (chunk := connection.recv(most - len(taken))):
            taken += chunk
        if most % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    where = urlsplit(address)
    assert where.hostname is not None
    with closing(socket.create_connection((where.hostname, where.port or 80), timeout=20)) as connection:
        yield connection


def test_a_strangers_upload_is_answered_not_reset(world: World, address: str) -> None:
    answer = post(f"{address}{MOUNT}/chat", "flp_sk_" + "x" * 33, b"x" * 20_000_000)
    assert (401, "Bearer") == (answer.status_code, answer.headers["www-authenticate"])


def one_byte_of_nine(key: str) -> bytes:
    """Give a request whose body has only begun."""
    head = f"POST {MOUNT}/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 9\r\n\r\n"
    return head.encode() + b"{"


def test_a_body_that_never_comes_is_refused_in_time(world: World, server: tuple[str, str]) -> None:
    name, address = server
    if name == "waitress":
        pytest.skip("it calls no application before the body is there")
    project, key = world.project()
    with connected(address) as connection:
        connection.sendall(one_byte_of_nine(key))
        answer = connection.recv(65536)
        assert b"400" in answer.split(b"\r\n")[0]
        if name == "gthread-preload":  # the connection cannot be used again, and is not left open
            while connection.recv(65536):
                pass
    until(lambda: world.records(project))
    assert ["INVALID_BODY"] == [record.code for record in world.records(project)]


def test_a_chunk_whose_size_is_no_number_is_refused_at_once(world: World, server: tuple[str, str]) -> None:
    name, address = server
    if name == "waitress":
        pytest.skip("it refuses such a body itself")
    project, key = world.project()
    head = f"POST {MOUNT}/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n"
    with connected(address) as connection:
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n")
        assert b"400" in connection.recv(65536).split(b"\r\n")[0]
    if name == "granian":  # it reports a disconnect; other servers raise, or refuse the request themselves
        assert ["INVALID_BODY"] == [record.code for record in world.records(project)]


def test_a_client_that_leaves_within_its_body_leaves_one_record(world: World, server: tuple[str, str]) -> None:
    name, address = server
    if name == "waitress":
        pytest.skip("it calls no application before the body is there")
    project, key = world.project()
    with connected(address) as connection:
        connection.sendall(one_byte_of_nine(key))
        until(lambda: world.heard(project))
    until(lambda: world.records(project))
    assert [("client_gone", 499, 0)] == [
        (record.ending, record.status, record.microcredits) for record in world.records(project)
    ]


def test_long_answers_leave_the_host_a_thread(world: World, server: tuple[str, str]) -> None:
    name, address = server
    if name != "waitress":
        pytest.skip("it has several processes, or no fixed number of threads")
    _, key = world.project()
    release = world.portal.call(anyio.Event)
    for _ in range(7):  # of eight threads; three more requests are refused
        world.script(Reply(["first", "last"], usage=Usage(3, 2), hold=Hold(release, texts=1)))
    with ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(httpx.Client(timeout=60))
            body = {"prompt": "hi", "model": "scripted", "stream": True}
            thread = threading.Thread(
                target=partial(
                    client.post, f"{address}{MOUNT}/generate", json=body, headers={"Authorization": f"Bearer {key}"}
                )
            )
            thread.start()
            stack.callback(thread.join)
        stack.callback(world.portal.call, release.set)
        time.sleep(0.5)
        assert "the host's own" == httpx.get(f"{address}/hello", timeout=40).text


def test_requests_follow_each_other_on_one_connection(world: World, server: tuple[str, str]) -> None:
    _, key = world.project()
    _, address = server
    with httpx.Client(timeout=30, headers={"Authorization": f"Bearer {key}"}) as client:
        for number in range(5):
            asked = {"prompt": f"number {number}", "stream": bool(number % 2)}
            answer = client.post(f"{address}{MOUNT}/generate", json=asked)
            assert f"number {number}" in answer.text.replace('"}\n\ndata: {"text": "', "")
            assert 404 == client.post(f"{address}{MOUNT}/nope", content=b"x" * 100_000).status_code


def test_a_slow_reader_holds_the_upstream_up_and_not_the_memory(world: World, server: tuple[str, str]) -> None:
    """64 MB are enough for the buffers of two connections and of waitress, and not for what else would come."""
    _, key = world.project()
    _, address = server
    world.script(Reply(["x" * 10_000], endless=True))
    with streaming(address + MOUNT, key, prompt="hi", model="scripted") as chunks:
        next(chunks)
        request = world.upstream.requests[-1]
        standing = _stands_still(lambda: request.texts_sent)
        assert standing * 10_000 < 64_000_000
        assert not request.cut
    until(lambda: request.cut)


def _stands_still(number: Callable[[], int]) -> int:
    """Wait until a number has not changed for a while, and give it."""
    last, since = -1, threading.Event()
    for _ in range(100):
        if (now := number()) == last:
            return now
        last = now
        since.wait(0.3)
    raise AssertionError("it never stands still")


@pytest.mark.parametrize("server", [name for name in SERVERS if name not in ("waitress", "development")])
def test_a_server_that_is_told_to_stop_lets_open_streams_end(world: World, server: str) -> None:
    project, key = world.project()
    with (
        world.serving(server) as (address, process),
        streaming(address + MOUNT, key, prompt="word " * 40, model="slow") as chunks,
    ):
        next(chunks)
        process.terminate()
        assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
    assert ["complete"] == [record.ending for record in world.records(project)]


def test_a_server_that_drops_open_streams_at_its_end_settles_them(world: World) -> None:
    project, key = world.project()
    with (
        world.serving("development") as (address, process),
        streaming(address + MOUNT, key, prompt="hi", model="scripted") as chunks,
    ):
        next(chunks)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert [("client_gone", 200)] == [(record.ending, record.status) for record in world.records(project)]
    assert 0 == world.held(project)


def test_odd_bytes_in_the_authorization_header_are_unauthorized(address: str) -> None:
    for value in (b"Bearer \xff\xfe", b"Bearer", b"", b"bearer flp_sk_", b"Basic flp_sk_" + b"x" * 33):
        request = b"POST /api/v1/ai/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
        answer = raw(address, request + value + b"\r\nContent-Length: 0\r\n\r\n")
        assert b"401" == answer.split()[1]


def test_a_head_with_a_body_leaves_the_connection_in_order(world: World, server: tuple[str, str]) -> None:
    """The body of a refused request is read to its end before the next request is looked for behind it."""
    _, key = world.project()
    with httpx.Client(timeout=30, headers={"Authorization": f"Bearer {key}"}) as client:
        for number in range(30):
            head = client.request("HEAD", f"{server[1]}{MOUNT}/chat", content=b'{"prompt": "x"}' * 1000)
            assert (405, b"") == (head.status_code, head.content)
            answer = client.post(f"{server[1]}{MOUNT}/generate", json={"prompt": f"number {number}"})
            assert (200, f"number {number}") == (answer.status_code, answer.json()["content"])
