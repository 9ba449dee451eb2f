"""Which deployment is asked when: schedules, waits that an upstream asks for, failover and the breaker, over sockets."""

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from time import time

import anyio
import pytest

from floop_gateway_core.observability.events import BreakerStateChanged
from floop_gateway_core.policy import retry
from floop_gateway_core.testing import Answer, Break, Hold, Reply, Status
from floop_gateway_core.testing.answers import Vendor
from tests.engine.kit import Bench, bench, cancelled_natively, eventually

pytestmark = pytest.mark.anyio

NEVER = Status(500)


def models(b: Bench) -> str:
    return "".join(request.model for request in b.upstream.requests)


def waits(b: Bench) -> list[float]:
    instants = [request.at for request in b.upstream.requests]
    return [later - earlier for earlier, later in zip(instants, instants[1:], strict=False)]


SCHEDULES = [
    (["a"], 3, "aaa"),
    (["a", "b"], 3, "aab"),
    (["a", "b", "c"], 3, "abc"),
    (["a", "b", "c"], 5, "aabbc"),
    (["a", "b"], 1, "a"),
    (["a"], 1, "a"),
    (["a", "b", "c", "d"], 3, "abc"),
]


@pytest.mark.usefixtures("short_back_off")
@pytest.mark.parametrize(("route", "attempts", "schedule"), SCHEDULES, ids=[one[2] for one in SCHEDULES])
async def test_attempts_follow_the_route(route: Sequence[str], attempts: int, schedule: str, stream: bool) -> None:
    async with bench(default=NEVER, route=route, limits={"attempts": attempts}) as b:
        assert 502 == (await b.ask(stream=stream)).status
        assert schedule == models(b)
        assert attempts == (await b.settled()).attempts or len(schedule) < attempts


@pytest.mark.usefixtures("short_back_off")
@pytest.mark.parametrize("fault", [Status(401), Status(403), Status(404), Status(429, kind="quota")])
async def test_what_only_another_deployment_can_better_is_not_tried_again(
    fault: Answer, vendor: Vendor, stream: bool
) -> None:
    async with bench(vendor=vendor, route=["a", "b"], limits={"attempts": 5}) as b:
        b.upstream.script(fault, model="a")
        answer = await b.ask(stream=stream)
        assert (200, "ab", 1) == (answer.status, models(b), b.failures("a"))
        assert "b" == answer.headers["x-gateway-model"]
        await b.settled()


@pytest.mark.usefixtures("short_back_off")
@pytest.mark.parametrize("fault", [Status(400), Status(413), Status(422)])
async def test_what_the_request_is_to_blame_for_is_tried_nowhere_else(
    fault: Answer, vendor: Vendor, stream: bool
) -> None:
    async with bench(vendor=vendor, route=["a", "b"], limits={"attempts": 5}) as b:
        b.upstream.script(fault, model="a")
        assert 502 == (await b.ask(stream=stream)).status
        assert ("a", 0) == (models(b), b.failures("a"))
        await b.settled()


# -- waits -------------------------------------------------------------------------------------------------------------


GOOGLE_DELAY = (
    b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow down", "details": '
    b'[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.4s"}]}}'
)
ASKED: dict[str, tuple[Vendor, Status]] = {
    "retry-after-ms": ("openai", Status(429, headers={"retry-after-ms": "400"})),
    "milliseconds go before seconds": ("openai", Status(429, headers={"retry-after-ms": "400", "retry-after": "30"})),
    "a fraction of a second": ("anthropic", Status(529, headers={"retry-after": "0.4"})),
    "retryDelay": ("gemini", Status(429, body=GOOGLE_DELAY)),
}


@pytest.mark.usefixtures("short_back_off")
@pytest.mark.parametrize(("vendor", "fault"), list(ASKED.values()), ids=list(ASKED))
async def test_the_wait_that_an_upstream_asks_for_is_kept(vendor: Vendor, fault: Status, stream: bool) -> None:
    async with bench(fault, vendor=vendor) as b:
        assert 200 == (await b.ask(stream=stream)).status
        (wait,) = waits(b)
        assert 0.4 <= wait < 2.0


@pytest.mark.usefixtures("short_back_off")
async def test_a_date_in_retry_after_is_kept() -> None:
    async with bench(Status(503, headers={"retry-after": formatdate(int(time()) + 2, usegmt=True)})) as b:
        assert 200 == (await b.ask()).status
        (wait,) = waits(b)
        assert 0.9 <= wait < 4.0


@pytest.mark.usefixtures("short_back_off")
async def test_a_long_wait_is_no_wait_where_another_deployment_remains(stream: bool) -> None:
    async with bench(route=["a", "b"], limits={"attempts": 5}) as b:
        b.upstream.script(Status(429, headers={"retry-after": "3"}), model="a")
        assert 200 == (await b.ask(stream=stream)).status
        assert "ab" == models(b)
        assert waits(b)[0] < 2.0


@pytest.mark.usefixtures("short_back_off")
async def test_a_wait_beyond_the_requests_own_time_ends_it_at_once(stream: bool) -> None:
    async with bench(default=Status(429, headers={"retry-after": "3600"}), limits={"total_s": 60.0}) as b:
        began = anyio.current_time()
        assert 502 == (await b.ask(stream=stream)).status
        assert ("a", True) == (models(b), anyio.current_time() - began < 5.0)
        await b.settled()


async def test_back_off_has_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten requests that fail together do not come back together, and none waits longer than the schedule says."""
    monkeypatch.setattr(retry, "BACKOFF_BASE_S", 0.2)
    found: list[float] = []
    for _ in range(10):
        async with bench(Status(500), Status(500)) as b:
            assert 200 == (await b.ask()).status
            found += waits(b)
    assert 20 == len(set(found))
    assert max(found) - min(found) > 0.02
    assert max(found[::2]) < 0.2 + 0.5
    assert max(found[1::2]) < 0.4 + 0.5


@pytest.mark.usefixtures("short_back_off")
async def test_all_attempts_share_one_deadline(stream: bool) -> None:
    limits = {"total_s": 1.2, "first_event_s": 0.7, "attempts": 5}
    async with bench(default=Break("stall", "head"), limits=limits) as b:
        began = anyio.current_time()
        assert 502 == (await b.ask(stream=stream)).status
        assert anyio.current_time() - began < 4.0
        assert "aa" == models(b)
        assert ("upstream_error", 0) == ((record := await b.settled()).ending, record.microcredits)


# -- the breaker -------------------------------------------------------------------------------------------------------


def turns(b: Bench) -> list[tuple[str, str]]:
    return [(event.deployment, event.state) for event in b.told if isinstance(event, BreakerStateChanged)]


@pytest.mark.usefixtures("short_back_off")
async def test_a_deployment_that_keeps_failing_is_passed_over_and_costs_no_attempt(stream: bool) -> None:
    async with bench(route=["a", "b"], limits={"attempts": 3, "breaker_failures": 2}) as b:
        b.upstream.script(Status(500), Status(500), model="a")
        assert 200 == (await b.ask(stream=stream)).status
        assert ("aab", {"a": "open", "b": "closed"}) == (models(b), b.gateway.health())
        assert [("a", "open")] == turns(b)
        answer = await b.ask(stream=stream)
        assert (200, "b") == (answer.status, answer.headers["x-gateway-model"])
        assert ("aabb", 1) == (models(b), (await b.settled(2)).attempts)


@pytest.mark.usefixtures("short_back_off")
async def test_where_every_breaker_is_open_nothing_is_asked_and_the_wait_is_true(stream: bool) -> None:
    limits = {"attempts": 2, "breaker_failures": 2, "breaker_cool_down_s": 90.0}
    async with bench(default=NEVER, limits=limits) as b:
        assert 502 == (await b.ask(stream=stream)).status
        refused = await b.ask(stream=stream)
        assert (503, "SERVICE_UNAVAILABLE") == (refused.status, refused.code)
        assert 60 < int(refused.headers["retry-after"]) <= 90
        record = await b.settled(2)
        assert ("refused", 0, "aa") == (record.ending, record.attempts, models(b))


@pytest.mark.usefixtures("short_back_off")
@pytest.mark.parametrize("probe", [Reply(), NEVER], ids=["succeeds", "fails"])
async def test_after_the_cool_down_one_probe_decides(probe: Answer) -> None:
    limits: Mapping[str, object] = {"attempts": 1, "breaker_failures": 1, "breaker_cool_down_s": 0.2}
    async with bench(Status(500), probe, limits=limits) as b:
        assert 502 == (await b.ask()).status
        assert 503 == (await b.ask()).status
        await anyio.sleep(0.25)
        assert "half_open" == b.gateway.health()["a"]
        assert (200 if probe == Reply() else 502) == (await b.ask()).status
        assert ("closed" if probe == Reply() else "open") == b.gateway.health()["a"]
        await b.settled(3)


@pytest.mark.usefixtures("short_back_off")
async def test_a_probe_whose_client_leaves_says_nothing() -> None:
    limits: Mapping[str, object] = {"attempts": 1, "breaker_failures": 1, "breaker_cool_down_s": 0.05}
    async with bench(Status(500), Break("stall", "body"), limits=limits) as b:
        assert 502 == (await b.ask()).status
        await anyio.sleep(0.1)
        with anyio.CancelScope() as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(b.ask)
                await b.upstream.until(lambda u: len(u.requests) == 2)
                client.cancel()
        assert "half_open" == b.gateway.health()["a"]
        assert 200 == (await b.ask()).status
        assert "closed" == b.gateway.health()["a"]
        await b.settled(3)


# -- connections -------------------------------------------------------------------------------------------------------


async def test_connections_are_kept_warm_and_closed_with_the_gateway(vendor: Vendor, stream: bool) -> None:
    async with bench(vendor=vendor) as b:
        for _ in range(5):
            assert 200 == (await b.ask(stream=stream)).status
        assert 1 == b.upstream.open_connections
        await b.gateway.aclose()
        await b.upstream.until(lambda u: u.open_connections == 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_stream_leaves_nothing_open(vendor: Vendor) -> None:
    async with bench(Reply(endless=True), vendor=vendor) as b:
        await cancelled_natively(lambda: b.ask(stream=True), lambda: any(r.texts_sent > 3 for r in b.upstream.requests))
        await b.upstream.until(lambda u: u.open_connections == 0)
        await b.settled()


@pytest.mark.parametrize("status", [403, 404])
async def test_a_refusal_that_one_projects_requests_may_cause_opens_no_breaker_for_others(status: int) -> None:
    limits: Mapping[str, object] = {"attempts": 1, "breaker_failures": 3}
    async with bench(limits=limits) as b:
        other = (await b.gateway.admin.create_project("blog", owner="ann", credits="100")).key
        body = b'{"prompt": "Hi", "model": "fast"}'
        assert 200 == (await b.send(b.raw(body, path="/generate", key=other))).status
        b.upstream.script(*[Status(status)] * 6)
        assert {502} == {(await b.ask()).status for _ in range(5)}
        assert {"a": "closed"} == b.gateway.health()
        # A second project meets it too, so it is the deployment's.
        assert 502 == (await b.send(b.raw(body, path="/generate", key=other))).status
        b.upstream.script(Status(status))
        assert 502 == (await b.ask()).status
        assert {"a": "open"} == b.gateway.health()


async def test_a_refusal_counts_every_time_while_only_one_project_is_known() -> None:
    async with bench(limits={"attempts": 1, "breaker_failures": 3}, default=Status(403)) as b:
        assert [502, 502, 502, 503] == [(await b.ask()).status for _ in range(4)]


async def test_a_probe_that_streams_slowly_keeps_nobody_out() -> None:
    limits: Mapping[str, object] = {"attempts": 1, "breaker_failures": 1, "breaker_cool_down_s": 0.05}
    go_on = anyio.Event()
    async with bench(Status(500), Reply(hold=Hold(go_on, at="text")), limits=limits) as b:
        assert 502 == (await b.ask()).status
        while b.gateway.health() != {"a": "half_open"}:
            await anyio.sleep(0.005)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(b.ask)
            await eventually(lambda: b.gateway.health() == {"a": "closed"})
            assert 200 == (await b.ask()).status
            go_on.set()
