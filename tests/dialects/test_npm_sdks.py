"""The SDKs for JavaScript, Vercel's among them: chat, stream, a tool loop, structured output, errors, a cut stream."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from floop_gateway_core import Usage
from floop_gateway_core.testing import Break, Called, Reply
from tests.dialects.test_tools import SIGNATURES, VENDORS, site

NPM, NODE = shutil.which("npm"), shutil.which("node")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(NPM is None or NODE is None, reason="node and npm are not installed"),
]
PACKAGES = ["openai", "@anthropic-ai/sdk", "ai", "@ai-sdk/openai-compatible", "zod"]
SCRIPT = Path(__file__).with_name("npm_sdks.mjs")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the script in a folder that has the SDKs."""
    folder = tmp_path_factory.mktemp("npm")
    shutil.copy(SCRIPT, folder)
    install = [str(NPM), "install", "--silent", "--no-audit", "--no-fund", *PACKAGES]
    if subprocess.run(install, cwd=folder, capture_output=True, timeout=300).returncode:
        pytest.skip("npm cannot fetch the SDKs")
    return folder / SCRIPT.name


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("sdk", ["openai", "anthropic", "vercel"])
async def test_a_javascript_sdk_reads_every_vendor(script: Path, sdk: str, vendor: Any) -> None:
    hello = Reply(["Hello", ", ", "world."], usage=Usage(9, 4))
    called = Called("weather", ('{"city"', ': "Köln"}'), "call_1", SIGNATURES[vendor])
    asks = Reply([], thinking=("Hmm.",) if vendor == "anthropic" else (), calls=(called,))
    typed = Reply(['{"city": ', '"Köln"}'])
    cut = Reply(["one ", "two ", "three"], broken=Break("reset", at="text"))
    async with site(vendor, hello, hello, asks, Reply(["18 degrees."]), typed, cut) as one:
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                [str(NODE), script.name, sdk, one.url, one.key], cwd=script.parent, capture_output=True, timeout=60
            )
        )
    assert 0 == done.returncode, done.stderr.decode()
    found = json.loads(done.stdout)
    assert ["Hello, world.", {"openai": "stop", "anthropic": "end_turn", "vercel": "stop"}[sdk], 9] == found["chat"]
    assert "Hello, world." == found["stream"]
    assert (["weather", {"city": "Köln"}], "18 degrees.") == (found["call"], found["loop"])
    assert {"city": "Köln"} == found["typed"]
    assert (401, 400) == (found["wrongKey"]["status"], found["wrongField"]["status"])
    if sdk != "vercel":
        assert ("AuthenticationError", "BadRequestError") == (found["wrongKey"]["name"], found["wrongField"]["name"])
    assert found["cut"] is not None, "a cut stream is an error"
