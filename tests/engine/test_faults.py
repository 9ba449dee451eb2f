"""Each fault of an upstream has one outcome, for every vendor, streaming or not.

A fault that comes before the first text is an error of its own status and costs nothing; one that comes after it is a
plain answer's to retry, and a stream's to end with what was delivered on the bill. The tests look at what the client
sees, at the books, at the usage record, at the breaker, and at the connections.
"""

import pickle
from dataclasses import dataclass, replace

import anyio
import pytest

from floop_gateway_core import ProviderError, Usage
from floop_gateway_core.testing import Answer, Break, Hold, Reply, Status
from floop_gateway_core.testing.answers import Vendor
from tests.engine.kit import (
    Answered,
    Bench,
    bench,
    expected_input,
    expected_output,
    port_that_does_not_answer,
    port_that_refuses,
    price,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_back_off")]

AT_ONCE = {"retry-after": "0"}
BRIEF = {"first_event_s": 0.2, "between_events_s": 0.2}


@dataclass(frozen=True)
class Outcome:
    """What two attempts on the only deployment come to where each fails before the first text."""

    attempts: int
    failures: int
    status: int = 502
    code: str = "PROVIDER_ERROR"
    ending: str = "upstream_error"


TRANSIENT = Outcome(attempts=2, failures=2)
RATE_LIMITED = Outcome(attempts=2, failures=0)
UNUSABLE = Outcome(attempts=1, failures=1)
REJECTED = Outcome(attempts=1, failures=0)
TOO_LONG = Outcome(attempts=1, failures=0, status=400, code="INPUT_TOO_LARGE", ending="refused")

STATUSES: dict[str, tuple[Answer, Outcome]] = {
    "400": (Status(400), REJECTED),
    "400 context length": (Status(400, kind="context_length"), TOO_LONG),
    "401": (Status(401), UNUSABLE),
    "403": (Status(403), UNUSABLE),
    "404": (Status(404), UNUSABLE),
    "408": (Status(408), TRANSIENT),
    "409": (Status(409), REJECTED),
    "409 worth a retry": (Status(409, headers={"x-should-retry": "true"}), TRANSIENT),
    "413": (Status(413), REJECTED),
    "422": (Status(422), REJECTED),
    "429": (Status(429, headers=AT_ONCE), RATE_LIMITED),
    "429 exhausted quota": (Status(429, kind="quota", headers=AT_ONCE), UNUSABLE),
    "500": (Status(500), TRANSIENT),
    "500 not worth a retry": (Status(500, headers={"x-should-retry": "false"}), UNUSABLE),
    "503": (Status(503), TRANSIENT),
    "503 as a page": (Status.html(503), TRANSIENT),
    "529": (Status(529), TRANSIENT),
    "302": (Status(302, headers={"location": "http://127.0.0.1:1/"}), UNUSABLE),
}

BROKEN: dict[str, tuple[Answer, Outcome]] = {
    "200 with a JSON error": (Status(200), TRANSIENT),
    "200 with a page": (Status.html(200), TRANSIENT),
    "200 with nothing": (Status(200, body=b"", content_type="text/event-stream"), TRANSIENT),
    "refused at the door": (Break("refuse", "head"), TRANSIENT),
    "reset before the head": (Break("reset", "head"), TRANSIENT),
    "reset after the head": (Break("reset", "body"), TRANSIENT),
    "reset in the preamble": (Break("reset", "preamble"), TRANSIENT),
    "a head that is none": (Break("malformed", "head"), TRANSIENT),
    "closed before the head": (Break("eof", "head"), TRANSIENT),
    "end after the head": (Break("eof", "body"), TRANSIENT),
    "end in the preamble": (Reply(pings=2, broken=Break("eof", "preamble")), TRANSIENT),
    "end among thoughts": (Reply(thinking=["Hm. "], broken=Break("eof", "preamble")), TRANSIENT),
    "truncated chunk": (Break("truncate", "preamble"), TRANSIENT),
    "truncated length": (Reply(framing="length", broken=Break("truncate", "preamble")), TRANSIENT),
    "malformed event": (Break("malformed", "preamble"), TRANSIENT),
    "broken gzip": (Break("gzip", "body"), TRANSIENT),
    "error in band": (Break("error", "preamble"), TRANSIENT),
    "bad key in band": (Break("error", "preamble", kind="auth"), UNUSABLE),
    "invalid request in band": (Break("error", "preamble", kind="invalid"), REJECTED),
    "context length in band": (Break("error", "preamble", kind="context_length"), TOO_LONG),
}

STALLS: dict[str, tuple[Answer, Outcome]] = {
    "stall before the head": (Break("stall", "head"), TRANSIENT),
    "stall before the first event": (Break("stall", "body"), TRANSIENT),
    "stall in the preamble": (Reply(pings=1, broken=Break("stall", "preamble")), TRANSIENT),
}


def cases(table: dict[str, tuple[Answer, Outcome]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("fault", "outcome"), list(table.values()), ids=list(table))


@cases(STATUSES)
async def test_an_error_status_has_its_outcome(fault: Answer, outcome: Outcome, vendor: Vendor, stream: bool) -> None:
    async with bench(default=fault, vendor=vendor, limits={"attempts": 2}) as b:
        await fails_free_of_charge(b, outcome, stream)


@cases(BROKEN)
async def test_an_answer_that_breaks_before_its_first_text_has_its_outcome(
    fault: Answer, outcome: Outcome, vendor: Vendor, stream: bool
) -> None:
    async with bench(default=fault, vendor=vendor, limits={"attempts": 2}) as b:
        await fails_free_of_charge(b, outcome, stream)


async def test_a_rate_limit_in_band_is_not_the_deployments_failure(vendor: Vendor, stream: bool) -> None:
    fault = Break("error", "preamble", kind="rate_limit")
    async with bench(default=fault, vendor=vendor, limits={"attempts": 1}) as b:
        await fails_free_of_charge(b, replace(RATE_LIMITED, attempts=1), stream)


@cases(STALLS)
async def test_an_upstream_that_says_nothing_is_given_up(
    fault: Answer, outcome: Outcome, vendor: Vendor, stream: bool
) -> None:
    async with bench(default=fault, vendor=vendor, limits={"attempts": 2, **BRIEF}) as b:
        await fails_free_of_charge(b, outcome, stream)


async def test_a_port_that_refuses_is_a_failure_to_connect(vendor: Vendor, stream: bool) -> None:
    with port_that_refuses() as url:
        async with bench(vendor=vendor, limits={"attempts": 2}, every={"base_url": url}) as b:
            await fails_free_of_charge(b, TRANSIENT, stream)
            assert b.upstream.requests == []


async def test_a_server_that_does_not_accept_is_given_up_after_connect_s(vendor: Vendor, stream: bool) -> None:
    with port_that_does_not_answer() as url:
        limits = {"attempts": 2, "connect_s": 0.2}
        async with bench(vendor=vendor, limits=limits, every={"base_url": url}) as b:
            began = anyio.current_time()
            await fails_free_of_charge(b, TRANSIENT, stream)
            assert 0.4 <= anyio.current_time() - began < 3


async def fails_free_of_charge(b: Bench, outcome: Outcome, stream: bool) -> None:
    answer = await b.ask(stream=stream)
    assert (answer.status, answer.code) == (outcome.status, outcome.code)
    assert answer.headers["content-type"] == "application/json"
    assert "x-gateway-model" not in answer.headers
    record = await b.settled()
    assert record.request_id == answer.headers["x-request-id"]
    assert (record.status, record.code, record.ending) == (outcome.status, outcome.code, outcome.ending)
    assert (record.attempts, record.deployment, record.streamed) == (outcome.attempts, "a", stream)
    assert (record.input_tokens, record.output_tokens, record.microcredits, record.estimated) == (0, 0, 0, False)
    assert (record.finish_reason, record.first_text_ms) == (None, None)
    assert b.failures() == outcome.failures
    assert b.gateway.health() == {"a": "closed"}


async def test_a_chunk_without_a_size_is_noticed_at_once(vendor: Vendor, stream: bool) -> None:
    limits = {"attempts": 2, "first_event_s": 1.0, "between_events_s": 1.0}
    async with bench(default=Break("bad_chunk", "end"), vendor=vendor, limits=limits) as b:
        began = anyio.current_time()
        answer = await b.ask(stream=stream)
        assert anyio.current_time() - began < 1.0
        assert answer.status == (200 if stream else 502)
        record = await b.settled()
        assert (record.code, record.ending) == ("PROVIDER_ERROR", "upstream_error")
        assert b.failures() == record.attempts == (1 if stream else 2)


# -- after the first text ----------------------------------------------------------------------------------------------

AFTER_TEXT: dict[str, Break] = {
    "reset": Break("reset"),
    "end without the terminal event": Break("eof"),
    "truncated chunk": Break("truncate"),
    "malformed event": Break("malformed"),
    "broken gzip": Break("gzip"),
    "error in band": Break("error"),
    "invalid request in band": Break("error", kind="invalid"),
    "stall": Break("stall"),
}


def limits_for(fault: Break) -> dict[str, object]:
    return {"attempts": 2, **({"between_events_s": 0.2} if fault.how == "stall" else {})}


@pytest.mark.parametrize("fault", AFTER_TEXT.values(), ids=list(AFTER_TEXT))
async def test_a_stream_that_breaks_after_its_first_text_ends_with_an_error_and_is_billed(
    fault: Break, vendor: Vendor
) -> None:
    async with bench(vendor=vendor, limits=limits_for(fault)) as b:
        seen = anyio.Event()
        b.upstream.script(Reply(hold=Hold(seen), broken=fault))
        answer = await b.ask(stream=True, on_chunk=lambda _: seen.set())
        usage = Usage(12, 1) if vendor == "gemini" else estimated(vendor, "Hello")
        counted = 0 if fault.kind == "invalid" else 1
        await ends_in_an_error(b, answer, "Hello", usage, estimated=vendor != "gemini", failures=counted)


@pytest.mark.parametrize("fault", AFTER_TEXT.values(), ids=list(AFTER_TEXT))
async def test_a_plain_answer_that_breaks_after_its_first_text_is_retried_unseen(fault: Break, vendor: Vendor) -> None:
    async with bench(Reply(broken=fault), vendor=vendor, limits=limits_for(fault)) as b:
        answer = await b.ask()
        if fault.kind == "invalid":
            assert (answer.status, answer.code) == (502, "PROVIDER_ERROR")
            record = await b.settled()
            assert (record.attempts, record.microcredits, b.failures()) == (1, 0, 0)
            return
        await is_whole(b, answer, attempts=2)


@pytest.mark.parametrize("how", ["eof", "truncate"])
@pytest.mark.parametrize("framing", ["length", "close"])
async def test_a_body_without_chunks_that_ends_too_early_is_an_error(
    how: str, framing: str, vendor: Vendor, stream: bool
) -> None:
    fault = Break(how, "text", texts=2)  # type: ignore[arg-type]
    answers = Reply(framing=framing, broken=fault)  # type: ignore[arg-type]
    async with bench(answers, vendor=vendor, limits={"attempts": 2}) as b:
        answer = await b.ask(stream=stream)
        if stream:
            usage = Usage(12, 2) if vendor == "gemini" else estimated(vendor, "Hello, ")
            await ends_in_an_error(b, answer, "Hello, ", usage, estimated=vendor != "gemini")
        else:
            await is_whole(b, answer, attempts=2)


@pytest.mark.parametrize("how", ["eof", "error", "stall", "truncate"])
async def test_a_stream_that_lacks_only_its_last_event_is_an_error_all_the_same(how: str, vendor: Vendor) -> None:
    fault = Break(how, "done")  # type: ignore[arg-type]
    async with bench(Reply(broken=fault), vendor=vendor, limits=limits_for(fault)) as b:
        answer = await b.ask(stream=True)
        if how == "eof" and vendor != "gemini":  # the reason has come, and the body ends cleanly
            await is_whole(b, answer, attempts=1)
            return
        await ends_in_an_error(b, answer, "Hello, world!", Usage(12, 4), estimated=False)


@pytest.mark.parametrize("how", ["eof", "error"])
async def test_a_plain_answer_that_lacks_only_its_last_event_is_retried(how: str, vendor: Vendor) -> None:
    fault = Break(how, "done")  # type: ignore[arg-type]
    async with bench(Reply(broken=fault), vendor=vendor, limits={"attempts": 2}) as b:
        clean = how == "eof" and vendor != "gemini"  # the reason has come, and the body ends cleanly
        await is_whole(b, await b.ask(), attempts=1 if clean else 2)


async def ends_in_an_error(
    b: Bench, answer: Answered, text: str, usage: Usage, *, estimated: bool, failures: int = 1
) -> None:
    assert (answer.status, answer.headers["x-gateway-model"]) == (200, "a")
    assert answer.text == text
    assert (answer.last["code"], answer.last["finishReason"]) == ("PROVIDER_ERROR", "error")
    assert answer.usage == (usage.input_tokens, usage.output_tokens)
    record = await b.settled()
    assert (record.status, record.code, record.ending) == (200, "PROVIDER_ERROR", "upstream_error")
    assert (record.attempts, record.finish_reason, record.estimated) == (1, "error", estimated)
    assert (record.input_tokens, record.output_tokens) == (usage.input_tokens, usage.output_tokens)
    assert record.microcredits == answer.charged == price(usage)
    assert record.first_text_ms is not None
    assert len(b.upstream.requests) == 1
    assert b.failures() == failures


async def is_whole(b: Bench, answer: Answered, *, attempts: int, text: str = "Hello, world!") -> None:
    assert (answer.status, answer.text, answer.headers["x-gateway-model"]) == (200, text, "a")
    assert (answer.usage, answer.last["finishReason"]) == ((12, 4), "end_turn")
    record = await b.settled()
    assert (record.status, record.code, record.ending) == (200, None, "complete")
    assert (record.attempts, record.finish_reason, record.estimated) == (attempts, "end_turn", False)
    assert record.microcredits == answer.charged == price(Usage(12, 4))
    assert b.failures() == 0, "a success clears what went before it"


def estimated(vendor: Vendor, text: str) -> Usage:
    """Give what a cut answer costs whose output was not reported; Anthropic reports the input first."""
    given = 12 if vendor == "anthropic" else expected_input(vendor)
    return Usage(given, expected_output(vendor, text))


# -- no faults ---------------------------------------------------------------------------------------------------------

HARMLESS: dict[str, Reply] = {
    "as it is": Reply(),
    "pings and thoughts": Reply(pings=5, thinking=["Hm. ", "So."]),
    "byte by byte": Reply(split="bytes"),
    "in one write": Reply(split="whole"),
    "of a known length": Reply(framing="length"),
    "up to the close": Reply(framing="close"),
    "compressed": Reply(gzip=True),
}


@pytest.mark.parametrize("reply", HARMLESS.values(), ids=list(HARMLESS))
async def test_an_answer_is_whole_however_it_travels(reply: Reply, vendor: Vendor, stream: bool) -> None:
    async with bench(reply, vendor=vendor) as b:
        await is_whole(b, await b.ask(stream=stream), attempts=1)


async def test_pings_keep_a_slow_upstream_alive(vendor: Vendor, stream: bool) -> None:
    """Anthropic's pings are events; the comments of others are not, and are no sign of life."""
    reply = Reply(pings=8, delay_s=0.05)
    async with bench(
        reply, vendor=vendor, limits={"attempts": 1, "first_event_s": 0.25, "between_events_s": 0.25}
    ) as b:
        answer = await b.ask(stream=stream)
        assert answer.status == (200 if vendor == "anthropic" else 502)
        await b.settled()


async def test_an_upstream_that_counts_nothing_is_billed_by_the_estimate(vendor: Vendor, stream: bool) -> None:
    async with bench(Reply(usage=None), vendor=vendor) as b:
        answer = await b.ask(stream=stream)
        usage = Usage(expected_input(vendor), expected_output(vendor, "Hello, world!"))
        assert answer.usage == (usage.input_tokens, usage.output_tokens)
        record = await b.settled()
        assert (record.ending, record.estimated, record.microcredits) == ("complete", True, price(usage))


async def test_a_character_split_over_two_deltas_arrives_whole(vendor: Vendor, stream: bool) -> None:
    async with bench(Reply(["a\ud83d", "\ude00b", "\ud83d", "c", "\ud83d"]), vendor=vendor) as b:
        answer = await b.ask(stream=stream)
        assert answer.text == "a\U0001f600b\ufffdc\ufffd"
        assert (await b.settled()).ending == "complete"


async def test_an_upstream_that_runs_past_its_grant_beyond_doubt_is_stopped(vendor: Vendor, stream: bool) -> None:
    async with bench(Reply(["word " * 20], usage=Usage(12, 40), endless=True), vendor=vendor) as b:
        answer = await b.ask(stream=stream, max_tokens=10)
        assert (answer.status, answer.last["finishReason"]) == (200, "max_tokens")
        assert 160 < len(answer.text) < 100_000
        record = await b.settled()
        assert (record.ending, record.finish_reason, record.code) == ("complete", "max_tokens", None)
        assert record.output_tokens >= 10
        assert record.microcredits == answer.charged
        assert b.failures() == 0


@pytest.mark.parametrize("finish", ["max_tokens", "stop_sequence", "refusal", "content_filter"])
async def test_one_vocabulary_says_why_an_answer_ended(finish: str, vendor: Vendor, stream: bool) -> None:
    known = {
        "openai": {"stop_sequence": "end_turn"},
        "anthropic": {"content_filter": "refusal"},
        "gemini": {"stop_sequence": "end_turn", "refusal": "content_filter"},
    }[vendor]
    async with bench(Reply(finish=finish), vendor=vendor) as b:  # type: ignore[arg-type]
        answer = await b.ask(stream=stream)
        told = known.get(finish, finish)
        assert answer.last["finishReason"] == told
        record = await b.settled()
        assert (record.finish_reason, record.ending) == (told, "complete")


# -- what an operator and a host's code see ----------------------------------------------------------------------------


async def test_the_attempts_are_in_the_record_and_in_the_exception_with_their_reasons() -> None:
    async with bench(route=["a", "b"], limits={"attempts": 2}, default=Status(500)) as b:
        b.upstream.script(Status(401), model="a")
        with pytest.raises(ProviderError) as caught:
            await b.gateway.generate(b.key, "Hi", model="fast")
        attempts = caught.value.attempts
        assert [("a", "unusable", "status 401"), ("b", "transient", "status 500")] == [
            (one.deployment, one.fault, one.reason) for one in attempts
        ]
        assert str(caught.value).endswith("(a: status 401; b: status 500)")
        assert attempts == pickle.loads(pickle.dumps(caught.value)).attempts
        record = await b.settled()
        assert attempts == record.attempt_list
        b.upstream.script(Status(503), model="a")
        assert 502 == (await b.ask()).status


@pytest.mark.usefixtures("short_back_off")
async def test_an_attempt_that_served_is_in_the_record_too() -> None:
    async with bench(Status(500), Reply()) as b:
        assert 200 == (await b.ask()).status
        record = await b.settled()
        assert [("a", "status 500"), ("a", None)] == [(one.deployment, one.reason) for one in record.attempt_list]
        assert (2, "native") == (record.attempts, record.dialect)
        assert record.settled_at is not None


async def test_an_operator_is_told_once_a_minute_what_is_wrong_with_a_deployment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench(default=Status(404), limits={"attempts": 1}) as b:
        for _ in range(3):
            answer = await b.ask()
            assert 502 == answer.status
            assert b"Retry later" not in answer.raw
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert ["deployment a cannot be used: status 404; check its key, model and quota"] == errors


@pytest.mark.parametrize(
    ("body", "status", "retry"),
    [
        (b"{", 400, "false"),
        (b"{}", 400, "false"),
        (b'{"prompt": "Hi", "model": "nope"}', 400, "false"),
        (b'{"prompt": "Hi", "model": "fast"}', 502, "false"),
    ],
)
async def test_sdks_are_told_not_to_retry_what_would_fail_again(body: bytes, status: int, retry: str) -> None:
    async with bench(Status(400)) as b:
        answer = await b.send(b.raw(body, path="/generate"))
        assert (status, retry) == (answer.status, answer.headers.get("x-should-retry"))
        unknown = await b.send(b.raw(body, path="/generate", key="flp_sk_" + "x" * 33))
        assert (401, "false") == (unknown.status, unknown.headers.get("x-should-retry"))


async def test_a_failure_that_may_pass_says_nothing_of_retries() -> None:
    async with bench(default=Status(500), limits={"attempts": 1}) as b:
        answer = await b.ask()
        assert (502, None) == (answer.status, answer.headers.get("x-should-retry"))
