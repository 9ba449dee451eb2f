"""Requests with an `Idempotency-Key` on every host: one answer, one charge, however often it is asked for."""

import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from floop_gateway_core import Gateway
from tests.hosts import HOSTS, on_asgi
from tests.serving import MOUNT, gateway_of, held, records, until

OWN = {"x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "date", "idempotency-replayed"}
"""What differs between an answer and its replay."""
PROMPT = "one two three four five six seven"
SLOW = {"deployments": {"echo": {"provider": "echo", "words_per_second": 20, "microcredits_per_token": 1}}}


@dataclass(frozen=True)
class Host:
    gateway: Gateway
    key: str
    url: str

    def ask(self, key: str | None = "order-1", *, path: str = "/generate", **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **({} if key is None else {"Idempotency-Key": key})}
        with httpx.Client(timeout=30) as client:
            return client.post(self.url + MOUNT + path, json={"prompt": PROMPT, **body}, headers=headers)

    def endings(self) -> Counter[str | None]:
        return Counter(record.ending for record in records(self.gateway))


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    gateway, key = gateway_of(
        deployments={"echo": {"provider": "echo", "microcredits_per_token": 1}},
        routes={alias: ["echo"] for alias in ("fast", "smart", "reason")},
    )
    with HOSTS[request.param](gateway) as url:
        yield Host(gateway, key, url)


@pytest.fixture(params=HOSTS)
def slow(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host whose answers take a third of a second."""
    gateway, key = gateway_of(**SLOW, routes={alias: ["echo"] for alias in ("fast", "smart", "reason")})
    with HOSTS[request.param](gateway) as url:
        yield Host(gateway, key, url)


def same(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    return answer.status_code, answer.content, sorted(one for one in answer.headers.items() if one[0] not in OWN)


@pytest.mark.parametrize("stream", [False, True])
def test_a_repeated_request_gets_the_first_answer_and_is_not_charged(host: Host, stream: bool) -> None:
    first = host.ask(stream=stream)
    again = host.ask(stream=stream)
    assert first.status_code == 200
    assert same(first) == same(again)
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert int(again.headers["x-ratelimit-remaining"]) == int(first.headers["x-ratelimit-remaining"]) - 1
    original, replay = records(host.gateway)
    assert (original.ending, replay.ending) == ("complete", "replayed")
    assert replay.replay_of == original.request_id
    assert (replay.status, replay.input_tokens, replay.output_tokens, replay.microcredits) == (200, 0, 0, 0)
    assert replay.finish_reason == original.finish_reason
    assert replay.streamed is stream


def test_a_key_stands_for_one_body_and_one_operation(host: Host) -> None:
    host.ask()
    for body in ({"prompt": "another"}, {"stream": True}, {"max_tokens": 5}, {"model": "fast"}):
        answer = host.ask(**body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "IDEMPOTENCY_MISMATCH"), body
        assert answer.headers["x-should-retry"] == "false"
    chat = host.ask(path="/chat", messages=[{"role": "user", "content": PROMPT}])
    assert chat.status_code == 422
    assert host.ask(unknown=1).headers["idempotency-replayed"] == "true"  # an ignored field is not of the body
    assert host.ask(model="auto", temperature=None).headers["idempotency-replayed"] == "true"
    assert host.ask("order-2", prompt="another").status_code == 200


@pytest.mark.parametrize("key", ["", "a,b", "a b", "x" * 256])
def test_a_bad_key_is_refused(host: Host, key: str) -> None:
    answer = host.ask(key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert host.ask(key, path="/embed").status_code == 501


@pytest.mark.parametrize("stream", [False, True])
def test_duplicates_at_once_share_one_answer(slow: Host, stream: bool) -> None:
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda _: slow.ask(stream=stream), range(40)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert slow.endings() == {"complete": 1, "replayed": 39}
    assert sum(record.attempts for record in records(slow.gateway)) == 1
    assert held(slow.gateway) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_does_not_stop_its_request(slow: Host, stream: bool) -> None:
    address = urlsplit(slow.url)
    body = json.dumps({"prompt": PROMPT, "stream": stream}).encode()
    head = (
        f"POST {MOUNT}/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow.key}\r\nIdempotency-Key: order-1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(head.encode() + body)
        until(lambda: slow.gateway.runtime.runs)
    until(lambda: slow.endings()["complete"])
    answer = slow.ask(stream=stream)
    assert answer.headers["idempotency-replayed"] == "true"
    assert "seven" in answer.text
    assert slow.endings() == {"complete": 1, "replayed": 1}


def test_a_request_that_is_refused_frees_its_key() -> None:
    gateway, key = gateway_of(
        deployments={"echo": {"provider": "echo", "microcredits_per_token": 1}},
        routes={alias: ["echo"] for alias in ("fast", "smart", "reason")},
        credits=0,
    )
    with on_asgi(gateway) as url:
        host = Host(gateway, key, url)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: host.ask(), range(8)))
        assert {answer.status_code for answer in answers} == {402}
        anyio.run(gateway.admin.grant, "project:p", "1")
        assert host.ask().status_code == 200
        assert host.ask().headers["idempotency-replayed"] == "true"
        assert host.endings() == {"refused": 8, "complete": 1, "replayed": 1}


def test_those_that_join_do_not_count_as_open() -> None:
    gateway, key = gateway_of(
        **SLOW, routes={alias: ["echo"] for alias in ("fast", "smart", "reason")}, plan={"concurrency": 1}
    )
    with on_asgi(gateway) as url, ThreadPoolExecutor(6) as threads:
        host = Host(gateway, key, url)
        answers = list(threads.map(lambda _: host.ask(), range(6)))
        assert {answer.status_code for answer in answers} == {200}
        others = list(threads.map(lambda n: host.ask(f"other-{n}").status_code, range(3)))
        assert Counter(others) == {200: 1, 429: 2}
        assert not gateway.runtime.open_requests


def test_heartbeats_are_each_clients_own() -> None:
    gateway, key = gateway_of(
        deployments={"echo": {"provider": "echo", "words_per_second": 4, "microcredits_per_token": 1}},
        routes={alias: ["echo"] for alias in ("fast", "smart", "reason")},
        upstream={"heartbeat_s": 0.1},
    )
    with on_asgi(gateway) as url:
        host = Host(gateway, key, url)
        first, again = host.ask(stream=True), host.ask(stream=True)
        assert ": keep-alive" in first.text
        assert ": keep-alive" not in again.text
        frames = [line for line in first.text.splitlines() if line.startswith("data:")]
        assert frames == [line for line in again.text.splitlines() if line.startswith("data:")]
