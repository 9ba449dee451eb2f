"""Where a plain answer's time goes: the CPU time of each stage of a request, in process, in microseconds.

Run `python -m benchmarks.stages [STORE] [REQUESTS]`. A mock upstream answers with 25 events. Stages contain those below
them; the clock itself adds about a microsecond to each.
"""

import asyncio
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from floop_gateway_core import Gateway, GatewayRequest, Settings
from floop_gateway_core.bench.settings import turned_to
from floop_gateway_core.engine.attempt_runner import AttemptRunner
from floop_gateway_core.engine.closing import Closing
from floop_gateway_core.engine.session import CallSession
from floop_gateway_core.http.exchange import Exchange
from floop_gateway_core.providers.http.driver import HttpProvider
from floop_gateway_core.providers.http.http11 import Http11Sender
from floop_gateway_core.providers.reading import StreamDecoder

STAGES: tuple[tuple[type, str, str], ...] = (
    (CallSession, "open", "key and rate"),
    (Exchange, "_parsed", "body"),
    (CallSession, "admit", "alias, estimate and holds"),
    (AttemptRunner, "start", "request to the provider, up to the first events"),
    (HttpProvider, "request", "  its bytes"),
    (Http11Sender, "send", "  sending, up to the head"),
    (StreamDecoder, "feed", "  reading 25 events"),
    (Closing, "close", "record and settlement"),
)
WARM_UP = 200


class Clock:
    """Adds up the CPU time of wrapped methods."""

    def __init__(self) -> None:
        self.total: dict[str, float] = {}

    def wrap(self, owner: type, name: str, label: str) -> None:
        """Replace a method by one that is timed."""
        method: Callable[..., Any] = getattr(owner, name)
        self.total[label] = 0.0

        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.total[label] += time.thread_time() - began

        @functools.wraps(method)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return await method(*args, **kwargs)
            finally:
                self.total[label] += time.thread_time() - began

        setattr(owner, name, awaited if asyncio.iscoroutinefunction(method) else timed)


async def ask(gateway: Gateway, key: str, times: int) -> None:
    """Send the same request in a row, and read each answer."""
    prompt = "Explain to me how a hash table works and where it is used, in a few words, please. (frames-25)"
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": 100_000}).encode()
    headers = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
    for _ in range(times):
        async with gateway.open(GatewayRequest("POST", "/chat", headers, body)) as reply:
            assert reply.status == 200, reply


async def main(store: str, requests: int) -> None:
    """Print the stages of a request."""
    upstream = subprocess.Popen(  # noqa: ASYNC220 - before the loop has anything to do
        [sys.executable, "-m", "floop_gateway_core.bench.upstream"], stdout=subprocess.PIPE
    )
    assert upstream.stdout is not None
    port = int(upstream.stdout.readline().split()[1])
    clock = Clock()
    try:
        async with Gateway(Settings.read(turned_to({}, port, store), source="benchmark")) as gateway:
            key = (await gateway.admin.create_project("p", credits="1000000000")).key
            await ask(gateway, key, WARM_UP)
            for owner, name, label in STAGES:
                clock.wrap(owner, name, label)
            began = time.thread_time()
            await ask(gateway, key, requests)
            whole = time.thread_time() - began
    finally:
        upstream.kill()
    for label, seconds in {**clock.total, "all": whole}.items():
        print(f"{label:50} {seconds / requests * 1e6:7.0f} us")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        named = sys.argv[1] if len(sys.argv) > 1 else "memory://"
        where = f"sqlite:///{Path(folder) / 'a.db'}" if named == "sqlite" else named
        asyncio.run(main(where, int(sys.argv[2]) if len(sys.argv) > 2 else 2_000))
