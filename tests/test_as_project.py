"""Ways in without a key: the host's own code, and the host's own login; and what a plan lets its projects name."""

from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from floop_gateway_asgi import FloopGateway
from floop_gateway_core import ConfigError, Gateway, GatewayError, MemoryStore, Settings
from floop_gateway_core.policy.routes import Routes
from tests.serving import MOUNT, gateway_of, records, served


def test_the_hosts_own_code_needs_no_key() -> None:
    gateway, _ = gateway_of()

    async def ask() -> list[str]:
        project = gateway.as_project("p")
        whole = await project.generate("one two")
        async with project.stream([{"role": "user", "content": "one two"}]) as answer:
            texts = [text async for text in answer]
        return [whole.content, "".join(texts)]

    whole, streamed = anyio.run(ask)
    assert whole == streamed
    assert [(one.project, one.key_prefix, one.dialect) for one in records(gateway)] == [("p", None, "in_process")] * 2


@pytest.mark.parametrize("name", ["nobody", "\ud800"])
def test_a_project_that_does_not_exist_is_unauthorized(name: str) -> None:
    gateway, _ = gateway_of()
    with pytest.raises(GatewayError, match="UNAUTHORIZED: There is no project"):
        anyio.run(gateway.as_project(name).generate, "one")


def login(request: Any) -> str | None:
    cookie = dict(request["headers"]).get(b"cookie", b"").decode()
    if cookie == "user=broken":
        raise RuntimeError("the session store is down")
    return {"user=ann": "p", "user=bob": "nobody"}.get(cookie)


async def login_later(request: Any) -> str | None:
    await anyio.lowlevel.checkpoint()
    return login(request)


def with_login(authenticate: Any) -> tuple[Gateway, str]:
    gateway = Gateway(
        Settings.read({"store": "memory://"}, source="test"), store=MemoryStore(), authenticate=authenticate
    )
    key = anyio.run(lambda: gateway.admin.create_project("p", credits="5")).key
    return gateway, key


@pytest.mark.parametrize("authenticate", [login, login_later])
def test_the_hosts_login_is_a_way_in(authenticate: Any) -> None:
    gateway, key = with_login(authenticate)
    app = Starlette(routes=[Mount(MOUNT, FloopGateway(gateway))])
    with served(app) as url, httpx.Client(base_url=url + MOUNT, timeout=30) as client:

        def status(**headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post("/generate", json={"prompt": "a"}, headers=sent).status_code

        assert status(Cookie="user=ann") == 200
        assert status(Cookie="user=ann", Sec_Fetch_Site="same-origin") == 200
        assert status(Cookie="user=bob") == 401
        assert status(Cookie="user=carl") == 401
        assert status(Cookie="user=broken") == 500
        assert status(Cookie="user=carl", Authorization=f"Bearer {key}") == 200
        for elsewhere in ({"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            assert status(Cookie="user=ann", **elsewhere) == 401
            assert status(Cookie="user=ann", Authorization=f"Bearer {key}", **elsewhere) == 200
    assert {one.key_prefix is None for one in records(gateway)} == {True, False}


def test_a_plan_says_what_its_projects_may_name() -> None:
    gateway, key = gateway_of(plan={"models": ["auto", "fast"]})

    async def aliases() -> list[str | None]:
        await gateway.generate(key, "Prove that there are infinitely many primes.")
        await gateway.generate(key, "x", model="fast")
        with pytest.raises(GatewayError, match="Use one of: auto, fast"):
            await gateway.generate(key, "x", model="smart")
        with pytest.raises(GatewayError, match="Use one of: auto, fast"):
            await gateway.generate(key, "x", model="echo")
        return [record.resolved_alias async for record in gateway.usage()]

    assert anyio.run(aliases)[:2] == ["fast", "fast"]


def test_the_first_name_is_the_default_of_a_plan_without_auto() -> None:
    gateway, key = gateway_of(plan={"models": ["echo", "fast"]})
    answer = anyio.run(gateway.generate, key, "x")
    assert answer.model == "echo"
    with pytest.raises(GatewayError, match="Use one of: echo, fast"):
        anyio.run(lambda: gateway.generate(key, "x", model="auto"))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["nope"], "'nope' is not an alias or a deployment"),
        (["auto", "echo"], "'auto' requires at least one of"),
        ([], "at least 1"),
    ],
)
def test_a_plan_with_wrong_models_does_not_start(models: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.read({"plans": {"gold": {"models": models}}}, source="test")


@pytest.mark.parametrize(
    ("judged", "models", "taken"),
    [
        ("smart", ["auto", "fast", "reason"], "reason"),
        ("reason", ["auto", "fast", "smart"], "smart"),
        ("reason", ["auto", "fast"], "fast"),
        ("fast", ["auto", "reason"], "reason"),
        ("fast", None, "fast"),
    ],
)
def test_auto_takes_the_nearest_dearer_alias_else_the_nearest_cheaper(
    judged: str, models: list[str] | None, taken: str
) -> None:
    routes = Routes({"fast": ["m"], "smart": ["m"], "reason": ["m"]}, ["m"])
    assert routes.nearest(judged, models) == taken
