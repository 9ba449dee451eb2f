"""Every host that people run, each a process of its own, over real sockets, one SQLite file and a scripted upstream."""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import anyio
import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from floop_gateway_core import Gateway, Settings, SQLiteStore
from floop_gateway_core.testing import Reply, ScriptedUpstream
from floop_gateway_core.types import Microcredits, UsageRecord
from tests.serving import until

CONFIG = """
store = "sqlite:///{store}"
body_s = 1.0

[plans.default]
requests_per_minute = 100_000
daily_tokens = 1_000_000_000
concurrency = 10_000
output_tokens = 10_000_000

[deployments.echo]
provider = "echo"
microcredits_per_token = 1250

[deployments.slow]
provider = "echo"
microcredits_per_token = 1250
words_per_second = 50

[deployments.scripted]
provider = "openai"
model = "scripted"
base_url = "{base_url}"
microcredits_per_token = 1

[routes]
fast = ["echo"]
smart = ["echo"]
reason = ["echo"]
"""

FLASK = """
import os
from flask import Flask
from floop_gateway_core import Gateway
from floop_gateway_core.hosting.bridge import Bridge
from floop_gateway_flask import FloopGateway

gateway = Gateway.from_config(os.environ["GATEWAY_CONFIG"])
Bridge(gateway).call(gateway.start)  # a portal that lives before a preloading server forks
app = Flask(__name__)
FloopGateway(app, gateway)

@app.get("/hello")
def hello():
    return "the host's own"
"""

STARLETTE = """
import os
from contextlib import asynccontextmanager
from floop_gateway_asgi import FloopGateway
from floop_gateway_core import Gateway
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

gateway = Gateway.from_config(os.environ["GATEWAY_CONFIG"])

async def hello(request):
    return PlainTextResponse("the host's own")

@asynccontextmanager
async def lifespan(app):
    async with gateway:
        yield

app = Starlette(lifespan=lifespan, routes=[Route("/hello", hello), Mount("/api/v1/ai", FloopGateway(gateway))])
"""

AIOHTTP = """
import os, sys
from aiohttp import web
from floop_gateway_aiohttp import setup
from floop_gateway_core import Gateway

async def hello(request):
    return web.Response(text="the host's own")

app = web.Application()
app.router.add_get("/hello", hello)
setup(app, Gateway.from_config(os.environ["GATEWAY_CONFIG"]))
if __name__ == "__main__":
    web.run_app(
        app, host="127.0.0.1", port=int(sys.argv[1]), handler_cancellation=len(sys.argv) > 2, print=None, access_log=None
    )
"""

HOSTS = {"flask_host.py": FLASK, "starlette_host.py": STARLETTE, "aiohttp_host.py": AIOHTTP}

_UVICORN = "uvicorn --log-level warning --port {port} --timeout-graceful-shutdown 10 --http"
_GRANIAN = "granian --interface asgi --host 127.0.0.1 --port {port} --no-log"
SERVERS: dict[str, str] = {
    "uvicorn-h11": f"{_UVICORN} h11 starlette_host:app",
    "uvicorn-httptools": f"{_UVICORN} httptools starlette_host:app",
    "hypercorn-asyncio": "hypercorn -k asyncio -b {at} --graceful-timeout 10 starlette_host:app",
    "hypercorn-trio": "hypercorn -k trio -b {at} --graceful-timeout 10 starlette_host:app",
    "granian": f"{_GRANIAN} starlette_host:app",
    "aiohttp-looking": "aiohttp_host {port}",
    "aiohttp-cancelled": "aiohttp_host {port} cancelled",
    "gthread-preload": "gunicorn --preload -k gthread --threads 8 -w 2 -b {at} flask_host:app",
    "sync": "gunicorn -k sync -w 6 -b {at} flask_host:app",
    "waitress": "waitress --threads 8 --listen {at} flask_host:app",
    "development": "flask --app flask_host run --port {port}",
}
STARLETTE_HOSTS = frozenset(name for name, words in SERVERS.items() if "starlette_host" in words)
WSGI = frozenset({"gthread-preload", "sync", "waitress", "development"})


@dataclass
class World:
    """One folder with the hosts, their configuration and store, and an upstream in a thread of the test's process."""

    folder: Path
    upstream: ScriptedUpstream
    portal: BlockingPortal
    gateway: Gateway
    numbers: "count[int]" = field(default_factory=count)
    processes: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def project(self) -> tuple[str, str]:
        """Make a project with credits; give its name and key."""
        name = f"p{next(self.numbers)}"
        new = anyio.run(partial(self.gateway.admin.create_project, name, credits=Microcredits(10**12)))
        return name, new.key

    def records(self, project: str) -> list[UsageRecord]:
        async def read() -> list[UsageRecord]:
            return [record async for record in self.gateway.usage(project)]

        return anyio.run(read)

    def held(self, project: str) -> int:
        account = anyio.run(self.gateway.store.account, f"project:{project}")
        assert account is not None
        return account.held

    def heard(self, project: str) -> bool:
        """Whether a request of the project has been authenticated."""
        query = "SELECT count(*) FROM windows JOIN projects ON projects.id = windows.key WHERE name = ?"
        store = SQLiteStore(self.folder / "gateway.db")
        found: int = anyio.run(store._read, lambda connection: connection.execute(query, (project,)).fetchone()[0])
        anyio.run(store.aclose)
        return found > 0

    def script(self, *answers: Reply) -> None:
        self.portal.call(partial(self.upstream.script, *answers))

    def memory(self, server: str) -> int:
        """Give the resident bytes of a server and its workers."""
        parents = {pid: parent for pid, parent, _ in _processes()}
        ours = {self.processes[server].pid}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return sum(resident for pid, _, resident in _processes() if pid in ours)

    @contextmanager
    def serving(self, server: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        words = SERVERS[server].format(at=f"127.0.0.1:{port}", port=port).split()
        environment = {
            # gunicorn's workers do not stop under coverage's handler of SIGTERM
            **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path]),
            "GATEWAY_CONFIG": str(self.folder / "gateway.toml"),
        }
        log = self.folder / f"{server}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=self.folder, env=environment, stdout=output, stderr=output
            )
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: process.poll() is not None or _answers(address), most_s=30)
            assert process.poll() is None, log.read_text()
            self.processes[server] = process
            yield address, process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()


@contextmanager
def world_in(folder: Path) -> Iterator[World]:
    with scripted() as (upstream, portal):
        config = CONFIG.format(store=folder / "gateway.db", base_url=upstream.base_url("openai"))
        (folder / "gateway.toml").write_text(config)
        for name, source in HOSTS.items():
            (folder / name).write_text(source)
        gateway = Gateway(Settings.load(folder / "gateway.toml"))
        yield World(folder, upstream, portal, gateway)
        anyio.run(gateway.aclose)


@contextmanager
def scripted() -> Iterator[tuple[ScriptedUpstream, BlockingPortal]]:
    """Run a scripted upstream in a thread."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(ScriptedUpstream(default=Reply(endless=True, delay_s=0.005))) as upstream,
    ):
        yield upstream, portal


def _processes() -> Iterator[tuple[int, int, int]]:
    """Give every process's id, its parent's, and its resident bytes."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            yield int(stat.parent.name), int(fields[1]), int(fields[21]) * resource.getpagesize()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/hello").text == "the host's own"
    except httpx.TransportError:
        return False
