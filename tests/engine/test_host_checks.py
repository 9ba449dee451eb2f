"""A host that refuses calls, changes them, fails or is late, and one that reads each record."""

from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from floop_gateway_core import Refusal
from floop_gateway_core.engine import host_checks
from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.types import Call, Message, Project, UsageRecord
from tests.engine.kit import bench

pytestmark = pytest.mark.anyio
NO = Refusal(ErrorCode.FORBIDDEN, "Not on Sundays.")


def refuse(call: Call, project: Project) -> Refusal:
    assert ("shop", "fast") == (project.name, call.alias)
    return NO


async def refuse_later(call: Call, project: Project) -> Refusal:
    await anyio.lowlevel.checkpoint()
    return NO


@pytest.mark.parametrize("check", [refuse, refuse_later])
@pytest.mark.parametrize("key", [(), (("Idempotency-Key", "k"),)])
async def test_a_check_may_refuse_and_nothing_is_asked_or_charged(check: Any, key: Any) -> None:
    async with bench(before_call=check) as b:
        request = b.request(stream=True)
        answer = await b.send(replace(request, headers=(*request.headers, *key)))
        assert (403, "FORBIDDEN") == (answer.status, answer.code)
        assert not b.upstream.requests
        record = await b.settled()
        assert ("refused", 403, 0, "fast") == (record.ending, record.status, record.microcredits, record.alias)


async def test_a_check_may_change_the_call() -> None:
    def change(call: Call, project: Project) -> Call:
        return replace(call, messages=(Message.of("user", "Be kind."), *call.messages), alias="smart", stream=False)

    async with bench(before_call=change) as b:
        answer = await b.ask(stream=True)
        assert "Hello, world!" == answer.text
        assert b"Be kind." in b.upstream.requests[0].body
        assert "smart" == (await b.settled()).alias


@pytest.mark.parametrize("what", ["raises", "late", "nonsense"])
async def test_a_check_that_fails_refuses_the_call(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "CHECK_S", 0.05)

    async def check(call: Call, project: Project) -> Any:
        if what == "raises":
            raise ValueError("secret-word")
        await anyio.sleep(30 if what == "late" else 0)
        return 7

    async with bench(before_call=check) as b:
        answer = await b.ask()
        assert (503, "SERVICE_UNAVAILABLE", "5") == (answer.status, answer.code, answer.headers["retry-after"])
        assert b"secret-word" not in answer.raw
        assert "refused" == (await b.settled()).ending


async def test_the_host_sees_each_record_and_cannot_break_an_answer() -> None:
    seen: list[UsageRecord] = []

    async def after(record: UsageRecord) -> None:
        seen.append(record)
        raise ValueError

    async with bench(after_answer=after) as b:
        assert 200 == (await b.ask()).status
        assert [await b.settled()] == seen
