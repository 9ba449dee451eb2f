"""`floop-gateway demo`: a host with the gateway mounted, a project with credits and its key, and commands to try.

Without a configuration it answers with `echo`, or with OpenAI if `OPENAI_API_KEY` is set. `--local-model` starts a small
model on this machine and serves it through the same gateway.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anyio

from floop_gateway_core.cli import local_model
from floop_gateway_core.cli.demo_login import DemoLogin
from floop_gateway_core.cli.serve import bound, host_app, run_server
from floop_gateway_core.config import Settings
from floop_gateway_core.config.store_urls import shown, store_url
from floop_gateway_core.errors import AdminError
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.money import parse_credits

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

__all__ = ["run"]

PROJECT = "demo"
MOUNT = "/api/v1/ai"
DASHBOARD = "/settings/ai"
CREDITS = "5000"

OPENAI: dict[str, Any] = {
    "deployments": {
        "mini": {
            "provider": "openai",
            "model": "gpt-5-mini",
            "api_key_env": "OPENAI_API_KEY",
            "microcredits_per_token": 1250,
            "send_temperature": False,
        }
    },
    "routes": {"fast": ["mini"], "smart": ["mini"], "reason": ["mini"]},
}


def run(args: argparse.Namespace) -> int:
    """`demo`; return the exit code."""
    with ExitStack() as stack:
        listener = stack.enter_context(bound("127.0.0.1", args.port))
        gateway = _gateway(args, stack)
        login = DemoLogin("/login", DASHBOARD + "/")
        app = host_app(gateway, MOUNT, _routes(gateway, login))
        key = anyio.run(_key, gateway)
        print(_welcome(gateway.settings, key, args.port, login.link), flush=True)
        return run_server(app, listener, gateway)


def _routes(gateway: Gateway, login: DemoLogin) -> "Sequence[BaseRoute]":
    """Return the dashboard and its login."""
    try:
        from starlette.routing import Mount, Route

        from floop_gateway_asgi import FloopDashboard
    except ImportError as error:
        raise AdminError(f"{error.name} is not installed; pip install 'floop-gateway[serve]'") from error
    pages = FloopDashboard(gateway, login.authorize, gateway_path=MOUNT)
    return [Route("/login", login.visit), Mount(DASHBOARD, pages)]


def _gateway(args: argparse.Namespace, stack: ExitStack) -> Gateway:
    settings, source = Settings.find(args.config)
    if args.local_model:
        base_url = stack.enter_context(local_model.served())
        local = local_model.configuration(base_url)
        return Gateway(Settings.read({"store": store_url(settings, os.environ), **local}, source="--local-model"))
    if source == "built-in defaults" and os.environ.get("OPENAI_API_KEY"):
        return Gateway(Settings.read(OPENAI, source="the demo's configuration"))
    return Gateway.from_config(args.config)


async def _key(gateway: Gateway) -> str:
    """Return a new key of the demo's project, which is created with credits if there is none."""
    try:
        if await gateway.store.project(PROJECT) is None:
            return (await gateway.admin.create_project(PROJECT, credits=parse_credits(CREDITS))).key
        return await gateway.rotate_key(PROJECT)
    finally:
        await gateway.aclose()  # the server runs another event loop


def _welcome(settings: Settings, key: str, port: int, link: str) -> str:
    host = f"http://127.0.0.1:{port}"
    url, auth = f"{host}{MOUNT}", '-H "Authorization: Bearer $KEY"'
    served_by = ", ".join(f"{name} ({one.provider})" for name, one in settings.deployments.items())
    return f"""
floop-gateway is mounted at {url}, and answers with {served_by}.
Project {PROJECT!r} in {shown(store_url(settings, os.environ))}; its key is new at each start. Paste:

  KEY={key}

  # a chat
  curl -s {url}/chat {auth} -d '{{"messages": [{{"role": "user", "content": "Say hello to the world"}}]}}'

  # one prompt
  curl -s {url}/generate {auth} -d '{{"prompt": "Once upon a time there was a gateway", "model": "fast"}}'

  # a stream
  curl -sN {url}/generate {auth} -d '{{"prompt": "Once upon a time there was a gateway", "stream": true}}'

  # an error: no such model
  curl -si {url}/chat {auth} -d '{{"model": "huge", "messages": [{{"role": "user", "content": "Hi"}}]}}'

  {_command()} usage demo      # what these have cost

The dashboard; this link logs one browser in, once:

  {host}{link}
"""


def _command() -> str:
    """Return what starts this command in the user's shell, which may not have the virtual environment on its path."""
    if shutil.which("floop-gateway"):
        return "floop-gateway"
    return "python -m floop_gateway_core" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
