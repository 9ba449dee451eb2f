"""The TypeScript client, compiled strictly and run under node against the real gateway. Skipped without node and npm."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_python_client import FRAMES, GOOD, KEY, Scripted, error, keys_of, reply, site

NPM, NODE = shutil.which("npm"), shutil.which("node")
SOURCE = Path(__file__).parents[2] / "clients" / "typescript"

pytestmark = pytest.mark.skipif(NPM is None or NODE is None, reason="node and npm are not installed")

SCRIPT = """
import { FloopAI, FloopError } from "%(client)s";
const [url, apiKey, task] = process.argv.slice(2);
const ai = new FloopAI({ apiKey, baseUrl: url, maxRetries: 1 });
const told = ({ name, code, status, requestId }) => ({ name, code, status, requestId });
const tasks = {
  async all() {
    const answer = await ai.chat({ messages: [{ role: "user", content: "one two three" }], model: "auto" });
    const stream = ai.stream({ prompt: "one two three" });
    let streamed = "";
    for await (const text of stream) streamed += text;
    return { answer, streamed, usage: stream.usage, finishReason: stream.finishReason, requestId: stream.requestId };
  },
  async errors() {
    const calls = [ai.chat({ messages: [] }), ai.generate({ prompt: "x", model: "huge" }), ai.embed({ input: "x" })];
    return Promise.all(calls.map((call) => call.then(() => null, told)));
  },
  async one() { return ai.generate({ prompt: "x" }).then((answer) => answer.content, told); },
  async cut() {
    let streamed = "";
    try {
      for await (const text of ai.stream({ prompt: "x" })) streamed += text;
    } catch (error) {
      return { ...told(error), streamed };
    }
    return { code: null, streamed };
  },
  async left() {
    for await (const text of ai.stream({ prompt: "one two three four five" })) return text;
  },
};
console.log(JSON.stringify(await tasks[task]()));
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the client, and return a script that runs one task with it."""
    assert NPM is not None
    folder = tmp_path_factory.mktemp("typescript")
    for name in ("package.json", "tsconfig.json", "src"):
        path = SOURCE / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / name)
    subprocess.run([NPM, "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=300)
    subprocess.run([NPM, "run", "build", "--silent"], cwd=folder, check=True, timeout=300)
    script = folder / "task.mjs"
    script.write_text(SCRIPT % {"client": folder / "dist" / "index.js"})
    return script


def run(script: Path, url: str, task: str, key: str = KEY) -> Any:
    assert NODE is not None
    done = subprocess.run([NODE, script, url, key, task], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert key not in done.stdout
    return json.loads(done.stdout)


def test_answers_streams_and_errors_of_the_real_gateway(script: Path) -> None:
    with site() as (url, key):
        found = run(script, url, "all", key)
        assert found["answer"]["content"] == found["streamed"]
        assert found["answer"]["usage"]["total_tokens"] == found["usage"]["total_tokens"]
        assert (found["finishReason"], found["answer"]["model"]) == ("end_turn", "auto")
        assert found["requestId"].startswith("req_")
        errors = run(script, url, "errors", key)
        assert [(one["name"], one["code"], one["status"]) for one in errors] == [
            ("FloopError", "VALIDATION_ERROR", 400), ("FloopError", "INVALID_MODEL", 400),
            ("FloopError", "NOT_IMPLEMENTED", 501),
        ]  # fmt: skip
        assert run(script, url, "one")["code"] == "UNAUTHORIZED"
        assert run(script, url, "left", key)


def test_what_may_help_is_tried_again_once_with_the_same_key(script: Path) -> None:
    with Scripted(reply(503, error("SERVICE_UNAVAILABLE"), "Retry-After: 0"), GOOD) as server:
        assert run(script, server.url, "one") == "hi"
    assert (len(server.asked), len(keys_of(server))) == (2, 1)
    with Scripted(reply(502, error("PROVIDER_ERROR"), "x-should-retry: false"), GOOD) as server:
        assert run(script, server.url, "one")["code"] == "PROVIDER_ERROR"
    assert len(server.asked) == 1


def test_a_server_that_is_down_and_a_stream_that_is_cut(script: Path) -> None:
    assert run(script, "http://127.0.0.1:9", "one")["code"] == "CONNECTION_FAILED"
    head = reply(200, FRAMES).replace(b"Content-Length", b"X-Length").removesuffix(FRAMES)
    cuts = [0, 1, 16, 21, 22, 60, len(FRAMES) // 2, len(FRAMES) - 3, len(FRAMES)]
    with Scripted(*(head + FRAMES[:cut] for cut in cuts)) as server:
        for cut in cuts:
            found = run(script, server.url, "cut")
            assert found["code"] == (None if cut == len(FRAMES) else "STREAM_CUT")
            assert "héllo".startswith(found["streamed"])
