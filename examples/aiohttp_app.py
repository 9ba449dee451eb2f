"""The gateway inside an aiohttp app.

    python examples/aiohttp_app.py [port]

It starts with a project in memory, and prints its key. Ask it:

    curl -H "Authorization: Bearer $KEY" -d '{"prompt": "Say something"}' localhost:8000/api/v1/ai/generate
"""

import sys

from aiohttp import web

from floop_gateway_aiohttp import setup
from floop_gateway_core import Gateway, Microcredits, Settings


async def page(request: web.Request) -> web.Response:
    return web.Response(text="the host's own page\n")


async def make_app() -> web.Application:
    gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")
    project = await gateway.admin.create_project("demo", credits=Microcredits(10**9))
    print(f"key: {project.key}", flush=True)

    app = web.Application()
    app.router.add_get("/", page)
    setup(app, gateway, prefix="/api/v1/ai")
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000, print=None)
