"""The dashboard behind an aiohttp app's own login.

python examples/dashboard/aiohttp_login.py [port]      # then open /login as `ann` (all projects) or `bob` (his own)
"""

import secrets
import sys

from aiohttp import web

from floop_gateway_aiohttp import FloopDashboard, setup
from floop_gateway_core import Gateway, Operator, Settings

PASSWORDS = {"ann": "secret", "bob": "secret"}  # in production: your own users
FORM = """<!doctype html><title>Log in</title><form method="post"><label>Name <input name="name"></label>
<label>Password <input name="password" type="password"></label> <button>Log in</button></form>"""

gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")
sessions: dict[str, str] = {}


def authorize(request: web.Request) -> Operator | None:
    """Return who has logged in: `ann` administers everything, others their own project."""
    user = sessions.get(request.cookies.get("session", ""))
    if user is None:
        return None
    return Operator(user, projects=None if user == "ann" else [user], origin=request.remote)


async def form(_: web.Request) -> web.Response:
    return web.Response(text=FORM, content_type="text/html")


async def login(request: web.Request) -> web.Response:
    sent = await request.post()
    answer = web.Response(status=303, headers={"Location": "/settings/ai/"})
    if PASSWORDS.get(name := str(sent["name"])) == sent["password"]:
        token = secrets.token_urlsafe()
        sessions[token] = name
        answer.set_cookie("session", token, httponly=True, samesite="Lax")
    return answer


async def create_projects(_: web.Application) -> None:
    for owner in ("ann", "bob"):
        new = await gateway.admin.create_project(owner, credits="100")
        print(f"key of {owner}: {new.key}", flush=True)


app = web.Application()
app.add_routes([web.get("/login", form), web.post("/login", login)])
app.on_startup.append(create_projects)
setup(app, gateway, prefix="/api/v1/ai")
app.add_subapp("/settings/ai", FloopDashboard(gateway, authorize, login_url="/login"))

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000, print=None)
