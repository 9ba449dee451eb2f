"""Hedging: a second deployment is asked where the first is slow; one of the two serves, and only one is billed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import anyio
import pytest

from floop_gateway_core.observability.events import AttemptEnded, HedgeLost
from floop_gateway_core.testing import Answer, Break, Hold, Reply, Status
from floop_gateway_core.testing.answers import Kind, Moment
from tests.engine.kit import Answered, Bench, bench, cancelled_natively, eventually, expected_input, price

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_back_off")]

HEDGED = {"hedge_after_s": 0.05}
SWIFT = Reply(texts=["swift"])


def script(on: Bench, /, **answers: Answer) -> None:
    for model, answer in answers.items():
        on.upstream.script(answer, model=model)


@dataclass
class Held:
    """A reply whose first event, or what follows its preamble, waits until something holds."""

    text: str
    at: Moment = "body"
    freed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def reply(self) -> Reply:
        return Reply(texts=[self.text], pings=2, hold=Hold(self.freed, self.at))


async def ask_while(b: Bench, stream: bool, *held: tuple[Held, Callable[[], bool]]) -> Answered:
    """Ask, and free what is held, one after the other, as soon as its condition holds."""
    answers: list[Answered] = []

    async def ask() -> None:
        answers.append(await b.ask(stream=stream))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        for one, when in held:
            await eventually(when)
            one.freed.set()
    return answers[0]


def failed(b: Bench) -> list[str]:
    return [event.deployment for event in b.told if isinstance(event, AttemptEnded) and event.outcome == "failed"]


def models(b: Bench) -> list[str]:
    return [request.model for request in b.upstream.requests]


def lost(b: Bench) -> list[str]:
    return [event.deployment for event in b.told if isinstance(event, HedgeLost)]


async def test_the_first_event_wins_and_the_loser_is_cut_and_counted_nowhere(stream: bool) -> None:
    async with bench(route=["a", "b"], limits=HEDGED) as b:
        script(b, a=Break("stall", "head"), b=SWIFT)
        answer = await b.ask(stream=stream)
        assert (200, "swift") == (answer.status, answer.text)
        assert "b" == answer.headers["x-gateway-model"]
        record = await b.settled()
        assert (2, "b", "complete") == (record.attempts, record.deployment, record.ending)
        assert ["a", "b"] == models(b)
        await b.upstream.until(lambda u: u.requests[0].cut)
        assert [0, 0] == [b.failures("a"), b.failures("b")]


async def test_what_the_loser_may_have_cost_is_told_and_not_charged(stream: bool) -> None:
    async with bench(route=["a", "b"], limits=HEDGED) as b:
        script(b, a=Break("stall", "body"), b=SWIFT)
        answer = await b.ask(stream=stream)
        (told,) = [event for event in b.told if isinstance(event, HedgeLost)]
        assert ("a", expected_input("openai"), 0) == (
            told.deployment,
            told.usage.input_tokens,
            told.usage.output_tokens,
        )
        assert price(told.usage) == told.microcredits
        assert 12 * 10 + 4 * 30 == answer.charged == (await b.settled()).microcredits


async def test_a_preamble_is_an_event_and_needs_no_hedge(stream: bool) -> None:
    async with bench(route=["a", "b"], limits={"hedge_after_s": 0.5}) as b:
        first = Held("first", at="preamble")
        script(b, a=first.reply, b=SWIFT)
        began = anyio.current_time()
        answer = await ask_while(b, stream, (first, lambda: anyio.current_time() > began + 0.8))
        assert ("first", ["a"]) == (answer.text, models(b))
        await b.settled()


async def test_a_first_deployment_that_answers_after_all_may_win(stream: bool) -> None:
    async with bench(route=["a", "b"], limits=HEDGED) as b:
        first = Held("first")
        script(b, a=first.reply, b=Break("stall", "head"))
        answer = await ask_while(b, stream, (first, lambda: b.upstream.streams_open == 2))
        assert "first" == answer.text
        assert ("a", 2) == ((record := await b.settled()).deployment, record.attempts)
        assert ["b"] == lost(b)


@pytest.mark.parametrize("fault", [Status(500), Break("reset", "head"), Status(429)], ids=["500", "reset", "429"])
async def test_a_hedge_that_fails_leaves_the_first_to_go_on(fault: Answer, stream: bool) -> None:
    async with bench(route=["a", "b"], limits=HEDGED) as b:
        first = Held("first")
        script(b, a=first.reply, b=fault)
        answer = await ask_while(b, stream, (first, lambda: failed(b) == ["b"]))
        assert "first" == answer.text
        assert (0, 0 if fault == Status(429) else 1) == (b.failures("a"), b.failures("b"))
        assert ("a", 2) == ((record := await b.settled()).deployment, record.attempts)


async def test_a_first_that_fails_leaves_the_hedge_to_go_on(stream: bool) -> None:
    async with bench(route=["a", "b"], limits=HEDGED, deployments={"a": {"first_event_s": 0.2}}) as b:
        second = Held("second")
        script(b, a=Break("stall", "head"), b=second.reply)
        answer = await ask_while(b, stream, (second, lambda: failed(b) == ["a"]))
        assert "second" == answer.text
        assert ("b", 2) == ((record := await b.settled()).deployment, record.attempts)
        assert 1 == b.failures("a")


async def test_where_both_fail_the_route_goes_on(stream: bool) -> None:
    async with bench(route=["a", "b", "c"], limits={**HEDGED, "first_event_s": 0.15, "attempts": 3}) as b:
        script(b, a=Break("stall", "head"), b=Break("stall", "head"), c=SWIFT)
        answer = await b.ask(stream=stream)
        assert "swift" == answer.text
        assert ["a", "b", "c"] == models(b)
        assert 3 == (await b.settled()).attempts


async def test_a_fault_that_no_deployment_betters_ends_the_race(stream: bool) -> None:
    async with bench(route=["a", "b"], limits=HEDGED) as b:
        script(b, a=Break("stall", "head"), b=Status(400, kind="context_length"))
        answer = await b.ask(stream=stream)
        assert (400, "INPUT_TOO_LARGE") == (answer.status, answer.code)
        record = await b.settled()
        assert ("refused", 0) == (record.ending, record.microcredits)


async def test_a_failure_before_the_delay_is_an_ordinary_one(stream: bool) -> None:
    async with bench(route=["a", "b"], limits={"hedge_after_s": 5.0}) as b:
        script(b, a=Status(401), b=SWIFT)
        assert "swift" == (await b.ask(stream=stream)).text
        assert [] == lost(b)
        await b.settled()


@pytest.mark.parametrize("route", [["a"], ["a", "b"]], ids=["no other deployment", "no attempt left"])
async def test_where_there_is_no_other_to_ask_the_first_keeps_its_tries(route: list[str], stream: bool) -> None:
    limits = {**HEDGED, "first_event_s": 0.1, "attempts": 3 - len(route)}
    async with bench(route=route, limits=limits) as b:
        script(b, a=Break("stall", "head"))
        b.upstream.script(SWIFT, model="a")
        assert (200 if route == ["a"] else 502) == (await b.ask(stream=stream)).status
        assert {"a"} == set(models(b))
        await b.settled()


async def test_a_client_that_leaves_during_the_race_pays_for_one_and_stops_both(stream: bool) -> None:
    async with bench(route=["a", "b"], limits=HEDGED) as b:
        script(b, a=Break("stall", "head"), b=Break("stall", "head"))
        with anyio.CancelScope() as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(b.ask)
                await b.upstream.until(lambda u: u.streams_open == 2)
                client.cancel()
        record = await b.settled()
        assert ("client_gone", "a", 2) == (record.ending, record.deployment, record.attempts)
        assert expected_input("openai") * 10 == record.microcredits


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_natively_during_the_race_stops_both() -> None:
    async with bench(route=["a", "b"], limits=HEDGED) as b:
        script(b, a=Break("stall", "head"), b=Break("stall", "head"))
        await cancelled_natively(b.ask, lambda: b.upstream.streams_open == 2)
        assert "client_gone" == (await b.settled()).ending


@pytest.mark.parametrize("kind", ["auth", "overloaded"])
async def test_a_winner_that_fails_before_its_first_text_leaves_the_route_to_the_loser(
    kind: Kind, stream: bool
) -> None:
    """The hedge came second; it has not failed, and is asked again."""
    async with bench(route=["a", "b"], limits={**HEDGED, "attempts": 5}) as b:
        first = Held("never", at="body")
        broken = replace(first.reply, broken=Break("error", "preamble", kind=kind))
        b.upstream.script(broken, broken, model="a")
        b.upstream.script(Break("stall", "head"), SWIFT, model="b")
        answer = await ask_while(b, stream, (first, lambda: b.upstream.streams_open == 2))
        assert ("swift", "b") == (answer.text, (await b.settled()).deployment)
        assert models(b) == (["a", "b", "b"] if kind == "auth" else ["a", "b", "a", "b"])
