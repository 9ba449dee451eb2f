"""The tutorials: each is followed step by step, as a reader would, and prints what its page says.

`app.py` grows by each Python block; a block titled `server` is started in place of the one before; all other `sh` blocks
run in bash. A `text` block is what the block before it prints, where `…` stands for what differs between runs.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.serving import until

PAGES = Path(__file__).parent.parent / "docs" / "tutorials"
FENCE = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("*.md")))
def test_it_works_as_it_says(page: str, tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for kind, title, text in FENCE.findall((PAGES / f"{page}.md").read_text("utf-8")):
            reader.do(kind, title, text)
        assert (5, 2) == (reader.compared, reader.servers)


class Reader:
    """Follows a page in a folder of its own, on a free port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        binaries = _commands(folder)
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("FLOOP_", "OPENAI_", "FLASK_"))
            },
            "PATH": f"{binaries}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._printed = ""
        self.compared = self.servers = 0

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def do(self, kind: str, title: str, text: str) -> None:
        text = text.replace("8000", str(self._port))
        match kind, title:
            case "python", str() if title:
                with (self._folder / title).open("a", encoding="utf-8") as file:
                    file.write(text)
            case "sh", "server":
                self._start(text)
                self.servers += 1
            case "sh", _ if text.startswith(("pip install", "export KEY=")):
                pass  # what is installed, and what the block before has printed
            case "sh", _:
                self._printed = self._run(text)
                if key := re.search(r"flp_sk_\w{30,}", self._printed):
                    self._environment["KEY"] = key.group()
            case "text", _:
                assert _matches(text, self._printed), f"{self._printed!r} is not {text!r}"
                self.compared += 1
            case _:
                raise AssertionError(f"a {kind} block that nobody can follow:\n{text}")

    def _run(self, text: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start(self, text: str) -> None:
        self._stop()
        with (self._folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", text],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: self._listens() or self._server is None or self._server.poll() is not None, most_s=30)
        assert self._server.poll() is None, (self._folder / "server.log").read_text()

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    def _stop(self) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGINT)
            try:
                self._server.wait(20)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(self._server.pid, signal.SIGKILL)
                self._server = None


def _commands(folder: Path) -> Path:
    """Return a folder with the command of this checkout, and `python`."""
    binaries = folder / "bin"
    binaries.mkdir()
    for name, arguments in (("floop-gateway", " -m floop_gateway_core"), ("python", "")):
        path = binaries / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        path.chmod(0o755)
    return binaries


def _matches(expected: str, printed: str) -> bool:
    expected, printed = (" ".join(text.split()) for text in (expected, printed))
    pattern = ".+?".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, printed) is not None
