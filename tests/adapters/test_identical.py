"""The same requests get the same bytes on every host: the core's own answers are the measure.

300 requests are generated, always the same ones. What differs by nature is left out: ids, times, and what servers add.
"""

import json
import random
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
import pytest

from floop_gateway_core import Gateway, GatewayRequest, MemoryStore, Settings
from floop_gateway_core.types import Microcredits
from tests.adapters.world import SERVERS, World, world_in
from tests.serving import MOUNT

NUMBER = 300
OF_THE_SERVER = {"date", "server", "via", "connection", "keep-alive", "transfer-encoding", "content-length", "vary"}
OF_THE_MOMENT = {"x-request-id", "x-ratelimit-reset", "ratelimit"}

WORDS = [
    "one",
    " two",
    "\n",
    "  ",
    "naïve",
    "日本語",
    "😀",
    "\u2028",
    '"',
    "\\",
    "\x01",
    "<b>",
    "data: x",
    "\r\n",
    "\u0000",
]

Asked = tuple[str, str, dict[str, str], bytes]
Got = tuple[int, dict[str, str], bytes]


def generated(key: str) -> list[Asked]:
    """Give the requests: method, path, headers, body."""
    chance = random.Random(41)
    return [_one(chance, key) for _ in range(NUMBER)]


def _one(chance: random.Random, key: str) -> Asked:
    methods = ["POST"] * 20 + ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]
    paths = ["/chat"] * 8 + ["/generate"] * 8 + ["/embed", "/chat/", "/nope", "/%63hat", "/chat?x=1", "/", "/a/b"]
    authorizations = [f"Bearer {key}"] * 20 + [f"bEARER   {key}", "Bearer", f"Basic {key}", "Bearer flp_sk_x", ""]
    path = chance.choice(paths)
    headers = {
        "Authorization": chance.choice(authorizations),
        "Content-Type": chance.choice(["application/json", "x/y"]),
    }
    return chance.choice(methods), path, headers, _body(chance, path)


def _body(chance: random.Random, path: str) -> bytes:
    text = "".join(chance.choices(WORDS, k=chance.randrange(0, 30)))
    body: dict[str, Any] = {"stream": chance.choice([True, False, None])}
    if "generate" in path:
        body["prompt"] = text or "x"
    else:
        body["messages"] = [{"role": "user", "content": chance.choice([text, [{"type": "text", "text": text}]])}]
    odd: dict[str, list[Any]] = {
        "model": ["auto", "fast", "echo", "nope", 7, None],
        "temperature": [0, 1.5, 2, 3, True, "1"],
        "max_tokens": [1, 3, 10**12, 0, 1.0, "1"],
        "system": ["Be brief.", "", 1, None],
        "messages": [[], None, "x", [{"role": "robot"}]],
        "unknown": [{"deep": [1, 2]}],
    }
    for name in chance.sample(list(odd), chance.randrange(0, 3)):
        body[name] = chance.choice(odd[name])
    whole = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode()
    return chance.choice(
        [whole] * 12 + [whole[:-1], b"", b"[]", b"\xff", b'{"x": NaN}', b'{"x": "\\ud800"}', b"[" * 5000]
    )


def told(status: int, headers: Any, body: bytes, method: str) -> Got:
    kept = {name.lower(): value for name, value in headers if name.lower() not in OF_THE_SERVER | OF_THE_MOMENT}
    kept["content-type"] = kept["content-type"].removesuffix("; charset=utf-8")
    return status, kept, b"" if method == "HEAD" else body


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("identical")) as world:
        yield world


@pytest.fixture(scope="module")
def measure(world: World) -> list[Got]:
    """The core's own answers, with no host at all."""

    async def ask_all() -> list[Got]:
        gateway = Gateway(Settings.load(world.folder / "gateway.toml"), store=MemoryStore())
        new = await gateway.admin.create_project("p", credits=Microcredits(10**12))
        found = []
        for method, path, headers, body in generated(new.key):
            request = GatewayRequest(method, unquote(path.partition("?")[0]), list(headers.items()), body)
            async with gateway.open(request) as reply:
                whole = reply.body if isinstance(reply.body, bytes) else b"".join([chunk async for chunk in reply.body])
            found.append(told(reply.status, reply.headers, whole, method))
        return found

    return anyio.run(ask_all)


@pytest.mark.parametrize("server", SERVERS)
def test_300_requests_get_the_same_bytes(world: World, measure: list[Got], server: str) -> None:
    _, key = world.project()
    with world.serving(server) as (address, _), httpx.Client(timeout=30) as client:
        for number, (method, path, headers, body) in enumerate(generated(key)):
            ask = partial(client.request, method, f"{address}{MOUNT}{path}", headers=headers, content=body)
            try:
                answer = ask()
            except httpx.TransportError:  # a server may close a kept connection as the next request is on its way
                answer = ask()
            assert answer.headers["x-request-id"].startswith("req_")
            found = told(answer.status_code, answer.headers.items(), answer.content, method)
            assert (number, measure[number]) == (number, found)


def test_what_is_generated_covers_the_contract(measure: list[Got]) -> None:
    statuses = {status for status, _, _ in measure}
    assert {200, 400, 401, 404, 405, 501} <= statuses
    codes = {json.loads(body)["error"]["code"] for status, _, body in measure if status == 400 and body}
    assert {"INVALID_BODY", "VALIDATION_ERROR", "INVALID_MODEL"} == codes
    assert sum(headers["content-type"] == "text/event-stream" for _, headers, _ in measure) > 20


def test_every_host_gets_the_same_requests() -> None:
    assert generated("k") == generated("k")
    assert partial(generated, "k")() != generated("l")
