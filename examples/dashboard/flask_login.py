"""The dashboard behind a Flask app's own login.

python examples/dashboard/flask_login.py [port]      # then open /login as `ann` (all projects) or `bob` (his own)
"""

import sys
from typing import Any

from flask import Flask, redirect, request, session
from flask.typing import ResponseReturnValue
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from floop_gateway_core import Gateway, Operator, Settings
from floop_gateway_core.hosting.bridge import Bridge
from floop_gateway_flask import FloopDashboard, FloopGateway

PASSWORDS = {"ann": "secret", "bob": "secret"}  # in production: your own users
FORM = """<!doctype html><title>Log in</title><form method="post"><label>Name <input name="name"></label>
<label>Password <input name="password" type="password"></label> <button>Log in</button></form>"""

gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")
app = Flask(__name__)
app.secret_key = "change me"


def authorize(environ: Any) -> Operator | None:
    """Return who has logged in: `ann` administers everything, others their own project."""
    with app.request_context(environ):
        user = session.get("user")
        if user is None:
            return None
        return Operator(user, projects=None if user == "ann" else [user], origin=request.remote_addr)


@app.get("/login")
def form() -> str:
    return FORM


@app.post("/login")
def login() -> ResponseReturnValue:
    name = request.form["name"]
    if PASSWORDS.get(name) == request.form["password"]:
        session["user"] = name
    return redirect("/settings/ai/", 303)


FloopGateway(app, gateway, prefix="/api/v1/ai")
dashboard = FloopDashboard(gateway, authorize, login_url="/login")
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/settings/ai": dashboard})  # type: ignore[method-assign]

if __name__ == "__main__":
    for owner in ("ann", "bob"):
        print(f"key of {owner}: {Bridge(gateway).admin.create_project(owner, credits='100').key}", flush=True)
    app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
