"""Claude Code's own program in front of every vendor. `make test-claude-code` installs it (some 260 MB) and runs this."""

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from floop_gateway_core import Microcredits, Usage
from floop_gateway_core.testing import Answer, Called, Reply, Status
from tests.dialects.test_tools import SIGNATURES, VENDORS, Site, png, site

CLAUDE = os.environ.get("FLOOP_GATEWAY_CLAUDE_CODE", "")
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not CLAUDE, reason="make test-claude-code installs Claude Code")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Agent:
    """Claude Code in a folder of its own, before a gateway."""

    one: Site
    folder: Path

    async def ask(self, prompt: str, **more: str) -> Any:
        """Return what it prints for one prompt."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ANTHROPIC_BASE_URL": self.one.url,
            "ANTHROPIC_AUTH_TOKEN": self.one.key,
            "ANTHROPIC_MODEL": "smart",
            "ANTHROPIC_SMALL_FAST_MODEL": "fast",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
            "IS_SANDBOX": "1",
            **more,
        }
        command = [shutil.which(CLAUDE) or CLAUDE, "-p", prompt, "--output-format", "json", "--allowedTools", "Read"]
        with anyio.fail_after(120):
            done = await anyio.run_process(
                command, env=environment, cwd=self.folder, check=False, stdin=subprocess.DEVNULL
            )
        return json.loads(done.stdout)


@asynccontextmanager
async def claude(vendor: Any, folder: Path, *answers: Answer, **deployment: Any) -> AsyncIterator[Agent]:
    async with site(vendor, *answers, **deployment) as one:
        yield Agent(one, folder)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", ["secret.txt", "picture.png"])
async def test_it_reads_a_file_with_its_tool(vendor: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("the secret is quokka\n")
    if name.endswith("png"):
        import base64

        path.write_bytes(base64.b64decode(png()))
    called = Called("Read", (json.dumps({"file_path": str(path)}),), "toolu_1", SIGNATURES[vendor])
    reads = Reply(["Let me look."], thinking=("Hm.",) if vendor == "anthropic" else (), calls=(called,))
    thinks = {"thinking": "low"} if vendor == "anthropic" else {}
    done = Reply(["It is quokka."], usage=Usage(20_000, 10))
    async with claude(vendor, tmp_path, reads, done, **thinks) as agent:
        said = await agent.ask(f"What is in {name}?")
        assert (False, "It is quokka.") == (said["is_error"], said["result"])
        sent = agent.one.upstream.requests[-1].body
        assert (b"quokka" if name.endswith("txt") else b"iVBOR") in sent
        records = [record async for record in agent.one.gateway.store.usage()]
        assert {("complete", 200, "anthropic")} == {(one.ending, one.status, one.dialect) for one in records}


async def test_it_tells_that_the_provider_fails(tmp_path: Path) -> None:
    async with claude("openai", tmp_path, *[Status(503)] * 20) as agent:
        said = await agent.ask("Hi")
        assert said["is_error"]
        assert "502" in said["result"]


async def test_it_tells_that_credits_are_used_up(tmp_path: Path) -> None:
    async with claude("openai", tmp_path) as agent:
        gateway = agent.one.gateway
        project = await gateway.admin.project("p")
        account = await gateway.admin.account(project.owner)
        await gateway.admin.debit(project.owner, Microcredits(account.posted - 1))
        said = await agent.ask("Hi")
        assert said["is_error"]
        assert "402" in said["result"] or "credits" in said["result"].lower()
