"""The gateway over real sockets against a mock upstream, each measurement with a floor beside it in the same run.

    python -m benchmarks.serving [--rounds N] [--store memory://]

Three processes: the mock upstream, uvicorn with the application under test, and this one with the load. The floor is an
ASGI application that passes the upstream's bytes through and decides nothing. The two take turns; the ratio is the
median of the rounds' ratios.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio

from benchmarks import load
from floop_gateway_core import Gateway, Settings
from floop_gateway_core.types import Microcredits

MOUNT = "/api/v1/ai"
FRAMES = 2_000
RICH = Microcredits(10**15)
CASES = {
    # what: (frames of an answer, streamed, connections, requests)
    "a plain answer, 1 connection": (1, False, 1, 400),
    "a plain answer, 32 connections": (1, False, 32, 1500),
    "1 stream": (FRAMES, True, 1, 20),
    "32 streams": (FRAMES, True, 32, 96),
}


def settings_of(store: str, upstream: str) -> Settings:
    deployments = {
        f"frames-{frames}": {
            "provider": "openai",
            "model": f"frames-{frames}",
            "base_url": f"http://127.0.0.1:{upstream}/v1",
            "microcredits_per_token": 1,
        }
        for frames, *_ in CASES.values()
    }
    name = f"frames-{FRAMES}"
    plan = {"requests_per_minute": 10**9, "daily_tokens": 10**12, "concurrency": 10**6, "output_tokens": 100_000}
    return Settings.read(
        {
            "store": store,
            "plans": {"default": plan},
            "deployments": deployments,
            "routes": {"fast": [name], "smart": [name], "reason": [name]},
        },
        source="benchmark",
    )


def application() -> object:
    """Make what uvicorn serves in its own process; the environment says what."""
    upstream = os.environ["BENCH_UPSTREAM"]
    if os.environ["BENCH_APP"] == "floor":
        from benchmarks.floor import PassThrough

        return PassThrough(f"http://127.0.0.1:{upstream}/v1/chat/completions")
    from starlette.applications import Starlette

    from floop_gateway_asgi import FloopGateway

    app = Starlette()
    gateway = Gateway(settings_of(os.environ["BENCH_STORE"], upstream))
    app.mount(MOUNT, FloopGateway(gateway))
    if os.environ["BENCH_STORE"] == "memory://":
        # uvicorn makes the application inside its event loop, so the project is made in a thread's own.
        with ThreadPoolExecutor(1) as thread:
            new = thread.submit(anyio.run, lambda: gateway.admin.create_project("bench", credits=RICH)).result()
        Path(os.environ["BENCH_KEY"]).write_text(new.key)
    return app


@contextmanager
def started(command: list[str], ready: str, **environment: str) -> Iterator[str]:
    """Run a process until it has printed a line with `ready`; give that line."""
    process = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if ready in line.decode():
                yield line.decode().strip()
                return
        raise RuntimeError(f"{command} ended before it was ready")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def served(app: str, upstream: str, store: str, key: Path) -> Iterator[int]:
    command = ["-m", "uvicorn", "--factory", "benchmarks.serving:application", "--port", "0", "--no-access-log"]
    environment = {"BENCH_APP": app, "BENCH_UPSTREAM": upstream, "BENCH_STORE": store, "BENCH_KEY": str(key)}
    with started(command, "running on http", **environment) as line:
        yield int(line.split("http://127.0.0.1:")[1].split()[0])


def compare(rounds: int, store: str) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key = folder / "key"
        if store != "memory://":
            store = f"sqlite:///{folder / 'bench.db'}"
            gateway = Gateway(settings_of(store, "1"))
            key.write_text(anyio.run(lambda: gateway.admin.create_project("bench", credits=RICH)).key)
        upstream = stack.enter_context(started(["-m", "benchmarks.upstream"], ""))
        ours = stack.enter_context(served("gateway", upstream, store, key))
        floor = stack.enter_context(served("floor", upstream, store, key))
        print(f"{'':32} {'gateway':>16} {'floor':>16} {'ratio':>7} {'median ms':>16}")
        for what, (frames, streamed, connections, requests) in CASES.items():
            model = f"frames-{frames}"
            ask = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": streamed}
            body = json.dumps(ask).encode()
            to_us = load.post(f"{MOUNT}/chat", body, f"Authorization: Bearer {key.read_text()}")
            to_floor = load.post("/", body)
            unit, each = ("frames/s", frames) if streamed else ("requests/s", 1)
            pairs = []
            for round_number in range(rounds + 1):
                pair = [
                    asyncio.run(load.run(port, request, concurrency=connections, requests=requests))
                    for port, request in ((ours, to_us), (floor, to_floor))
                ]
                if round_number:  # the first only warms up
                    pairs.append(pair)
            rates = [[one.requests * each / one.seconds for one in pair] for pair in pairs]
            ratio = statistics.median(us / them for us, them in rates)
            us, them = (statistics.median(column) for column in zip(*rates, strict=True))
            took = " / ".join(
                f"{statistics.median(one.median_ms for one in column):.1f}" for column in zip(*pairs, strict=True)
            )
            print(f"{what:32} {us:>9.0f} {unit[:6]} {them:>9.0f} {unit[:6]} {ratio:>7.2f} {took:>16}")


def main() -> None:
    parser = argparse.ArgumentParser(description="The gateway over real sockets, a floor beside it.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", choices=["memory://", "sqlite"], default="sqlite")
    args = parser.parse_args()
    print(f"python -m benchmarks.serving --rounds {args.rounds} --store {args.store}")
    compare(args.rounds, args.store)


if __name__ == "__main__":
    main()
