"""One call, from its admission to its last event: the one path of every answer, streaming or not.

    admit     alias → route → size → both holds. A refusal leaves no hold.
    events    attempt after attempt along the route, until one answers. Nothing is *released* before the first text (a
              stream) or the terminal event (a plain answer); until then a failure is followed by a retry or a failover
              that nobody sees. Afterwards it is the end.
    settle    at the terminal event, before the usage is told; or when the events are closed, whoever closes them.

The run owns the request's usage record and settles it exactly once. `headers_sent` is set by whoever sends the status line
before the first text (a heartbeat): from then on the record's status is 200, come what may.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import anyio

from floop_gateway_core.engine.assess import choose_alias, estimate_input, run_cpu_bound
from floop_gateway_core.engine.attempt import Attempt
from floop_gateway_core.engine.attempt_runner import AttemptRunner
from floop_gateway_core.engine.routing import Caller, Deployment, Engine
from floop_gateway_core.engine.schedule import PlannedAttempt
from floop_gateway_core.engine.settle import settle
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.observability.events import (
    Admitted,
    FirstText,
    Refused,
    notify,
)
from floop_gateway_core.policy.admission import HoldEstimate, size_refusal
from floop_gateway_core.policy.budget import utc_day
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.policy.routes import AUTO
from floop_gateway_core.policy.tokens.estimate import TokenEstimate
from floop_gateway_core.providers.base import UpstreamFault
from floop_gateway_core.stores.base import HoldRequest, Settlement, StoreUnavailable
from floop_gateway_core.types import (
    AnswerEvent,
    Bill,
    Call,
    Completed,
    Ending,
    Failed,
    FinishReason,
    Microcredits,
    Texts,
    Usage,
    UsageRecord,
)
from floop_gateway_core.wire.surrogates import SurrogateJoiner

__all__ = ["Run"]

MAX_LOGGED_ALIAS = 100
UNAVAILABLE_RETRY_AFTER_S = 60


class Run:
    """Call `admit`; where it gives no refusal, read `events` and close them. `started` is `anyio.current_time`."""

    def __init__(self, engine: Engine, caller: Caller, record: UsageRecord, *, started: float) -> None:
        self.record = record
        self.headers_sent = False
        self.output_sent = False
        self.bill = Bill(Usage(0, 0), Microcredits(0), None)
        self._engine = engine
        self._caller = caller
        self._started = started
        self._deadline = started + engine.limits.total_s
        self._day = utc_day(record.started_at)  # until admission, whose day it is
        self._settled = False
        self._route: list[Deployment] = []
        self._sizes: dict[str, TokenEstimate] = {}
        self._granted_tokens = 0
        self._attempts: AttemptRunner | None = None

    # -- admission -------------------------------------------------------------------------------------------------

    async def admit(self, call: Call) -> Refusal | None:
        """Decide everything that is decided before an upstream is asked; a refusal still has to be told to `refuse`."""
        self._call = call
        record, engine = self.record, self._engine
        record.alias, record.streamed = call.alias[:MAX_LOGGED_ALIAS], call.stream
        if refusal := engine.routes.alias_refusal(call.alias):
            return refusal
        record.resolved_alias = call.alias
        if call.alias == AUTO:
            judged = await choose_alias(engine, call)
            record.resolved_alias, record.auto_reasons = judged.alias, judged.reasons
        self._route = [engine.deployments[name] for name in engine.routes.resolve(record.resolved_alias)]
        self._sizes = dict(await estimate_input(call, (deployment.vocabulary for deployment in self._route)))
        expected = self._sizes[self._route[0].vocabulary].expected
        if refusal := size_refusal(expected, self._caller.plan.input_tokens):
            return refusal
        granted = await engine.ledger.hold(self._hold_request(call))
        if isinstance(granted, Refusal):
            return granted
        self._granted_tokens = granted.output_tokens
        notify(engine.listeners, Admitted(record.request_id, record.project, tuple(one.id for one in self._route)))
        return None

    def _hold_request(self, call: Call) -> HoldRequest:
        """The dearest case on the whole route: the input's upper bound, the granted output, the thinking allowance."""
        plan = self._caller.plan
        wanted = min(call.max_tokens or plan.output_tokens, plan.output_tokens)
        worst = [(self._sizes[one.vocabulary].upper, one.thinking_allowance_tokens) for one in self._route]
        costs = tuple(one.prices.cost_line(*case) for one, case in zip(self._route, worst, strict=True))
        ask = HoldEstimate(max(map(sum, worst)), wanted, costs)
        now = self._engine.clock()
        self._day = utc_day(now)
        return HoldRequest(
            record=self.record,
            owner=self._caller.project.owner,
            day=self._day,
            budget_tokens=plan.daily_tokens,
            ask=ask,
            now=now,
            expires_at=now + self._engine.limits.hold_s,
        )

    async def refuse(self, refusal: Refusal, ending: Ending = "refused") -> Bill:
        """End the record of a request that gets no answer; whatever it held is voided."""
        self.record.status = 200 if self.headers_sent else refusal.status
        self.record.code = refusal.code
        notify(self._engine.listeners, Refused(self.record.request_id, refusal.code))
        return await self._settle(ending, charge=None, usage=Usage(0, 0))

    async def abandon(self) -> None:
        """The client has gone, or the host has cancelled us: bill what the current attempt produced, if it was sent."""
        if self._settled:
            return
        self.record.status, self.record.code = 200 if self.headers_sent or self.output_sent else 499, None
        if self._attempts is not None and self._attempts.may_cost:
            await self._capture(self._attempts.current, "client_gone", None)
        else:
            await self._settle("client_gone", charge=None, usage=Usage(0, 0))

    # -- events ----------------------------------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[AnswerEvent, None]:
        """Give the answer's events. Close the generator in the task that reads it; that settles what is unsettled."""
        attempts = self._attempts = AttemptRunner(
            self._engine,
            self.record,
            self._call,
            self._route,
            self._sizes,
            granted_tokens=self._granted_tokens,
            deadline=self._deadline,
        )
        fault: UpstreamFault | None = None
        try:
            while (stop := attempts.next_attempt) is not None:
                if stop.delay_s:
                    await anyio.sleep(stop.delay_s)
                try:
                    async with aclosing(self._answer(stop, attempts)) as answer:
                        async for event in answer:
                            yield event
                    return
                except UpstreamFault as error:
                    fault = error
                attempts.failed(fault)
                if self.output_sent:
                    yield await self._cut_short(attempts.current)
                    return
                attempts.forget()
            yield await self._fail(fault, attempts)
        except Exception:
            await self._break()
            raise
        finally:
            attempts.close()
            await self.abandon()

    async def _answer(self, stop: PlannedAttempt, attempts: AttemptRunner) -> AsyncGenerator[AnswerEvent, None]:
        """Give one attempt's events; raise `UpstreamFault`. A plain answer's texts are held back until its end."""
        joiner, held = SurrogateJoiner(), []
        try:
            delta = await attempts.start(stop)
            attempt = attempts.current
            while True:
                attempt.meter.add(delta)
                texts = joiner.feed_all(delta.texts)
                finish = "max_tokens" if attempt.meter.exceeded_grant else delta.finish
                if finish and (half := joiner.flush()):
                    texts.append(half)
                if texts:
                    self._note_text(attempt.deployment)
                if finish:
                    break
                if texts and self._call.stream:
                    self.output_sent = True
                    yield Texts(texts)
                else:
                    held += texts
                delta = await attempt.next()
            # The terminal event has been read: the capture comes before even the text that came with it.
            attempts.succeeded()
            bill = await self._complete(attempt, finish)
            if held or texts:
                yield Texts(held + texts)
            yield Completed(bill, finish)
        finally:
            await attempts.close_current()

    def _note_text(self, deployment: Deployment) -> None:
        if self.record.first_text_ms is None:
            self.record.first_text_ms = after_ms = self._elapsed_ms()
            notify(self._engine.listeners, FirstText(self.record.request_id, deployment.id, after_ms))

    def _elapsed_ms(self) -> int:
        return round((anyio.current_time() - self._started) * 1000)

    # -- the ends --------------------------------------------------------------------------------------------------

    async def _complete(self, attempt: Attempt, finish: FinishReason) -> Bill:
        self.record.status = 200
        return await self._capture(attempt, "complete", finish)

    async def _cut_short(self, attempt: Attempt) -> Failed:
        """The upstream failed after the first text had left: what was produced is billed, and the stream says so."""
        self.record.status, self.record.code = 200, ErrorCode.PROVIDER_ERROR
        bill = await self._capture(attempt, "upstream_error", "error")
        return Failed(Refusal(ErrorCode.PROVIDER_ERROR, "The provider failed in the middle of the answer."), bill)

    async def _fail(self, fault: UpstreamFault | None, attempts: AttemptRunner) -> Failed:
        """Nothing has left: an error of its own status, and nothing is charged."""
        ending: Ending = "refused"
        if fault is None:
            retry_after_s = max(UNAVAILABLE_RETRY_AFTER_S, math.ceil(attempts.cool_down_left_s))
            message = f"Every deployment of this route is cooling down after failures. Retry after {retry_after_s} s."
            refusal = Refusal(ErrorCode.SERVICE_UNAVAILABLE, message, retry_after_s=retry_after_s)
        elif fault.fault is FaultKind.CONTEXT_LENGTH:
            message = "The input exceeds the context length of the model that serves this route. Send a shorter input."
            refusal = Refusal(ErrorCode.INPUT_TOO_LARGE, message)
        elif fault.fault is FaultKind.REJECTED:
            ending = "upstream_error"
            refusal = Refusal(ErrorCode.PROVIDER_ERROR, "The provider rejected the request; a retry would fail again.")
        else:
            ending = "upstream_error"
            refusal = Refusal(ErrorCode.PROVIDER_ERROR, "Every attempt at a provider failed. Retry later.")
        self.record.finish_reason = "error" if self.headers_sent else None
        bill = await self.refuse(refusal, ending)
        return Failed(refusal, bill)

    async def _break(self) -> None:
        """Something of ours failed: what had left is billed, the rest is free."""
        if self._settled:
            return
        self.record.code, self.record.status = ErrorCode.INTERNAL_ERROR, 200 if self.output_sent else 500
        if self.output_sent and self._attempts is not None:
            await self._capture(self._attempts.current, "internal_error", "error")
        else:
            await self._settle("internal_error", charge=None, usage=Usage(0, 0))

    async def _capture(self, attempt: Attempt, ending: Ending, finish: FinishReason | None) -> Bill:
        """Charge what an attempt produced, at the rate of the deployment that served."""
        meter, record = attempt.meter, self.record
        # Shielded: the count decides the bill, and a long text is counted in a thread, where cancellation could come.
        with anyio.CancelScope(shield=True):
            usage = await run_cpu_bound(meter.characters, meter.usage)
        record.finish_reason, record.estimated = finish, not meter.usage_is_complete
        record.input_tokens, record.output_tokens = usage.input_tokens, usage.output_tokens
        record.cached_tokens, record.reasoning_tokens = usage.cached_tokens, usage.reasoning_tokens
        charge = attempt.deployment.prices.charge(usage)
        return await self._settle(ending, charge=charge, usage=usage)

    def _owed(self, settlement: Settlement) -> Settlement:
        """Who has had nothing of the answer is told 503 now, and owes nothing."""
        record = self.record
        if self.output_sent or record.ending == "client_gone":
            return settlement
        record.status, record.code = 200 if self.headers_sent else 503, ErrorCode.SERVICE_UNAVAILABLE
        record.ending, record.finish_reason, record.estimated = "refused", None, False
        record.input_tokens = record.output_tokens = record.cached_tokens = record.reasoning_tokens = 0
        self.bill = Bill(Usage(0, 0), Microcredits(0), None)
        return replace(settlement, charge=None, tokens=0)

    async def _settle(self, ending: Ending, *, charge: Microcredits | None, usage: Usage) -> Bill:
        self.record.ending = ending
        self.record.total_ms = self._elapsed_ms()
        settlement = Settlement(
            self.record, self._caller.project.owner, self._day, self._engine.clock(), charge, usage.total_tokens
        )
        self._settled = True
        self.bill = Bill(usage, charge or Microcredits(0), None)
        try:
            settled = await settle(self._engine, settlement)
        except StoreUnavailable:
            self._engine.owed.append(self._owed(settlement))
            raise
        self.bill = Bill(usage, settled.hold.charged, settled.account.posted)
        return self.bill
