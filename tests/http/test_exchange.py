"""One HTTP exchange: the contract's errors in their precedence, each with its headers, its id and its record."""

from typing import Any

import pytest

from floop_gateway_core import Gateway, GatewayRequest, MemoryStore, Settings
from floop_gateway_core.types import Microcredits, UsageRecord

pytestmark = pytest.mark.anyio


class Counter:
    """A gateway with one project, and what came of asking it."""

    def __init__(self, **settings: Any) -> None:
        self.gateway = Gateway(Settings.read({"store": "memory://", **settings}, source="test"), store=MemoryStore())
        self.key = ""

    async def open(self, credits: int = 10**9) -> "Counter":
        self.key = (await self.gateway.admin.create_project("p", credits=Microcredits(credits))).key
        return self

    async def ask(
        self, body: bytes, *, path: str = "/chat", method: str = "POST", key: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        headers = [("Authorization", f"bearer {self.key if key is None else key}")]
        async with self.gateway.open(GatewayRequest(method, path, headers, body)) as reply:
            assert isinstance(reply.body, bytes)
            return reply.status, {name.lower(): value for name, value in reply.headers}, reply.body

    async def records(self) -> list[UsageRecord]:
        return [record async for record in self.gateway.store.usage()]


HI = b'{"messages": [{"role": "user", "content": "Hi"}]}'


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "INVALID_BODY"),
        (b"\xff", 400, "INVALID_BODY"),
        (b"[]", 400, "INVALID_BODY"),
        (b'{"x": NaN}', 400, "INVALID_BODY"),
        (b"[" * 10_000, 400, "INVALID_BODY"),
        (b'{"x": "\\ud800"}', 400, "INVALID_BODY"),
        (b"{}", 400, "VALIDATION_ERROR"),
        (HI[:-1] + b', "temperature": true, "model": "nope"}', 400, "VALIDATION_ERROR"),
        (HI[:-1] + b', "model": "nope"}', 400, "INVALID_MODEL"),
        (b"{" + b" " * 9_000_000 + b"}", 400, "INPUT_TOO_LARGE"),
    ],
)
async def test_a_bad_body_is_refused_with_its_code_and_one_record(body: bytes, status: int, code: str) -> None:
    counter = await Counter().open()
    found, headers, answer = await counter.ask(body)
    assert status == found
    assert f'"code": "{code}"'.encode() in answer
    (record,) = await counter.records()
    assert (code, "refused", 0) == (record.code, record.ending, record.microcredits)
    assert record.request_id == headers["x-request-id"]
    assert ("10", "9") == (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"])
    assert '"rpm";q=10;w=60' == headers["ratelimit-policy"]


async def test_path_and_method_come_before_the_key_and_leave_no_record() -> None:
    counter = await Counter().open()
    assert 404 == (await counter.ask(HI, path="/chat/", key="none"))[0]
    status, headers, _ = await counter.ask(HI, method="HEAD", key="none")
    assert (405, "POST") == (status, headers["allow"])
    status, headers, _ = await counter.ask(HI, key="none")
    assert (401, "Bearer") == (status, headers["www-authenticate"])
    assert [] == await counter.records()


async def test_the_rate_comes_before_the_body_and_a_refused_request_spends_nothing() -> None:
    counter = await Counter(plans={"default": {"requests_per_minute": 1}}).open()
    assert 400 == (await counter.ask(b"{"))[0]
    for _ in range(2):
        status, headers, answer = await counter.ask(b"{")
        assert (429, True) == (status, b"RATE_LIMITED" in answer)
        assert 1 <= int(headers["retry-after"]) <= 60


async def test_size_comes_before_budget_and_budget_before_credits() -> None:
    plan = {"input_tokens": 50, "daily_tokens": 30, "requests_per_minute": 100}
    counter = await Counter(plans={"default": plan}).open(credits=0)
    long = HI.replace(b"Hi", b"words " * 500)
    assert b"INPUT_TOO_LARGE" in (await counter.ask(long))[2]
    status, headers, answer = await counter.ask(HI.replace(b"Hi", b"words " * 20))
    assert (429, False) == (status, "retry-after" in headers)  # not even a whole day would do
    assert b"BUDGET_EXCEEDED" in answer
    assert b"INSUFFICIENT_CREDITS" in (await counter.ask(HI))[2]
    account = await counter.gateway.store.account("project:p")
    assert account is not None
    assert (0, 0) == (account.posted, account.held)


async def test_a_used_up_budget_says_when_midnight_comes() -> None:
    counter = await Counter(plans={"default": {"daily_tokens": 40, "requests_per_minute": 100}}).open()
    while (answered := await counter.ask(HI))[0] == 200:
        pass
    status, headers, answer = answered
    assert (429, True) == (status, b"midnight UTC" in answer)
    assert 1 <= int(headers["retry-after"]) <= 86_400


async def test_embed_is_reserved_and_counts_against_the_rate() -> None:
    counter = await Counter().open()
    status, headers, _ = await counter.ask(b"", path="/embed")
    assert (501, "9") == (status, headers["x-ratelimit-remaining"])
    assert ["refused"] == [record.ending for record in await counter.records()]


async def test_a_rotated_key_is_unknown_at_once_and_the_counters_stay() -> None:
    counter = await Counter().open()
    assert 200 == (await counter.ask(HI))[0]
    old, counter.key = counter.key, await counter.gateway.rotate_key("p")
    assert 401 == (await counter.ask(HI, key=old))[0]
    assert "8" == (await counter.ask(HI))[1]["x-ratelimit-remaining"]
