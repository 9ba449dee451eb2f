"""Spans and metrics by OpenTelemetry, read from memory behind real servers on each host."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from aiohttp import web
from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ASGIMiddleware
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WSGIMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.routing import Mount

import floop_gateway_aiohttp
import floop_gateway_asgi
import floop_gateway_flask
from floop_gateway_core import Gateway, GatewayError
from floop_gateway_core.observability import (
    Admitted,
    AttemptEnded,
    AttemptStarted,
    HedgeLost,
    PendingSettlements,
    RequestStarted,
    otel,
)
from floop_gateway_core.observability.otel import OpenTelemetry
from floop_gateway_core.testing import Answer, Break, Reply, Status, scripted_gateway
from floop_gateway_core.types import Call, Microcredits, RequestId, Usage
from tests.adapters import test_aiohttp, test_flask
from tests.hosts import HOSTS
from tests.observability.load import PARENT, SECRET, World, run_load, tokens, world
from tests.serving import MOUNT, post, served, until


@dataclass
class Telemetry:
    """Providers that keep everything in memory."""

    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    tracers: TracerProvider = field(default_factory=TracerProvider)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meters = MeterProvider([self.reader])

    def listener(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(self.tracers, self.meters, **options)

    def finished(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if kind in (None, span.kind)]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = [
            one for resource in data.resource_metrics for scope in resource.scope_metrics for one in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def total(self, name: str, **labels: str) -> float:
        wanted = {key.replace("__", "."): value for key, value in labels.items()}
        found = [one for one in self.points(name) if wanted.items() <= dict(one.attributes).items()]
        return float(sum(one.sum if hasattr(one, "sum") else one.value for one in found))


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.meters.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what OpenTelemetry complains of, a context that cannot be detached for one, and failures of listeners."""
    found = [one for one in caplog.records if one.levelno >= logging.WARNING]
    return [one.getMessage() for one in found if one.name.startswith("opentelemetry") or "listener" in one.getMessage()]


def parent_of(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> ReadableSpan | None:
    return next((one for one in spans if span.parent and one.context.span_id == span.parent.span_id), None)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_loads_sums_are_the_usage_logs(
    host: Callable[[Gateway], AbstractContextManager[str]], telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    w = world([telemetry.listener()])
    with caplog.at_level(logging.WARNING), host(w.gateway) as address:
        run_load(w, address)
    assert not complaints(caplog)
    log = w.log
    for kind, count in tokens(log).items():
        assert count > 0
        assert count == telemetry.total("gen_ai.client.token.usage", gen_ai__token__type=kind)
    assert sum(one.microcredits for one in log) == telemetry.total("floop_gateway.microcredits")
    assert sum(one.attempts for one in log) == sum(
        one.count for one in telemetry.points("gen_ai.client.operation.duration")
    )
    with_text = [one for one in log if one.first_text_ms is not None]
    assert len(with_text) == sum(one.count for one in telemetry.points("gen_ai.server.time_to_first_token"))
    refused: Counter[str] = Counter()
    for one in log:
        if one.code is not None:
            refused[one.code.value] += one.repeats
    told = {point.attributes["error.type"]: point.value for point in telemetry.points("floop_gateway.refusals")}
    assert {**refused, "UNAUTHORIZED": 1} == told
    assert 0 == telemetry.total("floop_gateway.holds")
    assert 0 == telemetry.total("floop_gateway.pending_settlements")
    opened = {
        one.attributes["floop_gateway.deployment"]: one.value for one in telemetry.points("floop_gateway.breaker.open")
    }
    assert {"flaky": 1, "echo": 0, "slow": 0} == opened
    check_spans(w, telemetry)


def check_spans(w: World, telemetry: Telemetry) -> None:
    spans = telemetry.finished()
    own_records = [one for one in w.log if one.repeats == 1]
    requests = {attributes(one)["floop_gateway.request_id"]: one for one in telemetry.finished(SpanKind.SERVER)}
    assert {one.request_id for one in own_records} <= requests.keys()
    for record in own_records:
        span = requests[record.request_id]
        assert f"floop_gateway {record.endpoint}" == span.name
        assert (record.status, record.ending) == tuple(
            attributes(span)[f"floop_gateway.{a}"] for a in ("status", "ending")
        )
        attempts = sorted(
            (one for one in telemetry.finished(SpanKind.CLIENT) if parent_of(one, spans) is span),
            key=lambda one: attributes(one)["floop_gateway.attempt"],
        )
        assert record.attempts == len(attempts)
        used = sum(attributes(one).get("gen_ai.usage.output_tokens", 0) for one in attempts)
        assert record.output_tokens == used
    continued = [one for one in requests.values() if one.parent is not None]
    assert 5 == len(continued)
    assert {PARENT.split("-")[1]} == {f"{one.context.trace_id:032x}" for one in continued}
    # Each attempt's own span goes upstream.
    sent = {one["traceparent"] for one in w.flaky.headers}
    mine = [
        one for one in telemetry.finished(SpanKind.CLIENT) if attributes(one)["floop_gateway.deployment"] == "flaky"
    ]
    assert {one[:52] for one in sent} == {f"00-{one.context.trace_id:032x}-{one.context.span_id:016x}" for one in mine}
    assert SECRET not in json.dumps([one.to_json() for one in spans])


# -- the host's own spans ----------------------------------------------------------------------------------------------


def asgi(gateway: Gateway, telemetry: Telemetry) -> AbstractContextManager[str]:
    app = Starlette(routes=[Mount(MOUNT, floop_gateway_asgi.FloopGateway(gateway))])
    return served(ASGIMiddleware(app, tracer_provider=telemetry.tracers, exclude_spans=["send", "receive"]))


def flask(gateway: Gateway, telemetry: Telemetry) -> AbstractContextManager[str]:
    app = Flask("host")
    floop_gateway_flask.FloopGateway(app, gateway)
    app.wsgi_app = WSGIMiddleware(app.wsgi_app, tracer_provider=telemetry.tracers)  # type: ignore[method-assign]
    return test_flask.served(app)


def aiohttp(gateway: Gateway, telemetry: Telemetry) -> AbstractContextManager[str]:
    instrumentor = AioHttpServerInstrumentor()
    with warnings.catch_warnings(
        action="ignore", category=DeprecationWarning
    ):  # it inherits from aiohttp's application
        instrumentor.instrument(tracer_provider=telemetry.tracers)
    app = web.Application()
    instrumentor.uninstrument()
    floop_gateway_aiohttp.setup(app, gateway)
    return test_aiohttp.served(app)


@pytest.mark.parametrize("host", [asgi, flask, aiohttp])
def test_an_instrumented_hosts_span_is_the_parent(
    host: Callable[..., AbstractContextManager[str]], telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    w = world([telemetry.listener()])
    with host(w.gateway, telemetry) as address:
        for stream in (False, True):
            body = {"prompt": "one two three", "model": "fast", "stream": stream}
            assert 200 == post(f"{address}{MOUNT}/generate", w.key, body, traceparent=PARENT).status_code
        until(lambda: len(telemetry.finished(SpanKind.SERVER)) == 2)
    spans = telemetry.finished()
    assert {PARENT.split("-")[1]} == {f"{one.context.trace_id:032x}" for one in spans}
    for one in telemetry.finished(SpanKind.CLIENT):
        ours = parent_of(one, spans)
        assert ours is not None
        assert ("floop_gateway generate", SpanKind.INTERNAL) == (ours.name, ours.kind)
        hosts = parent_of(ours, spans)
        assert hosts is not None
        assert SpanKind.SERVER is hosts.kind
        assert hosts.parent is not None
        assert PARENT.split("-")[2] == f"{hosts.parent.span_id:016x}"
    assert not complaints(caplog)


# -- within the process, on asyncio and trio ---------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_stream_that_is_read_in_another_context_warns_of_nothing(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = telemetry.tracers.get_tracer("host")
    async with scripted_gateway(listeners=[telemetry.listener()]) as scripted:
        with tracer.start_as_current_span("job") as job:
            stream = scripted.gateway.stream(scripted.key, [{"role": "user", "content": "Hi"}])
        async with stream as answer, anyio.create_task_group() as tasks:
            read: list[str] = []

            async def read_on() -> None:
                read.extend([text async for text in answer])

            tasks.start_soon(read_on)
        with tracer.start_as_current_span("job") as job:
            await scripted.gateway.generate(scripted.key, "Hi")
    assert read
    inner = [one for one in telemetry.finished(SpanKind.INTERNAL) if one.name.startswith("floop_gateway")]
    assert [None, job.get_span_context().span_id] == [one.parent and one.parent.span_id for one in inner]
    assert not complaints(caplog)


@pytest.mark.anyio
@pytest.mark.usefixtures("short_back_off")
async def test_each_attempt_has_a_span_with_its_error(telemetry: Telemetry) -> None:
    answers: list[Answer] = [Status(500), Reply(broken=Break("reset", at="text", texts=1))]
    async with scripted_gateway(*answers, listeners=[telemetry.listener()]) as scripted:
        with pytest.raises(GatewayError):
            async with scripted.gateway.stream(scripted.key, [{"role": "user", "content": "Hi"}]) as answer:
                [text async for text in answer]
        sent = [one.headers["traceparent"] for one in scripted.upstream.requests]
    first, second = telemetry.finished(SpanKind.CLIENT)
    assert ("chat scripted", "transient") == (first.name, attributes(first)["error.type"])
    assert StatusCode.ERROR is second.status.status_code
    assert "gen_ai.usage.output_tokens" not in attributes(first)
    assert attributes(second)["gen_ai.usage.output_tokens"] > 0
    assert 2 == len(set(sent))
    (request,) = telemetry.finished(SpanKind.INTERNAL)
    assert (StatusCode.ERROR, "PROVIDER_ERROR") == (request.status.status_code, attributes(request)["error.type"])


@pytest.mark.anyio
async def test_prompts_and_answers_are_there_only_if_asked_for(telemetry: Telemetry) -> None:
    async with scripted_gateway(listeners=[telemetry.listener(content=True)]) as scripted:
        answer = await scripted.gateway.generate(scripted.key, SECRET, system="Be kind.")
    (span,) = telemetry.finished(SpanKind.CLIENT)
    (said,) = json.loads(attributes(span)["gen_ai.input.messages"])
    assert {"role": "user", "parts": [{"type": "text", "content": SECRET}]} == said
    (answered,) = json.loads(attributes(span)["gen_ai.output.messages"])
    assert answer.content == answered["parts"][0]["content"]
    assert "Be kind." in attributes(span)["gen_ai.system_instructions"]
    assert {"end_turn"} == set(attributes(span)["gen_ai.response.finish_reasons"])


@pytest.mark.anyio
async def test_every_name_of_generative_ai_is_one_of_the_conventions(telemetry: Telemetry) -> None:
    async with scripted_gateway(listeners=[telemetry.listener(content=True)]) as scripted:
        await scripted.gateway.generate(scripted.key, "Hi", system="Be kind.")
    known = {
        value
        for module in (gen_ai_attributes, gen_ai_metrics)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    metrics = [one for resource in data.resource_metrics for scope in resource.scope_metrics for one in scope.metrics]
    used = {one.name for one in metrics} | {
        key for one in metrics for point in one.data.data_points for key in point.attributes or {}
    }
    used |= {key for span in telemetry.finished() for key in attributes(span)}
    ours = {name for name in used if name.startswith("gen_ai.")}
    assert len(ours) > 12
    assert ours <= known
    assert {name for name in used - ours if not name.startswith("floop_gateway.")} <= {"error.type"}


def test_without_an_sdk_nothing_fails_and_the_clients_trace_goes_upstream() -> None:
    w = world([OpenTelemetry(trace.NoOpTracerProvider())])
    with HOSTS["asgi"](w.gateway) as address:
        post(f"{address}{MOUNT}/generate", w.key, {"prompt": "Hi", "model": "fast"}, traceparent=PARENT)
    assert [PARENT] == [one.get("traceparent") for one in w.flaky.headers]


def test_what_never_ends_is_forgotten_and_late_events_hurt_nobody(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "MAX_OPEN", 1)
    listener = telemetry.listener()
    first, second = RequestId("req_1"), RequestId("req_2")
    listener(RequestStarted(first, "p", "native", "chat"))
    listener(Admitted(first, "p", ("main",)))
    listener(AttemptStarted(first, "main", 1, "gemini", "g-1"))
    assert 1 == telemetry.total("floop_gateway.holds")
    listener(RequestStarted(second, "p", "native", "chat", (("traceparent", PARENT), ("traceparent", PARENT))))
    assert ["chat g-1", "floop_gateway chat"] == [span.name for span in telemetry.finished()]
    assert "gcp.gemini" == attributes(telemetry.finished()[0])["gen_ai.provider.name"]
    assert 0 == telemetry.total("floop_gateway.holds")
    listener(AttemptStarted(first, "main", 2, "gemini", "g-1"))
    listener(AttemptEnded(first, "main", 2, "cancelled", None, None, 5))
    listener(HedgeLost(first, "main", Usage(1, 1), Microcredits(7)))
    listener(PendingSettlements(3, first))
    listener.content(first, Call("chat", ()), "")
    assert {} == listener.upstream_headers(first, 2)
    assert (7, 3) == (
        telemetry.total("floop_gateway.hedge.microcredits"),
        telemetry.total("floop_gateway.pending_settlements"),
    )
