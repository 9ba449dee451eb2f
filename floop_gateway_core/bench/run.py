"""Runs the cells: the gateway and both floors by turns, round after round, and what each of them cost.

An absolute figure from one machine says little, so each is compared with the floors' from the same run; the ratio is
the median of the rounds' ratios.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from floop_gateway_core.bench import load
from floop_gateway_core.bench.floors import KEY
from floop_gateway_core.bench.settings import Hosted, turned_to
from floop_gateway_core.errors import AdminError

__all__ = ["CELLS", "Cell", "Measured", "Target", "measure"]

MOUNT = "/api/v1/ai"
PROMPT = "Explain to me how a hash table works and where it is used, in a few words, please. ({wanted})"
STARTS_WITHIN_S = 30.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: `frames` in an answer, each `every_ms` (0: flat out), asked over `connections`."""

    name: str
    frames: int
    stream: bool
    connections: int
    requests: int
    every_ms: int = 0

    @property
    def body(self) -> bytes:
        """Return the request's body, with `auto` and a prompt that tells the mock upstream what to send."""
        wanted = f"paced-{self.frames}-{self.every_ms}" if self.every_ms else f"frames-{self.frames}"
        messages = [{"role": "user", "content": PROMPT.format(wanted=wanted)}]
        return json.dumps(
            {"model": "auto", "messages": messages, "stream": self.stream, "max_tokens": 100_000}
        ).encode()


CELLS = (
    Cell("plain, 1 connection", 25, False, 1, 400),
    Cell("plain, 64 connections", 25, False, 64, 1_200),
    Cell("1 stream", 200, True, 1, 200),
    Cell("32 streams", 200, True, 32, 640),
    Cell("128 streams", 200, True, 128, 768),
    Cell("100 paced streams", 100, True, 100, 100, every_ms=20),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one target did in one round of one cell. `cpu_s` is of all its processes, `rss_kb` their sum at the end."""

    result: load.Result
    cpu_s: float
    rss_kb: int

    @property
    def per_s(self) -> float:
        """Return good answers a second."""
        return self.result.good / self.result.seconds

    @property
    def cpu_ms(self) -> float:
        """Return the CPU of one answer."""
        return self.cpu_s * 1000 / max(1, self.result.good)


@dataclass(slots=True)
class Target:
    """A process under load: `path` and `authorization` are how it is asked."""

    name: str
    port: int
    path: str
    authorization: str
    process: subprocess.Popen[bytes]
    start_s: float
    rounds: dict[str, list[Measured]] = field(default_factory=dict)

    def run(self, cell: Cell) -> Measured:
        """Run one round of a cell."""
        request = load.post(self.path, cell.body, f"Authorization: {self.authorization}")
        before = _cpu_s(self.process.pid)
        result = _loop(
            load.run(self.port, request, connections=cell.connections, requests=cell.requests, frames=cell.frames)
        )
        measured = Measured(result, _cpu_s(self.process.pid) - before, _rss_kb(self.process.pid))
        self.rounds.setdefault(cell.name, []).append(measured)
        return measured


def _loop(coroutine: Any) -> Any:
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run  # type: ignore[assignment]
    return run(coroutine)


def measure(
    settings: Mapping[str, Any],
    *,
    folder: Path,
    hosts: Sequence[Mapping[str, Any]],
    cells: Sequence[Cell] = CELLS,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Target]:
    """Measure each of `hosts` and both floors; the first round only warms up and is dropped.

    A host is fields of `Hosted`, and `store` in place of the configured one. A SQLite store is always a new file; a
    server's store is only used if a host names it, because the measurement writes to it. Raises `AdminError`.
    """
    with ExitStack() as stack:
        upstream = stack.enter_context(_listening("-m", "floop_gateway_core.bench.upstream", core=1))[1]
        targets = []
        for number, host in enumerate(hosts):
            hosted = _hosted(settings, upstream, folder / str(number), host)
            targets.append(stack.enter_context(_gateway(hosted)))
        url = f"http://127.0.0.1:{upstream}/v1/chat/completions"
        for kind in ("parsing", "passing"):
            began = time.perf_counter()
            process, port = stack.enter_context(_listening("-m", "floop_gateway_core.bench.floors", kind, url, core=0))
            targets.append(Target(f"floor: {kind}", port, "/chat", KEY, process, time.perf_counter() - began))
        for cell in cells:
            for number in range(rounds + 1):
                progress(f"{cell.name}, round {number} of {rounds}")
                for target in targets:
                    if cell.stream or "passing" not in target.name:
                        target.run(cell)
            for target in targets:
                del target.rounds.get(cell.name, [None])[:1]
        return targets


def _hosted(settings: Mapping[str, Any], upstream: int, folder: Path, host: Mapping[str, Any]) -> Hosted:
    folder.mkdir()
    store = host.get("store") or str(settings.get("store", "sqlite"))
    if not host.get("store") and ("store_env" in settings or not store.startswith(("sqlite", "memory"))):
        raise AdminError(
            "the configured store would be written to; pass --store with another, or an empty database's URL"
        )
    if store.startswith("sqlite"):
        store = f"sqlite:///{folder / 'bench.db'}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = {name: value for name, value in host.items() if name != "store"}
    return Hosted(turned_to(settings, upstream, store), str(folder / "key"), port, **served)


@contextmanager
def _gateway(hosted: Hosted) -> Iterator[Target]:
    began = time.perf_counter()
    process = _started(["-m", "floop_gateway_core.bench.host"], core=0, environment=hosted.environment)
    try:
        while not Path(hosted.key_file).exists() or not _accepts(hosted.port):
            if process.poll() is not None or time.perf_counter() - began > STARTS_WITHIN_S:
                raise RuntimeError(f"the gateway on {hosted.host} did not start")
            time.sleep(0.01)
        key = Path(hosted.key_file).read_text()
        workers = f", {hosted.workers} workers" if hosted.workers > 1 else ""
        name = f"{hosted.host}, {str(hosted.settings['store']).split(':')[0]}{workers}"
        yield Target(name, hosted.port, f"{MOUNT}/chat", f"Bearer {key}", process, time.perf_counter() - began)
    finally:
        _end(process)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def _listening(*command: str, core: int) -> Iterator[tuple[Any, int]]:
    process = _started(list(command), core=core)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if not line.startswith("port "):
            raise RuntimeError(f"{command} did not start")
        yield (process, int(line.split()[1]))
    finally:
        _end(process)


def _started(
    command: list[str], *, core: int, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    def pin() -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:  # the gateway on one, everything else on another
            os.sched_setaffinity(0, {cores[core]} if core == 0 else set(cores[1:]))

    return subprocess.Popen(
        [sys.executable, *command],
        env=None if environment is None else dict(environment),
        stdout=subprocess.PIPE,
        preexec_fn=pin if hasattr(os, "sched_setaffinity") else None,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its children have used; 0 where the system does not tell."""
    total = 0
    for one in _tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def _rss_kb(pid: int) -> int:
    total = 0
    for one in _tree(pid):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return total


def ratio(ours: Sequence[Measured], floor: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    """Return the median of the rounds' ratios; 0 if the floor's figures are too small to measure."""
    ratios = [of(us) / of(them) for us, them in zip(ours, floor, strict=True) if of(them)]
    return statistics.median(ratios) if ratios else 0.0
