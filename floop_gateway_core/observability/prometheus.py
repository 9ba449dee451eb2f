"""Metrics for Prometheus (extra `[prometheus]`): a listener that counts, and the page that is scraped.

    gateway = Gateway(settings, listeners=[Prometheus()])       # GET /metrics of FloopAdmin, on each host

Labels have few values, all of them from the configuration or from our own vocabulary: never a project, an alias as a client
wrote it, or a tag. Summed over their labels, tokens and microcredits are the usage log's.

With several worker processes, set `PROMETHEUS_MULTIPROC_DIR` to an empty directory before starting: each process writes
to files there, and each serves the sum of all of them. The counters of dead workers are kept; their gauges are dropped
when the page is next read.
"""

import glob
import os
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias, assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from floop_gateway_core.observability.events import (
    Admitted,
    AttemptEnded,
    AttemptStarted,
    BreakerStateChanged,
    BudgetNearlyUsed,
    FirstText,
    GatewayEvent,
    HedgeLost,
    PendingSettlements,
    Refused,
    RequestStarted,
    Settled,
)
from floop_gateway_core.types import Microcredits, RequestId, UsageRecord

__all__ = ["Prometheus"]

PREFIX = "floop_gateway_"
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
READS, READ_AGAIN_S = 5, 0.02
"""How often, and after how long, the files of several processes are read again."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
MAX_OPEN = 100_000
"""Requests with a hold that are remembered; a settlement may wait for its store for long."""

Page: TypeAlias = tuple[str, bytes]


class Prometheus:
    """A listener. `registry` is where its metrics are registered: by default one of its own, which only `page` reads.

    A registry accepts only one `Prometheus` instance, but one instance may listen to several gateways of a process.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = CollectorRegistry() if registry is None else registry
        self._holds: dict[RequestId, Microcredits] = {}
        self._lock = threading.Lock()  # a gateway may serve several event loops

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=self._registry)

        def gauge(name: str, text: str, *labels: str, over_processes: str = "livesum") -> Gauge:
            mode = over_processes
            return Gauge(PREFIX + name, text, labels, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(PREFIX + name, text, labels, registry=self._registry, buckets=SECONDS)

        self._requests = counter(
            "requests", "Settled requests, by how they ended.", "dialect", "endpoint", "ending", "code"
        )
        self._refusals = counter("refusals", "Requests that got an error instead of an answer.", "code")
        self._tokens = counter("tokens", "Tokens that were billed.", "deployment", "type")
        self._microcredits = counter("microcredits", "Microcredits that were charged.", "deployment")
        self._hedged = counter("hedge_microcredits", "Cost of attempts that lost a hedging race.", "deployment")
        self._attempts = counter("attempts", "Attempts at deployments.", "deployment", "outcome", "fault")
        self._attempt_s = seconds("attempt_duration_seconds", "How long an attempt takes.", "deployment")
        self._request_s = seconds("request_duration_seconds", "From a request to its settlement.", "endpoint", "ending")
        self._first_text_s = seconds("first_text_seconds", "From a request to its answer's first text.", "deployment")
        self._open = gauge("holds", "Requests that hold tokens and credits.")
        self._held = gauge("held_microcredits", "Microcredits held by open requests.")
        self._breaker = gauge(
            "breaker_open", "Whether a deployment's circuit breaker has opened.", "deployment", over_processes="livemax"
        )
        self._pending = gauge("pending_settlements", "Settlements that wait for the store.")
        self._nearly_used = counter("budgets_nearly_used", "Projects' days that passed 80 % of their tokens.")

    def __call__(self, event: GatewayEvent) -> None:
        """Count an event."""
        match event:
            case Admitted(id, held_microcredits=held):
                self._hold(id, held)
            case Refused(_, code):
                self._refusals.labels(code.value).inc()
            case AttemptStarted(_, deployment):
                self._breaker.labels(deployment)  # 0 until it opens
            case AttemptEnded(_, deployment, _, outcome, fault, _, duration_ms):
                self._attempts.labels(deployment, outcome, "" if fault is None else fault.value).inc()
                self._attempt_s.labels(deployment).observe(duration_ms / 1000)
            case FirstText(_, deployment, after_ms):
                self._first_text_s.labels(deployment).observe(after_ms / 1000)
            case HedgeLost(_, deployment, _, microcredits):
                self._hedged.labels(deployment).inc(microcredits)
            case BreakerStateChanged(deployment, state):
                self._breaker.labels(deployment).set(int(state != "closed"))
            case PendingSettlements(count):
                self._pending.set(count)
            case BudgetNearlyUsed():
                self._nearly_used.inc()
            case Settled(record):
                self._settled(record)
            case RequestStarted():
                pass
            case _:
                assert_never(event)

    def page(self, accept: str = "") -> Page:
        """Return the content type, chosen by an `Accept` header, and the metrics as text: ours alone."""
        encode, content_type = choose_encoder(accept)
        for _ in range(READS):
            with suppress(OSError, ValueError, struct.error):  # a worker is just creating or deleting its file
                return content_type, encode(_Ours(self._source()))
            time.sleep(READ_AGAIN_S)
        return content_type, encode(_Ours(self._source()))

    def _source(self) -> Collector:
        directory = os.environ.get(DIRECTORY)
        if directory is None:
            return self._registry
        _forget_dead_processes(directory)
        return MultiProcessCollector(None, directory)  # type: ignore[no-untyped-call]

    def _hold(self, id: RequestId, held: Microcredits) -> None:
        with self._lock:
            self._holds[id] = held
            oldest = next(iter(self._holds)) if len(self._holds) > MAX_OPEN else None
        self._open.inc()
        self._held.inc(held)
        if oldest is not None:
            self._release(oldest)

    def _release(self, id: RequestId) -> None:
        with self._lock:
            held = self._holds.pop(id, None)
        if held is not None:
            self._open.dec()
            self._held.dec(held)

    def _settled(self, record: UsageRecord) -> None:
        self._release(record.request_id)
        ending, code = record.ending or "", "" if record.code is None else record.code.value
        self._requests.labels(record.dialect, record.endpoint, ending, code).inc()
        self._request_s.labels(record.endpoint, ending).observe((record.total_ms or 0) / 1000)
        deployment = record.deployment or ""
        if record.input_tokens or record.output_tokens:
            self._tokens.labels(deployment, "input").inc(record.input_tokens)
            self._tokens.labels(deployment, "output").inc(record.output_tokens)
        if record.microcredits:
            self._microcredits.labels(deployment).inc(record.microcredits)


class _Ours:
    """The gateway's metrics alone: a host's registry, and the files of several processes, may have others."""

    def __init__(self, source: Collector) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        return (metric for metric in self._source.collect() if metric.name.startswith(PREFIX))


def _forget_dead_processes(directory: str) -> None:
    """Drop the gauges of dead processes, so that a killed worker's open requests are not counted forever."""
    files = glob.glob(os.path.join(glob.escape(directory), "gauge_live*_*.db"))
    for pid in {name.rpartition("_")[2].removesuffix(".db") for name in files}:
        if pid.isdigit() and not _runs(int(pid)):
            with suppress(FileNotFoundError):  # another worker was first
                mark_process_dead(int(pid), directory)  # type: ignore[no-untyped-call]


def _runs(pid: int) -> bool:
    if os.name != "posix":  # where the call below would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
