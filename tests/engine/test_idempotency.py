"""Idempotency keys within the process: failures, several gateways on one store, long answers, and a gateway's end."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from floop_gateway_core import ErrorCode, Gateway, GatewayError
from floop_gateway_core.engine import answers
from floop_gateway_core.stores.sqlite import SQLiteStore
from floop_gateway_core.testing import Break, Hold, Reply, ScriptedGateway, Status, scripted_gateway
from floop_gateway_core.types import UsageRecord

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_back_off")]


async def ask(shop: ScriptedGateway, prompt: str = "Hi", key: str = "order-1", **options: Any) -> str:
    answer = await shop.gateway.generate(shop.key, prompt, idempotency_key=key, **options)
    return f"{answer.content} {answer.bill.credits_used} {answer.finish_reason} {answer.deployment}"


async def read(shop: ScriptedGateway, key: str = "order-1") -> tuple[list[str], GatewayError | None]:
    """Read a stream; return its texts, and the error that it ended in."""
    texts: list[str] = []
    try:
        async with shop.gateway.stream(shop.key, [{"role": "user", "content": "Hi"}], idempotency_key=key) as stream:
            async for text in stream:
                texts.append(text)
    except GatewayError as error:
        return texts, error
    return texts, None


async def log(shop: ScriptedGateway) -> list[UsageRecord]:
    return [record async for record in shop.gateway.usage()]


async def test_a_call_is_answered_once_and_charged_once() -> None:
    async with scripted_gateway(Reply(["Hello"])) as shop:
        first = await ask(shop)
        assert await ask(shop) == first
        assert len(shop.upstream.requests) == 1
        first_record, replay = await log(shop)
        assert (replay.ending, replay.replay_of) == ("replayed", first_record.request_id)
        assert (await shop.gateway.admin.account("project:shop")).posted == 1_000_000_000 - first_record.microcredits


async def test_a_stream_that_failed_in_the_middle_is_replayed_as_it_was_cut() -> None:
    async with scripted_gateway(Reply(broken=Break("reset", "text"))) as shop:
        texts, error = await read(shop)
        again, same = await read(shop)
        assert (texts, again) == (["Hello"], ["Hello"])
        assert error is not None
        assert same is not None
        assert (error.code, error.credits_used) == (same.code, same.credits_used)
        assert len(shop.upstream.requests) == 1
        assert [record.ending for record in await log(shop)] == ["upstream_error", "replayed"]
        assert len((await read(shop, "order-2"))[0]) == 4


async def test_a_failure_before_the_first_text_frees_the_key() -> None:
    async with scripted_gateway(*[Status(500)] * 3) as shop:
        with pytest.raises(GatewayError):
            await ask(shop)
        assert (await ask(shop)).startswith("Hello, world!")
        assert [record.ending for record in await log(shop)] == ["upstream_error", "complete"]


async def test_who_joins_an_answer_that_fails_gets_the_same_refusal() -> None:
    gate = anyio.Event()
    async with scripted_gateway(Reply(hold=Hold(gate, at="head"), broken=Break("reset", "head"))) as shop:
        shop.upstream.script(*[Status(500)] * 3)
        errors: list[ErrorCode | None] = []

        async def one() -> None:
            _, error = await read(shop)
            errors.append(None if error is None else error.code)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)
            await shop.upstream.until(lambda upstream: bool(upstream.requests))
            gate.set()
        assert errors == [ErrorCode.PROVIDER_ERROR] * 5
        endings = sorted(str(record.ending) for record in await log(shop))
        assert endings == ["refused"] * 4 + ["upstream_error"]


async def test_a_running_answer_is_joined_from_its_first_text() -> None:
    gate = anyio.Event()
    async with scripted_gateway(Reply(hold=Hold(gate, texts=2))) as shop, anyio.create_task_group() as group:
        results: list[list[str]] = []

        async def one() -> None:
            results.append((await read(shop))[0])

        group.start_soon(one)
        await shop.upstream.until(lambda upstream: bool(upstream.requests))
        group.start_soon(one)
        gate.set()
        while len(results) < 2:
            await anyio.sleep(0.005)
        assert results == [["Hello", ", ", "world", "!"]] * 2
        assert len(shop.upstream.requests) == 1


async def test_another_process_refuses_until_the_answer_is_there(tmp_path: Path) -> None:
    path, gate = tmp_path / "store.db", anyio.Event()
    reply = Reply(["One"], hold=Hold(gate, at="preamble"))
    async with (
        scripted_gateway(reply, store=SQLiteStore(path)) as shop,
        anyio.create_task_group() as group,
        Gateway(shop.gateway.settings, store=SQLiteStore(path)) as gateway,
    ):
        there = ScriptedGateway(gateway, shop.upstream, shop.key)
        group.start_soon(ask, shop)
        await shop.upstream.until(lambda upstream: bool(upstream.requests))
        with pytest.raises(GatewayError) as caught:
            await ask(there)
        assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.IDEMPOTENCY_IN_PROGRESS, 1)
        gate.set()
        while shop.gateway.runtime.runs:
            await anyio.sleep(0.005)
        assert (await ask(there)).startswith("One ")
        assert len(shop.upstream.requests) == 1


async def test_an_answer_that_is_too_long_is_finished_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWER_BYTES", 8)
    async with scripted_gateway() as shop:
        assert (await ask(shop)).startswith("Hello, world! ")
        with pytest.raises(GatewayError, match="too long to be kept") as caught:
            await ask(shop)
        assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.IDEMPOTENCY_IN_PROGRESS, None)
        assert len(shop.upstream.requests) == 1


async def test_a_gateway_that_is_closed_ends_what_nobody_waits_for() -> None:
    gate = anyio.Event()
    async with scripted_gateway(Reply(hold=Hold(gate))) as shop:
        with anyio.move_on_after(0.3):
            await read(shop)
        assert shop.gateway.runtime.runs  # its client has left, and it goes on
        await shop.gateway.aclose()
        assert not shop.gateway.runtime.runs
        (record,) = await log(shop)
        assert (record.ending, record.microcredits > 0) == ("client_gone", True)
        assert (await shop.gateway.admin.account("project:shop")).held == 0
        gate.set()


@pytest.mark.parametrize("key", ["", "a,b", "a b", 7])
async def test_a_key_that_is_not_valid_is_refused(key: Any) -> None:
    async with scripted_gateway() as shop:
        with pytest.raises(GatewayError, match="Idempotency-Key"):
            await ask(shop, key=key)
        assert [record.ending for record in await log(shop)] == ["refused"]
