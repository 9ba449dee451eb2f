"""A reload applies to new requests at once, leaves running ones alone, and changes nothing if there is a mistake."""

import signal
from pathlib import Path

import httpx
import pytest

from floop_gateway_core import ConfigError, Gateway, GatewayError, ProjectSettings, Settings
from floop_gateway_core.testing import Reply, ScriptedUpstream
from tests.serving import until
from tests.test_processes import Machine

pytestmark = pytest.mark.anyio

FILE = """
store = "memory://"

[plans.default]
requests_per_minute = 3

[plans.gold]
requests_per_minute = 100

[deployments.mini]
provider = "{provider}"
model = "m"
base_url = "{base_url}"
api_key_env = "MINI_KEY"
microcredits_per_token = {price}

[routes]
fast = ["mini"]
smart = ["mini"]
reason = ["mini"]
"""


class Shop:
    """A gateway built from a file that a test changes."""

    def __init__(self, folder: Path, upstream: ScriptedUpstream) -> None:
        self.file = folder / "gateway.toml"
        self.secrets = {"MINI_KEY": "first"}
        self.base_url = upstream.base_url("openai")
        self.write()
        self.gateway = Gateway.from_config(self.file, secrets=self.secrets.get)

    def write(self, text: str = FILE, *, provider: str = "openai", price: int = 1) -> None:
        self.file.write_text(text.format(provider=provider, base_url=self.base_url, price=price))


async def test_new_prices_limits_and_secrets_hold_at_once(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        shop = Shop(tmp_path, upstream)
        async with shop.gateway as gateway:
            key = (await gateway.admin.create_project("p", credits="1")).key
            before = await gateway.generate(key, "Hi")
            shop.write(FILE.replace("requests_per_minute = 3", "requests_per_minute = 1"), price=2)
            shop.secrets["MINI_KEY"] = "second"
            await gateway.reload()
            with pytest.raises(GatewayError, match="1 requests"):
                await gateway.generate(key, "Hi")
            await gateway.admin.change_settings("p", requests_per_minute=50)
            after = await gateway.generate(key, "Hi")
            assert after.bill.credits_used == 2 * before.bill.credits_used
            sent = [request.headers["authorization"] for request in upstream.requests]
            assert sent == ["Bearer first", "Bearer second"]


async def test_a_running_request_keeps_what_it_began_with(tmp_path: Path) -> None:
    async with ScriptedUpstream(Reply()) as upstream:
        shop = Shop(tmp_path, upstream)
        async with shop.gateway as gateway:
            key = (await gateway.admin.create_project("p", credits="1")).key
            async with gateway.stream(key, [{"role": "user", "content": "Hi"}]) as stream:
                first = await anext(aiter(stream))
                shop.write(FILE.replace("mini", "other").replace("MINI_KEY", "OTHER_KEY"), price=100)
                shop.secrets["OTHER_KEY"] = "other"
                await gateway.reload()
                texts = [first] + [text async for text in stream]
            assert "".join(texts) == "Hello, world!"
            assert stream.bill is not None
            assert stream.bill.credits_used == 16
            assert list(gateway.health()) == ["other"]
            assert (await gateway.generate(key, "Hi")).deployment == "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("price}", "price}\ncolour = 1"), "colour"),
        (("[routes]", "[routes"), "gateway.toml"),
        (('"MINI_KEY"', '"MISSING"'), "MISSING"),
        (("memory://", "sqlite:///other.db"), "store: cannot be changed while running"),
        (
            ("[plans.gold]\nrequests_per_minute = 100", ""),
            "plans.gold: cannot be removed, because these projects use it: g",
        ),
    ],
)
async def test_a_mistake_changes_nothing_and_says_why(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    async with ScriptedUpstream() as upstream:
        shop = Shop(tmp_path, upstream)
        async with shop.gateway as gateway:
            key = (await gateway.admin.create_project("p", credits="1")).key
            await gateway.admin.create_project("g", settings=ProjectSettings(plan="gold"))
            settings, routing = gateway.settings, gateway.runtime.routing
            shop.write(FILE.replace(*change))
            with pytest.raises(ConfigError, match=message):
                await gateway.reload()
            assert (gateway.settings, gateway.runtime.routing) == (settings, routing)
            assert (await gateway.generate(key, "Hi")).deployment == "mini"


async def test_a_breaker_survives_unless_its_deployment_changed(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        shop = Shop(tmp_path, upstream)
        async with shop.gateway as gateway:
            breaker = gateway.runtime.breakers["mini"]
            await gateway.reload()
            assert gateway.runtime.breakers["mini"] is breaker
            shop.write(price=5)
            await gateway.reload()
            assert gateway.runtime.breakers["mini"] is not breaker


async def test_settings_of_the_hosts_own_are_taken_too() -> None:
    def settings(rpm: int) -> Settings:
        return Settings.read({"store": "memory://", "plans": {"default": {"requests_per_minute": rpm}}}, source="host")

    async with Gateway(settings(3)) as gateway:
        await gateway.reload(settings(7))
        new = await gateway.admin.create_project("p")
        assert (await gateway.admin.status("p")).requests_per_minute == 7
        assert new.project.name == "p"


async def test_a_gateway_without_a_file_reads_its_keys_again_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.toml").write_text('[deployments.other]\nprovider = "echo"\nmicrocredits_per_token = 1\n')
    monkeypatch.chdir(tmp_path)
    mini = {"provider": "openai", "model": "m", "api_key_env": "K", "microcredits_per_token": 1}
    settings = Settings.read(
        {
            "store": "memory://",
            "deployments": {"mini": mini},
            "routes": {alias: ["mini"] for alias in ("fast", "smart", "reason")},
        },
        source="test",
    )
    asked: list[str] = []

    def secrets(name: str) -> str:
        asked.append(name)
        return "k"

    async with Gateway(settings, secrets=secrets) as gateway:
        before = len(asked)
        await gateway.reload()
        assert ["mini"] == list(gateway.health())
        assert len(asked) > before


async def test_a_key_comes_from_a_file_and_is_read_again(tmp_path: Path) -> None:
    secret = tmp_path / "mini.key"
    secret.write_text("first\n")
    async with ScriptedUpstream() as upstream:
        shop = Shop(tmp_path, upstream)
        shop.write(FILE.replace('api_key_env = "MINI_KEY"', f'api_key_file = "{secret}"'))
        async with Gateway.from_config(shop.file) as gateway:
            key = (await gateway.admin.create_project("p", credits="1")).key
            await gateway.generate(key, "Hi")
            secret.write_text("second")
            await gateway.reload()
            await gateway.generate(key, "Hi")
            assert [one.headers["authorization"] for one in upstream.requests] == ["Bearer first", "Bearer second"]
            secret.write_text("")
            with pytest.raises(ConfigError, match="api_key_file: must not be empty"):
                await gateway.reload()
            secret.unlink()
            with pytest.raises(ConfigError, match="api_key_file: cannot be read"):
                await gateway.reload()


def test_serve_reads_its_file_again_on_sighup(tmp_path: Path) -> None:
    machine = Machine(tmp_path, rpm=1)
    key = machine.run("project", "create", "p", "--credits", "1").strip().splitlines()[-1].split()[-1]
    with machine.serving() as (address, process):

        def status() -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return httpx.post(address + "/generate", json={"prompt": "one"}, headers=headers).status_code

        assert [status(), status()] == [200, 429]
        machine.config.write_text("store = 7")
        process.send_signal(signal.SIGHUP)
        assert status() == 429
        Machine(tmp_path, rpm=5)
        process.send_signal(signal.SIGHUP)
        until(lambda: status() == 200)
        assert process.poll() is None


def test_both_ways_of_naming_a_key_are_a_mistake(tmp_path: Path) -> None:
    deployment = {"provider": "openai", "model": "m", "microcredits_per_token": 1, "base_url": "http://127.0.0.1:9/v1"}
    settings = Settings.read(
        {
            "store": "memory://",
            "deployments": {"mini": {**deployment, "api_key_env": "A", "api_key_file": "b"}},
            "routes": {alias: ["mini"] for alias in ("fast", "smart", "reason")},
        },
        source="test",
    )
    with pytest.raises(ConfigError, match="must not both be given"):
        Gateway(settings)
