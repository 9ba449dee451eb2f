"""The dashboard behind a FastAPI app's own login (its sessions need itsdangerous).

python examples/dashboard/fastapi_login.py [port]      # then open /login as `ann` (all projects) or `bob` (his own)
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from floop_gateway_asgi import FloopDashboard, FloopGateway
from floop_gateway_core import Gateway, Operator, Settings

PASSWORDS = {"ann": "secret", "bob": "secret"}  # in production: your own users
FORM = """<!doctype html><title>Log in</title><form method="post"><label>Name <input name="name"></label>
<label>Password <input name="password" type="password"></label> <button>Log in</button></form>"""

gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")


def authorize(scope: Any) -> Operator | None:
    """Return who has logged in: `ann` administers everything, others their own project."""
    user = scope["session"].get("user")
    if user is None:
        return None
    return Operator(user, projects=None if user == "ann" else [user], origin=scope["client"][0])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with gateway:
        for name in ("ann", "bob"):
            new = await gateway.admin.create_project(name, credits="100")
            print(f"key of {name}: {new.key}", flush=True)
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key="change me", same_site="lax")
app.mount("/api/v1/ai", FloopGateway(gateway))
app.mount("/settings/ai", FloopDashboard(gateway, authorize, login_url="/login"))


@app.get("/login", response_class=HTMLResponse)
def form() -> str:
    return FORM


@app.post("/login")
async def login(request: Request) -> RedirectResponse:
    sent = dict(parse_qsl((await request.body()).decode()))
    if sent.get("name") in PASSWORDS and PASSWORDS[sent["name"]] == sent.get("password"):
        request.session["user"] = sent["name"]
    return RedirectResponse("/settings/ai/", 303)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
