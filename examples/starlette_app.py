"""The gateway in a Starlette app; it starts with a project in memory, and prints its key.

python examples/starlette_app.py [port]
curl -N -H "Authorization: Bearer $KEY" -d '{"prompt": "Say something"}' localhost:8000/api/v1/ai/generate
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from floop_gateway_asgi import FloopGateway
from floop_gateway_core import Gateway, Microcredits, Settings

gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the host's own page\n")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with gateway:
        project = await gateway.admin.create_project("demo", credits=Microcredits(10**9))
        print(f"key: {project.key}", flush=True)
        yield


app = Starlette(lifespan=lifespan, routes=[Route("/", page), Mount("/api/v1/ai", FloopGateway(gateway))])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
