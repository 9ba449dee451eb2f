"""What `floop-gateway demo` sets up before it serves."""

import argparse
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from floop_gateway_core import Gateway, Settings
from floop_gateway_core.cli import demo
from floop_gateway_core.cli.demo_login import DemoLogin
from floop_gateway_core.cli.serve import host_app
from tests.serving import served

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOOP_GATEWAY_CONFIG", raising=False)
    return tmp_path


def gateway_of(config: str | None = None) -> Gateway:
    with ExitStack() as stack:
        return demo._gateway(argparse.Namespace(config=config, local_model=False), stack)


def test_without_a_configuration_it_answers_with_echo_or_with_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert {"echo"} == {one.provider for one in gateway_of().settings.deployments.values()}
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert {"openai"} == {one.provider for one in gateway_of().settings.deployments.values()}


def test_a_configuration_goes_before_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    (folder / "gateway.toml").write_text("[upstream]\nattempts = 7\n")
    gateway = gateway_of()
    assert (7, {"echo"}) == (gateway.settings.upstream.attempts, set(gateway.settings.deployments))


async def test_its_project_gets_credits_once_and_a_new_key_each_time(folder: Path) -> None:
    settings = Settings(store=f"sqlite:///{folder}/demo.db")
    keys = {await demo._key(Gateway(settings)) for _ in range(2)}
    assert 2 == len(keys)
    gateway = Gateway(settings)
    (project,) = await gateway.admin.projects()
    account = await gateway.admin.account(project.owner)
    assert account.posted > 0
    await gateway.aclose()


def test_it_prints_lines_to_paste() -> None:
    text = demo._welcome(Settings(), "flp_sk_example", 8123, "/login?once=x")
    assert "http://127.0.0.1:8123/api/v1/ai" in text
    assert "flp_sk_example" in text
    assert "curl" in text
    assert "echo (echo)" in text


@pytest.mark.parametrize(
    ("path", "started_as", "command"),
    [
        (True, "/venv/bin/floop-gateway", "floop-gateway"),
        (False, ".venv/bin/floop-gateway", ".venv/bin/floop-gateway"),
        (False, "/site-packages/floop_gateway_core/__main__.py", "python -m floop_gateway_core"),
    ],
)
def test_it_names_the_command_as_the_user_can_type_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: bool, started_as: str, command: str
) -> None:
    (tmp_path / "floop-gateway").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if path else "")
    monkeypatch.setattr("sys.argv", [started_as, "demo"])
    assert f"  {command} usage demo" in demo._welcome(Settings(), "flp_sk_example", 8123, "/login")


def test_the_dashboard_opens_with_the_link_once(tmp_path: Path) -> None:
    settings = Settings.read({"store": f"sqlite:///{tmp_path}/demo.db"}, source="test")
    gateway = Gateway(settings)
    login = DemoLogin("/login", demo.DASHBOARD + "/")
    with (
        served(host_app(gateway, demo.MOUNT, demo._routes(gateway, login))) as url,
        httpx.Client(base_url=url, follow_redirects=True) as browser,
        httpx.Client(base_url=url) as other,
    ):
        assert browser.get(demo.DASHBOARD + "/").status_code == 401
        assert other.get("/login").status_code == 403
        assert "Projects" in browser.get(login.link).text
        assert browser.get(demo.DASHBOARD + "/health").status_code == 200
        assert other.get(login.link).status_code == 403
        assert other.get(demo.DASHBOARD + "/").status_code == 401
        assert [other.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
