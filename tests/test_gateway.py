"""The facade: which store does what, hooks, amounts, what a start says, and errors that can be copied."""

import copy
import logging
import pickle
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from floop_gateway_core import (
    BudgetExceededError,
    ConfigError,
    ErrorCode,
    Gateway,
    GatewayError,
    Message,
    Microcredits,
    NoSuchProject,
    ProjectExists,
    Refusal,
    Settings,
    TextPart,
)
from floop_gateway_core.admin import KeyRotated
from floop_gateway_core.observability import (
    Admitted,
    AttemptEnded,
    AttemptStarted,
    FirstText,
    GatewayEvent,
    Refused,
    RequestStarted,
    Settled,
)
from floop_gateway_core.providers.base import Delta, UpstreamCall
from floop_gateway_core.stores.memory import MemoryStore
from floop_gateway_core.types import UsageRecord

pytestmark = pytest.mark.anyio

HI = [Message.of("user", "one two")]


def memory(**upstream: float) -> Settings:
    return Settings.read({"store": "memory://", "upstream": upstream}, source="a test")


class Noticing(MemoryStore):
    """A store that notices whether it was opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    async def setup(self) -> None:
        self.seen.append("opened")

    async def aclose(self) -> None:
        self.seen.append("closed")


async def records(gateway: Gateway) -> list[UsageRecord]:
    return [record async for record in gateway.usage()]


async def test_money_is_granted_and_held_on_the_same_store() -> None:
    projects, rate, ledger = Noticing(), Noticing(), Noticing()
    async with Gateway(memory(), store=projects, rate=rate, ledger=ledger) as gateway:
        new = await gateway.admin.create_project("shop", credits="10")
        await gateway.admin.grant("project:shop", Decimal("2.5"))
        answer = await gateway.chat(new.key, HI)
        status = await gateway.admin.status("shop")
        assert 12_500_000 - answer.bill.credits_used == status.account.posted
        assert answer.bill.usage.total_tokens == status.tokens_used_today
        assert 1 == len(await records(gateway))
        elsewhere = await projects.account("project:shop")
        assert elsewhere is None or 0 == elsewhere.posted
    assert [["opened", "closed"]] * 3 == [projects.seen, rate.seen, ledger.seen]


async def test_a_rotation_calls_the_hook_however_it_is_asked_for() -> None:
    told: list[KeyRotated] = []
    async with Gateway(memory(), on_key_rotated=told.append) as gateway:
        await gateway.admin.create_project("shop")
        first = (await gateway.admin.rotate_key("shop")).key
        second = await gateway.rotate_key("shop")
        assert [first, second] == [one.key for one in told]


async def test_a_hook_that_fails_takes_nothing_back_and_one_that_is_missing_changes_nothing() -> None:
    def fail(_: KeyRotated) -> None:
        raise RuntimeError("no")

    async with Gateway(memory(), on_key_rotated=fail) as gateway:
        await gateway.admin.create_project("shop")
        new = await gateway.admin.rotate_key("shop")
        assert isinstance(new.hook_error, RuntimeError)
        assert new.key.startswith("flp_sk_")
    settings = Settings.read({"store": "memory://", "hooks": {"key_rotated": "nowhere.at_all:hook"}}, source="a test")
    async with Gateway(settings) as gateway:
        old = await gateway.admin.create_project("shop", credits="1")
        with pytest.raises(ConfigError, match="nowhere"):
            await gateway.admin.rotate_key("shop")
        assert "one two" == (await gateway.chat(old.key, HI)).content


@pytest.mark.parametrize("amount", [1.5, True])
async def test_an_amount_of_credits_is_never_a_float_or_a_bool(amount: Any) -> None:
    async with Gateway(memory()) as gateway:
        with pytest.raises(TypeError, match="micro-credits must be an int"):
            await gateway.admin.create_project("shop", credits=amount)
        assert [] == await gateway.admin.projects()
    with pytest.raises(TypeError):
        Microcredits(amount)


async def test_administrative_errors_have_one_base() -> None:
    async with Gateway(memory()) as gateway:
        await gateway.admin.create_project("shop")
        with pytest.raises(ProjectExists, match="project 'shop' already exists"):
            await gateway.admin.create_project("shop")
        with pytest.raises(NoSuchProject, match="there is no project 'blog'"):
            await gateway.admin.status("blog")


def test_errors_can_be_copied_and_pickled() -> None:
    error = GatewayError.from_refusal(Refusal(ErrorCode.BUDGET_EXCEEDED, "Used up.", 7), 3, "req_1")
    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(other, BudgetExceededError)
        assert (error.refusal, 7, 3, "req_1", str(error)) == (
            other.refusal,
            other.retry_after_s,
            other.credits_used,
            other.request_id,
            str(other),
        )
    for one in (ProjectExists("a"), NoSuchProject("b")):
        assert str(one) == str(pickle.loads(pickle.dumps(one)))


async def test_an_error_names_its_record() -> None:
    async with Gateway(memory()) as gateway:
        new = await gateway.admin.create_project("shop")
        with pytest.raises(GatewayError) as caught:
            await gateway.chat(new.key, HI, model="nope")
        assert caught.value.request_id == (await records(gateway))[0].request_id


async def test_the_parts_of_a_message_arrive_as_they_were() -> None:
    seen: list[UpstreamCall] = []

    class Notes:
        def open(self, call: UpstreamCall, on_sent: Any) -> "Notes":
            seen.append(call)
            on_sent()
            return self

        async def __aenter__(self) -> "Notes":
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def next(self) -> Delta:
            await anyio.lowlevel.checkpoint()
            return Delta(events=1, items=["yes"], finish="end_turn")

    async with Gateway(memory(), providers={"echo": Notes()}) as gateway:
        new = await gateway.admin.create_project("shop", credits="1")
        await gateway.chat(new.key, [Message("user", (TextPart("one "), TextPart("two")))])
    assert (TextPart("one "), TextPart("two")) == seen[0].messages[0].content


async def test_a_consumer_that_pauses_beyond_the_limit_is_billed_and_told() -> None:
    async with Gateway(memory(total_s=0.2)) as gateway:
        new = await gateway.admin.create_project("shop", credits="100")
        async with gateway.stream(new.key, [Message.of("user", "word " * 2_000)], model="fast") as answer:
            assert "word " == await anext(aiter(answer))
            with anyio.fail_after(10):
                while not await records(gateway):
                    await anyio.sleep(0.05)
            (record,) = await records(gateway)
            assert ("client_gone", 200) == (record.ending, record.status)
            assert record.microcredits > 0
            with pytest.raises(GatewayError, match="took too long"):
                await answer.next_event()
        assert 1 == len(await records(gateway))


async def test_who_pauses_after_the_end_of_an_answer_has_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floop_gateway_core.in_process.PAUSED_CONSUMER_GRACE_S", 0.0)
    async with Gateway(memory(total_s=0.2)) as gateway:
        new = await gateway.admin.create_project("shop", credits="100")
        async with gateway.stream(new.key, [Message.of("user", "word")], model="fast") as answer:
            while answer.finish_reason is None:
                assert await answer.next_event() is not None
            with anyio.fail_after(10):
                while not answer._expired:
                    await anyio.sleep(0.01)
            assert await answer.next_event() is None
        assert ["complete"] == [record.ending for record in await records(gateway)]


class Heard:
    """An async listener that also adds a header to upstream requests."""

    def __init__(self) -> None:
        self.events: list[GatewayEvent] = []

    async def __call__(self, event: GatewayEvent) -> None:
        await anyio.lowlevel.checkpoint()
        self.events.append(event)

    def upstream_headers(self, request_id: str, attempt: int) -> dict[str, str]:
        return {"traceparent": f"{request_id}-{attempt}"}


async def test_an_async_listener_hears_a_whole_request_in_order() -> None:
    heard = Heard()
    async with Gateway(memory(), listeners=[heard]) as gateway:
        new = await gateway.admin.create_project("shop", credits="1")
        answer = await gateway.chat(new.key, HI)
        kinds = [RequestStarted, Admitted, AttemptStarted, FirstText, AttemptEnded, Settled]
        assert kinds == [type(event) for event in heard.events]
        ended, settled = heard.events[-2:]
        assert isinstance(ended, AttemptEnded)
        assert ("succeeded", None, 1) == (ended.outcome, ended.fault, ended.number)
        assert isinstance(settled, Settled)
        assert (answer.bill.credits_used, "complete") == (settled.record.microcredits, settled.record.ending)
        with pytest.raises(AttributeError):
            settled.record.status = 1  # type: ignore[misc]
        heard.events.clear()
        with pytest.raises(GatewayError):
            await gateway.chat(new.key, HI, model="nope")
        assert [RequestStarted, Refused, Settled] == [type(event) for event in heard.events]


async def test_a_start_says_what_was_found_and_warns_of_echo(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "floop_gateway"):
        async with Gateway.from_env({}, store=MemoryStore()):
            pass
    said = [
        (record.levelname, record.getMessage()) for record in caplog.records if "configuration" in record.getMessage()
    ]
    assert ["INFO", "WARNING"] == [level for level, _ in said]
    assert "built-in defaults" in said[0][1]
    assert "echo" in said[1][1]


def test_no_signature_holds_the_environment() -> None:
    import inspect

    for function in (Gateway.__init__, Gateway.from_env, Gateway.from_config, Settings.find):
        assert not [one for one in inspect.signature(function).parameters.values() if hasattr(one.default, "keys")]


async def test_a_stop_ends_a_stream_in_an_error_and_bills_what_has_left() -> None:
    settings = Settings.read(
        {
            "store": "memory://",
            "deployments": {"slow": {"provider": "echo", "microcredits_per_token": 1250, "words_per_second": 50}},
            "routes": {alias: ["slow"] for alias in ("fast", "smart", "reason")},
        },
        source="a test",
    )
    async with Gateway(settings) as gateway:
        new = await gateway.admin.create_project("shop", credits="100")
        async with gateway.stream(new.key, [Message.of("user", "word " * 2_000)], model="fast") as answer:
            assert "word " == await anext(aiter(answer))
            gateway.stop()
            with pytest.raises(GatewayError, match="stopping"):
                while await answer.next_event() is not None:
                    pass
        with pytest.raises(GatewayError, match="stopping") as caught:
            await gateway.chat(new.key, HI)
        assert (ErrorCode.SERVICE_UNAVAILABLE, 5) == (caught.value.code, caught.value.retry_after_s)
        (record,) = await records(gateway)
        assert ("internal_error", 200, "SERVICE_UNAVAILABLE", "error") == (
            record.ending,
            record.status,
            record.code,
            record.finish_reason,
        )
        assert 1250 * 2_000 < record.microcredits < 1250 * 2_200  # the input, and the few words that have left
        assert 0 == (await gateway.admin.status("shop")).account.held


async def test_a_project_has_only_so_many_requests_open_at_once() -> None:
    value = {"store": "memory://", "plans": {"default": {"concurrency": 1, "requests_per_minute": 100}}}
    async with Gateway(Settings.read(value, source="a test")) as gateway:
        one, two = [await gateway.admin.create_project(name, credits="100") for name in ("one", "two")]
        async with gateway.stream(one.key, HI):
            with pytest.raises(GatewayError, match="1 requests open at once") as caught:
                await gateway.chat(one.key, HI)
            assert (ErrorCode.RATE_LIMITED, 1) == (caught.value.code, caught.value.retry_after_s)
            assert "one two" == (await gateway.chat(two.key, HI)).content
        assert "one two" == (await gateway.chat(one.key, HI)).content
        assert not gateway.runtime.open_requests


async def test_a_settled_request_has_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with Gateway(memory()) as gateway:
        new = await gateway.admin.create_project("shop", credits="100")
        with caplog.at_level(logging.INFO, "floop_gateway"):
            answer = await gateway.chat(new.key, HI)
        (line,) = [record.getMessage() for record in caplog.records if answer.request_id in record.getMessage()]
        assert "project=shop alias=auto deployment=echo status=200 code=None tokens=2+2" in line
        assert new.key not in line
