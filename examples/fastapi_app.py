"""The gateway in a FastAPI app, which also calls it from a route of its own; the project is in memory.

python examples/fastapi_app.py [port]
curl -N -H "Authorization: Bearer $KEY" -d '{"prompt": "Say something"}' localhost:8000/api/v1/ai/generate
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, responses

from floop_gateway_asgi import FloopGateway
from floop_gateway_core import Gateway, Microcredits, Settings

gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with gateway:
        project = await gateway.admin.create_project("demo", credits=Microcredits(10**9))
        app.state.key = project.key
        print(f"key: {project.key}", flush=True)
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/api/v1/ai", FloopGateway(gateway))


@app.get("/", response_class=responses.PlainTextResponse)
async def page() -> str:
    return (await gateway.generate(app.state.key, "the host's own page\n", model="fast")).content


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
