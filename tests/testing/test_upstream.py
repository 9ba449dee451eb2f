"""The scripted upstream fails on the wire exactly as it is told, under asyncio and trio."""

import json
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import get_args

import anyio
import anyio.lowlevel
import httpx
import pytest

from floop_gateway_core.providers.anthropic import AnthropicCodec
from floop_gateway_core.providers.base import Codec, Delta, UpstreamCall, UpstreamFault
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.testing import Break, Hold, Received, Reply, ScriptedUpstream, Status
from floop_gateway_core.testing.answers import How, Moment, Vendor
from floop_gateway_core.types import FinishReason, Message, Thought, Usage

pytestmark = pytest.mark.anyio

CODECS: dict[Vendor, Codec] = {"openai": OpenAICodec(), "anthropic": AnthropicCodec(), "gemini": GeminiCodec()}
CALL = UpstreamCall("model-a", (Message.of("user", "my secret prompt"),), None, 100)

HoldEstimate = Callable[..., Coroutine[None, None, tuple[list[str], Delta]]]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        yield http


@pytest.fixture(params=get_args(Vendor))
def vendor(request: pytest.FixtureRequest) -> Vendor:
    value: Vendor = request.param
    return value


@pytest.fixture
def ask(upstream: ScriptedUpstream, client: httpx.AsyncClient, vendor: Vendor) -> HoldEstimate:
    """Ask as a driver would, and give the texts and a delta that holds the rest. Raises what a driver would meet."""

    async def asked(seen: list[str] | None = None) -> tuple[list[str], Delta]:
        return await exchange(upstream, client, vendor, [] if seen is None else seen)

    return asked


async def exchange(
    upstream: ScriptedUpstream, client: httpx.AsyncClient, vendor: Vendor, texts: list[str], model: str = "model-a"
) -> tuple[list[str], Delta]:
    codec = CODECS[vendor]
    call = UpstreamCall(model, CALL.messages, None, 100)
    request = codec.encode(call, base_url=upstream.base_url(vendor), api_key="sk-secret")
    decoder, whole = codec.decoder(), Delta()
    async with client.stream("POST", request.url, headers=request.headers, content=request.body) as response:
        if response.status_code != 200:
            raise codec.fault(response.status_code, response.headers, await response.aread(), 0.0)
        assert response.headers["content-type"].startswith("text/event-stream")
        unzip = zlib.decompressobj(wbits=31).decompress if "content-encoding" in response.headers else bytes
        failed: Exception | None = None
        # Read to the end even so: httpx leaves generators behind where a reader stops in mid-stream.
        async for chunk in response.aiter_raw():
            try:
                if failed is None:
                    add(whole, decoder.feed(unzip(chunk)), texts)
            except (UpstreamFault, zlib.error) as error:
                failed = error
        if failed is not None:
            raise failed
        add(whole, decoder.end(), texts)
    return texts, whole


def add(whole: Delta, delta: Delta, texts: list[str]) -> None:
    texts += delta.texts
    whole.items += delta.items
    whole.usage = delta.usage or whole.usage
    whole.finish = delta.finish or whole.finish


async def test_the_default_reply_is_whole_for_every_vendor_and_comes_again_and_again(ask: HoldEstimate) -> None:
    for _ in range(2):
        texts, rest = await ask()
        assert texts == ["Hello", ", ", "world", "!"]
        assert (rest.usage, rest.finish, rest.items) == (Usage(12, 4), "end_turn", ["Hello", ", ", "world", "!"])


@pytest.mark.parametrize("split", ["whole", "events", "bytes"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_however_it_is_cut_and_framed_the_answer_is_the_same(
    upstream: ScriptedUpstream, ask: HoldEstimate, split: str, framing: str
) -> None:
    reply = Reply(["Grüße ", "👋"], thinking=["hm"], pings=2, split=split, framing=framing)  # type: ignore[arg-type]
    upstream.script(reply)
    texts, rest = await ask()
    assert (texts, rest.items, rest.finish) == (["Grüße ", "👋"], [Thought("hm"), *texts], "end_turn")


async def test_usage_is_told_in_the_vendors_own_terms(
    upstream: ScriptedUpstream, ask: HoldEstimate, vendor: Vendor
) -> None:
    usage = Usage(100, 50, cached_tokens=30, reasoning_tokens=20)
    upstream.script(Reply(usage=usage), Reply(usage=None))
    _, rest = await ask()
    assert rest.usage == (usage if vendor != "anthropic" else Usage(100, 50, cached_tokens=30))
    _, rest = await ask()
    assert rest.usage is None


@pytest.mark.parametrize("finish", ["end_turn", "max_tokens", "refusal", "content_filter"])
async def test_the_finish_reason_is_told_in_the_vendors_own_words(
    upstream: ScriptedUpstream, ask: HoldEstimate, vendor: Vendor, finish: FinishReason
) -> None:
    upstream.script(Reply(finish=finish))
    _, rest = await ask()
    no_such_word = {("gemini", "refusal"): "content_filter", ("anthropic", "content_filter"): "refusal"}
    assert rest.finish == no_such_word.get((vendor, finish), finish)


async def test_half_a_surrogate_pair_in_each_of_two_deltas_arrives_as_two_halves(
    upstream: ScriptedUpstream, ask: HoldEstimate
) -> None:
    upstream.script(Reply(["a\ud83d", "\ude00b"]))
    assert (await ask())[0] == ["a\ud83d", "\ude00b"]


async def test_a_huge_event_arrives_whole(upstream: ScriptedUpstream, ask: HoldEstimate) -> None:
    upstream.script(Reply(["x" * 3_000_000]))
    assert (await ask())[0] == ["x" * 3_000_000]


async def test_a_compressed_answer_arrives_whole(upstream: ScriptedUpstream, ask: HoldEstimate) -> None:
    upstream.script(Reply(["packed"], gzip=True))
    assert (await ask())[0] == ["packed"]


async def test_requests_are_recorded(upstream: ScriptedUpstream, ask: HoldEstimate, vendor: Vendor) -> None:
    before = anyio.current_time()
    await ask()
    (request,) = upstream.requests
    assert (request.method, request.model, request.answered, request.cut) == ("POST", "model-a", True, False)
    assert before <= request.at <= anyio.current_time()
    assert request.headers["accept-encoding"] == "identity"
    assert json.loads(request.body) == request.json
    assert (
        request.path
        == {
            "openai": "/v1/chat/completions",
            "anthropic": "/v1/messages",
            "gemini": "/v1beta/models/model-a:streamGenerateContent?alt=sse",
        }[vendor]
    )


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (Status(400), "rejected"),
        (Status(400, "context_length"), "context_length"),
        (Status(401), "unusable"),
        (Status(403), "unusable"),
        (Status(404), "unusable"),
        (Status(408), "transient"),
        (Status(409), "rejected"),
        (Status(409, headers={"x-should-retry": "true"}), "transient"),
        (Status(413), "rejected"),
        (Status(422), "rejected"),
        (Status(429, headers={"retry-after": "7"}), "rate_limited"),
        (Status(429, "quota"), "unusable"),
        (Status(500), "transient"),
        (Status(503), "transient"),
        (Status(529), "transient"),
        (Status.html(502), "transient"),
    ],
)
async def test_a_status_is_shaped_as_the_vendor_shapes_it_and_read_back(
    upstream: ScriptedUpstream, ask: HoldEstimate, status: Status, fault: str
) -> None:
    upstream.script(status)
    with pytest.raises(UpstreamFault) as caught:
        await ask()
    assert caught.value.fault.value == fault
    if "retry-after" in status.headers:
        assert caught.value.retry_after_s == 7.0
    assert "secret" not in f"{caught.value!r} {caught.value.reason} {caught.value.__context__!r}"


async def test_an_error_with_status_200_and_a_page_are_no_streams(
    upstream: ScriptedUpstream, client: httpx.AsyncClient, vendor: Vendor
) -> None:
    upstream.script(Status(200), Status.html())
    request = CODECS[vendor].encode(CALL, base_url=upstream.base_url(vendor), api_key="sk-secret")
    error = await client.post(request.url, headers=request.headers, content=request.body)
    assert (error.status_code, error.headers["content-type"]) == (200, "application/json")
    assert "error" in error.json()
    assert "sk-secret" in error.text, "bad upstreams quote the key, and so must this one"
    page = await client.post(request.url, headers=request.headers, content=request.body)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html")


TEXTS_BEFORE: dict[Moment, list[str]] = {
    "head": [],
    "body": [],
    "preamble": [],
    "text": ["Hello"],
    "end": ["Hello", ", ", "world", "!"],
    "done": ["Hello", ", ", "world", "!"],
}


@pytest.mark.parametrize("at", get_args(Moment))
@pytest.mark.parametrize("how", [how for how in get_args(How) if how not in ("stall", "malformed")])
async def test_every_break_at_every_moment_is_a_failure_and_never_a_clean_end(
    upstream: ScriptedUpstream, ask: HoldEstimate, vendor: Vendor, how: How, at: Moment
) -> None:
    upstream.script(Break(how, at), Reply(["again"]))
    seen: list[str] = []
    if (how, at) == ("eof", "done") and vendor != "gemini":
        # The reason has come, and the body ends cleanly: only the vendor's own mark is missing.
        assert (await ask(seen))[0] == TEXTS_BEFORE[at]
        return
    with pytest.raises((httpx.TransportError, zlib.error, UpstreamFault)):
        await ask(seen)
    # A reset may overtake text that is still on its way, and `refuse` breaks at the door whatever the moment.
    assert seen == TEXTS_BEFORE[at] or how in ("reset", "refuse")
    assert (await ask())[0] == ["again"]


@pytest.mark.parametrize("at", get_args(Moment))
async def test_a_malformed_event_is_noticed_though_the_rest_is_sound(
    upstream: ScriptedUpstream, ask: HoldEstimate, at: Moment
) -> None:
    upstream.script(Break("malformed", at))
    with pytest.raises((httpx.TransportError, UpstreamFault)):
        await ask()


@pytest.mark.parametrize("framing", ["length", "close"])
async def test_a_body_without_chunks_can_be_truncated_too(
    upstream: ScriptedUpstream, ask: HoldEstimate, framing: str
) -> None:
    upstream.script(Reply(framing=framing, broken=Break("truncate")))  # type: ignore[arg-type]
    with pytest.raises((httpx.TransportError, UpstreamFault)):
        await ask()


@pytest.mark.parametrize("at", get_args(Moment))
async def test_a_stall_lasts_until_the_client_leaves_and_the_request_is_cut(
    upstream: ScriptedUpstream, ask: HoldEstimate, at: Moment
) -> None:
    upstream.script(Break("stall", at))
    seen: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, seen)
        with anyio.fail_after(5):
            await upstream.until(lambda u: bool(u.requests))
            while seen != TEXTS_BEFORE[at]:
                await anyio.sleep(0.001)
        await anyio.sleep(0.2)
        assert not upstream.requests[0].cut
        tasks.cancel_scope.cancel()
    assert seen == TEXTS_BEFORE[at]
    with anyio.fail_after(5):
        await upstream.until(lambda u: u.streams_open == 0 and u.open_connections == 0)
    assert [(request.cut, request.answered) for request in upstream.requests] == [(True, False)]


async def test_an_endless_answer_is_cut_when_the_client_leaves(upstream: ScriptedUpstream, ask: HoldEstimate) -> None:
    upstream.script(Reply(["word "], endless=True))
    seen: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, seen)
        with anyio.fail_after(5):
            while len(seen) <= 100:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(5):
        await upstream.until(lambda u: u.streams_open == 0)
    assert upstream.requests[0].cut


async def test_a_held_answer_waits_for_the_tests_word(upstream: ScriptedUpstream, ask: HoldEstimate) -> None:
    go = anyio.Event()
    upstream.script(Reply(["one", "two"], hold=Hold(go, "text", 1)))
    seen: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, seen)
        with anyio.fail_after(5):
            await upstream.until(lambda u: bool(u.requests))
            while seen != ["one"]:
                await anyio.lowlevel.checkpoint()
            assert (upstream.streams_open, upstream.open_connections) == (1, 1)
            go.set()
    assert seen == ["one", "two"]


async def test_an_error_event_can_be_about_anything(
    upstream: ScriptedUpstream, ask: HoldEstimate, vendor: Vendor
) -> None:
    kinds = {"overloaded": "transient", "rate_limit": "rate_limited", "quota": "unusable", "invalid": "rejected"}
    for kind, fault in (kinds | {"context_length": "context_length"}).items():
        upstream.script(Break("error", kind=kind))  # type: ignore[arg-type]
        with pytest.raises(UpstreamFault) as caught:
            await ask()
        assert caught.value.fault.value == fault, kind


async def test_connections_are_kept_and_counted(upstream: ScriptedUpstream, vendor: Vendor) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(3):
            await exchange(upstream, client, vendor, [])
        assert upstream.open_connections == 1
    with anyio.fail_after(5):
        await upstream.until(lambda u: u.open_connections == 0)
    assert upstream.streams_open == 0


async def test_a_script_for_a_model_goes_before_the_common_one(
    upstream: ScriptedUpstream, client: httpx.AsyncClient, vendor: Vendor
) -> None:
    upstream.script(Reply(["for b"]), model="b")
    upstream.script(Reply(["for all"]))
    assert [(await exchange(upstream, client, vendor, [], model))[0] for model in ("a", "b", "b")] == [
        ["for all"],
        ["for b"],
        ["Hello", ", ", "world", "!"],
    ]


async def test_many_requests_at_once_are_answered_side_by_side(
    upstream: ScriptedUpstream, client: httpx.AsyncClient, vendor: Vendor
) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(exchange, upstream, client, vendor, [])
    assert [request.answered for request in upstream.requests] == [True] * 20


async def test_a_connection_that_is_reused_can_be_refused_too(upstream: ScriptedUpstream, ask: HoldEstimate) -> None:
    upstream.script(Reply(["one"]))
    await ask()
    upstream.script(Break("refuse"), Reply(["two"]))
    seen: list[str] = []
    with pytest.raises(httpx.TransportError):
        await ask(seen)
    assert seen == []
    assert (await ask())[0] == ["two"]


async def test_what_is_no_http_gets_no_answer_and_harms_nobody(upstream: ScriptedUpstream, ask: HoldEstimate) -> None:
    async with await anyio.connect_tcp("127.0.0.1", int(upstream.url.rpartition(":")[2])) as stream:
        await stream.send(b"hello\r\n\r\n")
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
    assert (await ask())[1].finish == "end_turn"


async def test_a_tests_own_failure_leaves_the_server_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with ScriptedUpstream():
            _ = 1 / 0


async def test_a_cancelled_test_ends_the_server() -> None:
    with anyio.move_on_after(0.05) as scope:
        async with ScriptedUpstream():
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_delay_lies_between_the_writes(upstream: ScriptedUpstream, ask: HoldEstimate) -> None:
    upstream.script(Reply(["a", "b", "c"], delay_s=0.02))
    before = anyio.current_time()
    await ask()
    assert anyio.current_time() - before >= 4 * 0.02


async def test_nowhere_refuses_connections(upstream: ScriptedUpstream, client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ConnectError):
        await client.get(upstream.nowhere)


async def test_leaving_ends_what_is_open(client: httpx.AsyncClient) -> None:
    async def fails() -> None:
        with pytest.raises(httpx.TransportError):
            await exchange(server, client, "openai", [])

    async with anyio.create_task_group() as tasks:
        async with ScriptedUpstream(default=Break("stall", "head")) as server:
            tasks.start_soon(fails)
            await server.until(lambda u: u.streams_open == 1)
        assert (server.open_connections, server.streams_open) == (0, 0)


async def test_a_reset_is_a_reset_and_no_goodbye(upstream: ScriptedUpstream) -> None:
    upstream.script(Break("reset", "head"), Break("eof", "head"))
    for expected in (anyio.BrokenResourceError, anyio.EndOfStream):
        async with await anyio.connect_tcp("127.0.0.1", int(upstream.url.rpartition(":")[2])) as stream:
            await stream.send(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
            with pytest.raises(expected):
                await stream.receive()


def test_a_request_knows_its_model_from_the_body_or_the_path() -> None:
    assert Received("POST", "/v1/chat/completions", {}, b"", 0.0, {"model": "m"}).model == "m"
    assert Received("POST", "/v1beta/models/g:streamGenerateContent", {}, b"", 0.0).model == "g"
