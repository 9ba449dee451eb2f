"""The documents: the site builds strictly, each tutorial does what it says, and the tables name everything there is."""

import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from floop_gateway_core.config.settings import Settings
from floop_gateway_core.errors import CATALOGUE
from tests.serving import until

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "FLOOP_GATEWAY_CONFIG"} | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters"), str(ROOT / "clients/python/src")]),
    "NO_MKDOCS_2_WARNING": "1",
}
TUTORIALS = sorted(path.stem for path in (ROOT / "docs/tutorials").glob("*.md"))


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stderr[-3000:]
    assert (tmp_path / "site/tutorials/flask/index.html").is_file()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(params=TUTORIALS)
def tutorial(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield a tutorial's text, its host's address, and the folder that it runs in."""
    text = (ROOT / f"docs/tutorials/{request.param}.md").read_text("utf-8")
    port = free_port()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "app.py").write_text(code.replace("port=8000", f"port={port}"))
    start = re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL)[1].replace("8000", str(port)).split()
    program = [sys.executable, *start[1:]] if start[0] == "python" else [str(SCRIPTS / start[0]), *start[1:]]
    with subprocess.Popen(
        program, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: process.poll() is not None or answers(port), most_s=30)
            yield text, f"http://127.0.0.1:{port}", tmp_path
        finally:
            process.terminate()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/v1/ai/x", timeout=1).status_code > 0
    except httpx.HTTPError:
        time.sleep(0.05)
        return False


def command(folder: Path, line: str) -> str:
    program, *arguments = line.split()
    return subprocess.run(
        [str(SCRIPTS / program), *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout


def test_a_tutorial_does_what_it_says(tutorial: tuple[str, str, Path]) -> None:
    text, address, folder = tutorial
    lines = re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL)
    create, usage = lines[2], lines[4]
    (key,) = re.findall(r"flp_sk_\w+", command(folder, create))
    headers, body = {"Authorization": f"Bearer {key}"}, {"prompt": "Once upon a time", "stream": True}
    statuses = []
    for _ in range(6):
        answer = httpx.post(f"{address}/api/v1/ai/generate", headers=headers, json=body, timeout=20)
        statuses.append(answer.status_code)
        if len(statuses) == 1:
            frames = answer.text
    assert [200] * 5 + [429] == statuses
    assert 'data: {"text": "Once "}' in frames
    assert frames.endswith('"finishReason": "end_turn"}\n\ndata: [DONE]\n\n')
    assert "RATE_LIMITED" in answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert 5 == command(folder, usage).count("end_turn") or 5 == command(folder, usage).count("complete")
    assert "posted" in command(folder, "floop-gateway account show project:blog")


def test_every_error_and_every_key_of_the_configuration_is_documented() -> None:
    errors = (ROOT / "docs/reference/errors.md").read_text("utf-8")
    for code, spec in CATALOGUE.items():
        assert f"| `{code.value}` | {spec.status} | {spec.meaning} |" in errors
    configuration = (ROOT / "docs/configuration.md").read_text("utf-8")
    for name in Settings.model_fields:
        assert f"`{name}`" in configuration or f"[{name}" in configuration, name
