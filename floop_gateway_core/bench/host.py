"""The gateway under measurement, as a process of its own: `python -m floop_gateway_core.bench.host`.

It reads from its environment what to serve (`FLOOP_BENCH`, JSON) and prints the port when it listens.
"""

import os
import sys
from contextlib import suppress
from typing import Any

import anyio

from floop_gateway_core.bench.settings import PROJECT, Hosted
from floop_gateway_core.config import Settings
from floop_gateway_core.errors import ProjectExists
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.types import Microcredits

MOUNT = "/api/v1/ai"
RICH = Microcredits(10**15)


def _gateway(hosted: Hosted) -> Gateway:
    return Gateway(Settings.read(hosted.settings, source="benchmark"))


async def _add_project(gateway: Gateway, hosted: Hosted) -> None:
    """Create the project with the key that all processes were told."""
    with suppress(ProjectExists):  # another worker was first
        new = await gateway.admin.create_project(PROJECT, credits=RICH)
        await anyio.Path(hosted.key_file).write_text(new.key)


def asgi_app() -> Any:
    """Return a Starlette application with the gateway mounted, as users have it."""
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette

    from floop_gateway_asgi import FloopGateway

    hosted = Hosted.of_environment()
    gateway = _gateway(hosted)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        await gateway.start()
        await _add_project(gateway, hosted)
        yield
        await gateway.aclose()

    app = Starlette(lifespan=lifespan)
    app.mount(MOUNT, FloopGateway(gateway))
    return app


def flask_app() -> Any:
    """Return a Flask application with the gateway mounted."""
    from flask import Flask

    from floop_gateway_flask import FloopGateway

    hosted = Hosted.of_environment()
    gateway = _gateway(hosted)
    app = Flask("bench")
    FloopGateway(app, gateway)
    from floop_gateway_core.hosting.bridge import run

    run(_add_project, gateway, hosted)
    return app


async def _aiohttp(hosted: Hosted) -> None:
    from aiohttp import web

    from floop_gateway_aiohttp import setup

    gateway = _gateway(hosted)
    app = web.Application()
    setup(app, gateway, MOUNT)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await _add_project(gateway, hosted)
    await web.TCPSite(runner, "127.0.0.1", hosted.port, backlog=4096).start()
    await anyio.sleep_forever()


def main() -> None:
    """Serve until the process is ended."""
    hosted = Hosted.of_environment()
    match hosted.host:
        case "asgi":
            import uvicorn

            uvicorn.run(
                f"{__spec__.name if __spec__ else __name__}:asgi_app", factory=True, port=hosted.port, access_log=False,
                log_level="warning", http=hosted.http, loop=hosted.loop, workers=hosted.workers, backlog=4096,
            )  # fmt: skip
        case "flask":
            command = ["gunicorn", "-k", "gthread", "--threads", "16", "-w", str(hosted.workers)]
            os.execvp(
                sys.executable,
                [sys.executable, "-m", *command, "-b", f"127.0.0.1:{hosted.port}", "--log-level", "warning",
                 "floop_gateway_core.bench.host:flask_app()"],
            )  # fmt: skip
        case "aiohttp":
            if hosted.loop == "uvloop":
                from uvloop import run
            else:
                from asyncio import run  # type: ignore[assignment]
            run(_aiohttp(hosted))


if __name__ == "__main__":
    main()
