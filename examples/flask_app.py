"""The gateway inside a Flask app.

    python examples/flask_app.py [port]                       # Flask's development server
    gunicorn --threads 100 "examples.flask_app:make_app()"    # one worker: the memory store is this process's own

It starts with a project in memory, and prints its key. Ask it:

    curl -H "Authorization: Bearer $KEY" -d '{"prompt": "Say something"}' localhost:8000/api/v1/ai/generate
"""

import sys
from functools import partial

from flask import Flask

from floop_gateway_core import Gateway, Microcredits, Settings
from floop_gateway_core.hosting.bridge import Bridge
from floop_gateway_flask import FloopGateway


def make_app() -> Flask:
    gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")
    project = Bridge(gateway).call(partial(gateway.admin.create_project, "demo", credits=Microcredits(10**9)))
    print(f"key: {project.key}", flush=True)

    app = Flask(__name__)
    FloopGateway(app, gateway, prefix="/api/v1/ai")
    app.add_url_rule("/", view_func=lambda: "the host's own page\n")
    return app


if __name__ == "__main__":
    make_app().run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
