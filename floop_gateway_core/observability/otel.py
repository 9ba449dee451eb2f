"""Traces and metrics by OpenTelemetry's conventions for generative AI (extra `[otel]`).

    host's span, or a remote parent      floop_gateway chat          from RequestStarted to Settled
                                         ├── chat gpt-5-mini         an attempt, with its model, tokens and error
                                         └── chat claude-x           the next one

The request's span is a child of the span that is current when the request starts: the host's own. Without one it is a
server span, which continues the client's `traceparent`. Each attempt's span goes upstream as the new `traceparent`.

Spans are stored by request id and never made current: a stream is read in different contexts from the one that opened
it, and a context attached in one cannot be detached in another. All spans end together when the request has been
settled, each with its own end time, because only then is the billed usage known.

No span or metric has a prompt, an answer or a key. `content=True` adds prompts and answers to the attempts that answered.
"""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, MeterProvider, get_meter_provider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

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
from floop_gateway_core.types import Call, RequestId, UsageRecord

__all__ = ["OpenTelemetry"]

NAME = "floop_gateway"
MAX_OPEN = 50_000
"""The most requests with open spans. Beyond it the oldest ends unfinished: a settlement may wait for a long time."""
MAX_CONTENT = 64 * 1024
"""Characters of a prompt, and of an answer."""
TOKEN_BUCKETS = [4**power for power in range(14)]
SECOND_BUCKETS = [0.01 * 2**power for power in range(14)]
PROVIDERS = {"gemini": "gcp.gemini"}
"""The conventions' names, where they differ from ours."""
OPERATION = "chat"
"""The operation of every upstream request, regardless of the client's endpoint."""
SERVER_ERROR = 500

Attributes = dict[str, AttributeValue]


@dataclass(slots=True)
class _Attempt:
    span: Span
    started_at: int
    ended_at: int | None = None


@dataclass(slots=True)
class _Request:
    """A request under way. `context` is its span as a parent, `billed` the attempt that would be billed now."""

    span: Span
    context: Context
    attempts: dict[int, _Attempt] = field(default_factory=dict)
    billed: _Attempt | None = None
    admitted: bool = False


class OpenTelemetry:
    """A listener: `Gateway(settings, listeners=[OpenTelemetry()])`.

    Without providers, the global ones are used. `content` adds prompts and answers to the spans.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        content: bool = False,
    ) -> None:
        self.wants_content = content
        self._tracer = (tracer_provider or trace.get_tracer_provider()).get_tracer(NAME)
        self._instruments = _Instruments(meter_provider or get_meter_provider())
        self._requests: dict[RequestId, _Request] = {}
        self._lock = threading.Lock()  # a gateway may serve several event loops

    def __call__(self, event: GatewayEvent) -> None:
        """Note an event."""
        match event:
            case RequestStarted():
                self._started(event)
            case AttemptStarted():
                self._attempt_started(event)
            case AttemptEnded():
                self._attempt_ended(event)
            case FirstText(id):
                if (request := self._requests.get(id)) is not None and (attempt := request.billed) is not None:
                    after_s = (time.time_ns() - attempt.started_at) / 1e9
                    attempt.span.set_attribute("gen_ai.response.time_to_first_chunk", after_s)
            case Admitted(id):
                if (request := self._requests.get(id)) is not None:
                    request.admitted = True
                    self._instruments.holds.add(1)
            case Settled(record):
                self._settled(record)
            case Refused() | HedgeLost() | BreakerStateChanged() | PendingSettlements() | BudgetNearlyUsed():
                pass
            case _:
                assert_never(event)
        self._instruments.note(event)

    def upstream_headers(self, request_id: RequestId, attempt: int) -> Mapping[str, str]:
        """Return the headers that continue an attempt's trace upstream."""
        headers: dict[str, str] = {}
        request = self._requests.get(request_id)
        if request is not None and attempt in request.attempts:
            # Use an empty context, so that the host's baggage is not sent to third parties.
            propagate.inject(headers, trace.set_span_in_context(request.attempts[attempt].span, Context()))
        return headers

    def content(self, request_id: RequestId, call: Call, answer: str) -> None:
        """Add a prompt and its answer to the attempt that is billed."""
        request = self._requests.get(request_id)
        if request is None or request.billed is None:
            return
        span = request.billed.span
        span.set_attribute("gen_ai.input.messages", _messages([(one.role, one.text) for one in call.messages]))
        span.set_attribute("gen_ai.output.messages", _messages([("assistant", answer)]))
        if call.system:
            span.set_attribute("gen_ai.system_instructions", json.dumps([_part(call.system[:MAX_CONTENT])]))

    # -- spans -----------------------------------------------------------------------------------------------------

    def _started(self, event: RequestStarted) -> None:
        current = trace.get_current_span().get_span_context()
        parent = None if current.is_valid else _remote_parent(event.trace)
        is_inner = event.dialect == "in_process" or (current.is_valid and not current.is_remote)
        span = self._tracer.start_span(
            f"{NAME} {event.operation}",
            context=parent,  # None: what is current
            kind=SpanKind.INTERNAL if is_inner else SpanKind.SERVER,
            attributes={
                f"{NAME}.request_id": event.request_id,
                f"{NAME}.project": event.project,
                f"{NAME}.dialect": event.dialect,
                f"{NAME}.endpoint": event.operation,
            },
        )
        with self._lock:
            self._requests[event.request_id] = _Request(span, trace.set_span_in_context(span, parent))
            forgotten = self._requests.pop(next(iter(self._requests))) if len(self._requests) > MAX_OPEN else None
        if forgotten is not None:
            self._end(forgotten)

    def _attempt_started(self, event: AttemptStarted) -> None:
        if (request := self._requests.get(event.request_id)) is None:
            return
        span = self._tracer.start_span(
            f"{OPERATION} {event.model or event.deployment}",
            context=request.context,
            kind=SpanKind.CLIENT,
            attributes={
                **_model(event.provider, event.model or event.deployment),
                f"{NAME}.deployment": event.deployment,
                f"{NAME}.attempt": event.number,
            },
        )
        request.billed = request.attempts[event.number] = _Attempt(span, time.time_ns())

    def _attempt_ended(self, event: AttemptEnded) -> None:
        request = self._requests.get(event.request_id)
        attempt = None if request is None else request.attempts.get(event.number)
        if request is None or attempt is None:
            return
        attempt.ended_at = time.time_ns()
        attempt.span.set_attribute(f"{NAME}.outcome", event.outcome)
        if event.fault is not None:
            attempt.span.set_attribute("error.type", event.fault.value)
            attempt.span.set_status(Status(StatusCode.ERROR, event.reason))
        # After a race between two attempts, the one that continues.
        running = [one for one in request.attempts.values() if one.ended_at is None]
        request.billed = running[-1] if running else attempt

    def _settled(self, record: UsageRecord) -> None:
        with self._lock:
            request = self._requests.pop(record.request_id, None)
        if request is None:
            return
        if request.billed is not None and (record.input_tokens or record.output_tokens):
            request.billed.span.set_attributes(_usage(record))
        request.span.set_attributes(_outcome(record))
        if (record.status or 0) >= SERVER_ERROR or record.ending in ("upstream_error", "internal_error"):
            request.span.set_status(Status(StatusCode.ERROR, record.code))
        self._end(request)

    def _end(self, request: _Request) -> None:
        if request.admitted:
            self._instruments.holds.add(-1)
        for attempt in request.attempts.values():
            attempt.span.end(attempt.ended_at)
        request.span.end()


class _Instruments:
    """The metrics. Their attributes have few values: nothing that a client or a project may choose."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(NAME)
        self._models: dict[str, Attributes] = {}
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens that were billed, by request.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )

        def seconds(name: str, description: str) -> Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=SECOND_BUCKETS)

        self._attempt_s = seconds("gen_ai.client.operation.duration", "How long an attempt at a deployment takes.")
        self._request_s = seconds("gen_ai.server.request.duration", "How long a request takes.")
        self._first_text_s = seconds("gen_ai.server.time_to_first_token", "From a request to its answer's first text.")
        self._microcredits = meter.create_counter(f"{NAME}.microcredits", "{microcredit}", "What was charged.")
        self._hedges = meter.create_counter(
            f"{NAME}.hedge.microcredits", "{microcredit}", "Cost of attempts that lost a hedging race."
        )
        self._refusals = meter.create_counter(f"{NAME}.refusals", "{request}", "Requests that got an error, by code.")
        self.holds = meter.create_up_down_counter(
            f"{NAME}.holds", "{request}", "Requests that hold tokens and credits."
        )
        self._breaker = meter.create_gauge(f"{NAME}.breaker.open", "1", "Whether a circuit breaker has opened.")
        self._pending = meter.create_gauge(
            f"{NAME}.pending_settlements", "{request}", "Settlements that wait for the store."
        )

    def note(self, event: GatewayEvent) -> None:
        match event:
            case AttemptStarted(_, deployment, _, provider, model):
                if deployment not in self._models:
                    self._breaker.set(0, {f"{NAME}.deployment": deployment})
                self._models[deployment] = _model(provider, model or deployment)
            case AttemptEnded():
                error: Attributes = {} if event.fault is None else {"error.type": event.fault.value}
                self._attempt_s.record(event.duration_ms / 1000, self._of(event.deployment) | error)
            case FirstText(_, deployment, after_ms):
                self._first_text_s.record(after_ms / 1000, self._of(deployment))
            case Refused(_, code):
                self._refusals.add(1, {"error.type": code.value})
            case HedgeLost(_, deployment, _, microcredits):
                self._hedges.add(microcredits, self._of(deployment))
            case BreakerStateChanged(deployment, state):
                self._breaker.set(int(state != "closed"), {f"{NAME}.deployment": deployment})
            case PendingSettlements(count):
                self._pending.set(count)
            case Settled(record):
                self._settled(record)
            case RequestStarted() | Admitted() | BudgetNearlyUsed():
                pass
            case _:
                assert_never(event)

    def _settled(self, record: UsageRecord) -> None:
        of = {} if record.deployment is None else self._of(record.deployment)
        for kind, tokens in (("input", record.input_tokens), ("output", record.output_tokens)):
            if tokens:
                self._tokens.record(tokens, {**of, "gen_ai.token.type": kind})
        if record.microcredits:
            self._microcredits.add(record.microcredits, of)
        if record.total_ms is not None:
            error: Attributes = {} if record.code is None else {"error.type": record.code.value}
            self._request_s.record(record.total_ms / 1000, of | error)

    def _of(self, deployment: str) -> Attributes:
        return {**self._models.get(deployment, {}), f"{NAME}.deployment": deployment}


def _remote_parent(headers: tuple[tuple[str, str], ...]) -> Context:
    """Return a context with the client's span, or without one: a repeated header cannot be trusted."""
    carrier = dict(headers)
    return TraceContextTextMapPropagator().extract(carrier if len(carrier) == len(headers) else {}, Context())


def _model(provider: str, model: str) -> Attributes:
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
    }


def _usage(record: UsageRecord) -> Attributes:
    found: Attributes = {
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
        f"{NAME}.estimated": record.estimated,
    }
    if record.finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = [record.finish_reason]
    return found


def _outcome(record: UsageRecord) -> Attributes:
    values: dict[str, AttributeValue | None] = {
        f"{NAME}.alias": record.alias,
        f"{NAME}.deployment": record.deployment,
        f"{NAME}.attempts": record.attempts,
        f"{NAME}.status": record.status,
        f"{NAME}.ending": record.ending,
        f"{NAME}.microcredits": int(record.microcredits),
        f"{NAME}.replay_of": record.replay_of,
        "gen_ai.request.stream": record.streamed,
        "error.type": None if record.code is None else record.code.value,
    }
    return {name: value for name, value in values.items() if value is not None}


def _messages(messages: list[tuple[str, str]]) -> str:
    """Return messages in the conventions' JSON, cut at `MAX_CONTENT` characters in all."""
    found, room = [], MAX_CONTENT
    for role, text in messages:
        found.append({"role": role, "parts": [_part(text[:room])]})
        room -= len(text)
        if room <= 0:
            break
    return json.dumps(found)


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}
