"""The examples: each is started as its first lines say, and asked."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import MOUNT, post, until

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.fixture(params=NAMES)
def example(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Give a running example's address and key."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(EXAMPLES / f"{request.param}.py"), str(port)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            key = next(line for line in process.stdout if line.startswith("key: ")).removeprefix("key: ").strip()
            address = f"http://127.0.0.1:{port}"
            until(lambda: process.poll() is not None or _answers(address), most_s=30)
            yield address, key
            process.send_signal(signal.SIGINT)
            process.wait(20)
        finally:
            process.kill()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).text == "the host's own page\n"
    except httpx.TransportError:
        return False


def test_it_serves_the_gateway_beside_its_own_page(example: tuple[str, str]) -> None:
    address, key = example
    assert key.startswith("flp_sk_")
    plain = post(f"{address}{MOUNT}/generate", key, {"prompt": "one two"})
    assert (200, "one two") == (plain.status_code, plain.json()["content"])
    stream = post(f"{address}{MOUNT}/generate", key, {"prompt": "one two", "stream": True})
    assert stream.text.startswith('data: {"text": "one "}\n\ndata: {"text": "two"}\n\ndata: {"usage": ')
    assert stream.text.endswith("data: [DONE]\n\n")
    assert 405 == httpx.options(f"{address}{MOUNT}/chat").status_code
    assert "the host's own page\n" == httpx.get(address).text


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 40


LOGINS = sorted(path.stem for path in (EXAMPLES / "dashboard").glob("*.py"))


@pytest.mark.parametrize("name", LOGINS)
def test_the_dashboard_stands_behind_the_hosts_own_login(name: str) -> None:
    path = EXAMPLES / "dashboard" / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 65
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(path), str(port)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            keys = dict(line.removeprefix("key of ").strip().split(": ") for line in lines)
            until(lambda: process.poll() is not None or _listens(address), most_s=30)
            assert 200 == post(f"{address}{MOUNT}/generate", keys["bob"], {"prompt": "one two"}).status_code
            for user, sees_all in (("ann", True), ("bob", False)):
                with httpx.Client(base_url=address, headers={"Accept": "text/html"}) as browser:
                    assert (browser.get("/settings/ai/").status_code, browser.get("/settings/ai/").headers["location"]) == (
                        303, "/login",
                    )  # fmt: skip
                    browser.post("/login", data={"name": user, "password": "wrong"})
                    assert browser.get("/settings/ai/").status_code == 303
                    browser.post("/login", data={"name": user, "password": "secret"})
                    page = browser.get("/settings/ai/").text
                    assert ("ann" in page.partition("<main")[2], "bob" in page) == (sees_all, True)
                    assert (browser.get("/settings/ai/health").status_code == 200) is sees_all
                    assert browser.get("/settings/ai/projects/ann").status_code == (200 if sees_all else 404)
                    assert browser.get("/settings/ai/projects/bob/usage").status_code == 200
            process.send_signal(signal.SIGINT)
            process.wait(20)
        finally:
            process.kill()


def _listens(address: str) -> bool:
    try:
        return httpx.get(address + "/login").status_code == 200
    except httpx.TransportError:
        return False
