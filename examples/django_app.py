"""The gateway in front of a Django project: below its prefix no middleware of Django's runs.

    python examples/django_app.py [port]

It starts with a project in memory, and prints its key. In production, put the last lines of `make_app` in `wsgi.py`.
Try it:

    curl -H "Authorization: Bearer $KEY" -d '{"prompt": "Say something"}' localhost:8000/api/v1/ai/generate
"""

import sys
from functools import partial
from wsgiref.types import WSGIApplication

from django.conf import settings
from django.core.servers.basehttp import WSGIServer, run
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from floop_gateway_core import Gateway, Microcredits, Settings
from floop_gateway_core.hosting.bridge import Bridge
from floop_gateway_flask import FloopGatewayMiddleware

urlpatterns = [path("", lambda request: HttpResponse("the host's own page\n"))]


def make_app() -> WSGIApplication:
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"], SECRET_KEY="of the example only"
    )
    gateway = Gateway(Settings(store="memory://"))  # in production: Gateway.from_config("gateway.toml")
    project = Bridge(gateway).call(partial(gateway.admin.create_project, "demo", credits=Microcredits(10**9)))
    print(f"key: {project.key}", flush=True)
    return FloopGatewayMiddleware(get_wsgi_application(), gateway, prefix="/api/v1/ai")


if __name__ == "__main__":
    run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000, make_app(), threading=True, server_cls=WSGIServer)
