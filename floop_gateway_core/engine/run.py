"""One call, from its admission to its last event: the one path of every answer, streaming or not.

    admit     alias → route → size → both holds. A refusal leaves no hold.
    events    attempt after attempt along the route, until one answers. Nothing leaves before the first text (a stream) or
              the terminal event (a plain answer). Until then a failure is followed by a retry or a failover that the client
              does not see; afterwards it ends the answer.
    settle    at the terminal event, before the usage is reported; else when the events are closed.

`closing` keeps the request's usage record, and settles it exactly once.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from floop_gateway_core.concurrency.detached import DetachedResult
from floop_gateway_core.concurrency.wait import clock_of_event_loop
from floop_gateway_core.engine.answers import AnswerLog
from floop_gateway_core.engine.assess import choose_alias, estimate_input
from floop_gateway_core.engine.attempt import Attempt
from floop_gateway_core.engine.attempt_runner import AttemptRunner
from floop_gateway_core.engine.closing import Asked, Closing
from floop_gateway_core.engine.content import Content, content_of
from floop_gateway_core.engine.refusals import (
    INTERNAL_ERROR,
    STOPPING,
    cannot,
    cooling_down,
    refusal_of,
)
from floop_gateway_core.engine.routing import Caller, Deployment, Plan, Runtime
from floop_gateway_core.engine.schedule import PlannedAttempt
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.observability.events import (
    Admitted,
    FirstText,
    Notifier,
    Refused,
    RequestStarted,
)
from floop_gateway_core.policy.admission import Held, HoldEstimate, hold_refusal, size_refusal
from floop_gateway_core.policy.budget import utc_day
from floop_gateway_core.policy.idempotency import Claim
from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.policy.routes import AUTO
from floop_gateway_core.policy.tokens.estimate import TokenEstimate
from floop_gateway_core.providers.base import Delta, UpstreamFault
from floop_gateway_core.stores.base import HoldRequest
from floop_gateway_core.types import (
    AnswerEvent,
    Bill,
    Call,
    Completed,
    Ending,
    Failed,
    FinishReason,
    Project,
    RequestId,
    Texts,
    UsageRecord,
)
from floop_gateway_core.wire.messages import Headers
from floop_gateway_core.wire.surrogates import SurrogateJoiner

__all__ = ["Run"]

log = logging.getLogger("floop_gateway")

MAX_LOGGED_ALIAS = 100
"""Characters of an alias that the log keeps."""
READ_ON_S = 5.0
"""How long to keep reading an answer after its client has left, to get the report of hidden thinking."""
MAX_CHUNKS_WITHOUT_PAUSE = 16
"""After this many chunks without waiting, other tasks get their turn and a disconnect is noticed."""


class Run:
    """Call `admit`; if it returns no refusal, read `events` and close them. `closing` has the record and the bill.

    If the client leaves during an answer with hidden thinking, and was admitted with `reads_on`, the answer is read to its
    usage report and settled afterwards.
    """

    def __init__(self, runtime: Runtime, caller: Caller, asked: Asked) -> None:
        self.routing = runtime.routing
        self.request_id = asked.request_id
        self.endpoint = asked.endpoint
        self.dialect = asked.dialect
        self._runtime = runtime
        self._caller = caller
        self._clock = clock_of_event_loop()
        self._deadline = self._clock() + self.routing.limits.total_s
        self._notifier = Notifier(runtime.listeners)
        self.closing = Closing(
            runtime, caller, asked, self._notifier, self._clock, settle_s=self.routing.limits.settle_s
        )
        self._call: Call | None = None
        self._route: list[Deployment] = []
        self._sizes: dict[str, TokenEstimate] = {}
        self._granted_tokens = 0
        self._reads_on = False
        self._is_read_on = False
        self._attempts: AttemptRunner | None = None

    @property
    def record(self) -> UsageRecord:
        """The usage record as it stands."""
        return self.closing.record

    @property
    def project(self) -> Project:
        """The project that the request belongs to."""
        return self._caller.project

    @property
    def plan(self) -> Plan:
        """The limits of the caller."""
        return self._caller.plan

    # -- admission -------------------------------------------------------------------------------------------------

    async def begin(self, trace: Headers = ()) -> None:
        """Notify the listeners that the request has started."""
        self._notifier.notify(
            RequestStarted, self.request_id, self.project.name, self.dialect, self.endpoint, tuple(trace)
        )
        await self._notifier.flush()

    def note_call(self, call: Call, *, replay_of: RequestId | None = None) -> None:
        """Note what was asked for, and whose answer is replayed for it."""
        self.closing.note(alias=_logged(call.alias), streamed=call.stream, replay_of=replay_of, tags=call.tags)

    def claim(self, claim: Claim, answer_log: AnswerLog) -> None:
        """Let this request claim an idempotency key, and keep its answer."""
        self.closing.claim, self.closing.answer_log = claim, answer_log

    async def admit(self, call: Call, *, reads_on: bool = False) -> Refusal | None:
        """Decide everything that comes before an upstream is asked. A refusal must still be passed to `refuse`."""
        self._call = self.closing.call = call
        self._reads_on = reads_on
        self.note_call(call)
        if (refusal := await self._choose_route(call)) is not None:
            return refusal
        self._sizes = dict(await estimate_input(call, (deployment.vocabulary for deployment in self._route)))
        expected = self._sizes[self._route[0].vocabulary].expected
        if refusal := size_refusal(expected, self._caller.plan.input_tokens):
            return refusal
        request = self._hold_request(call)
        held = await self._runtime.stores.ledger.hold(request)
        if not isinstance(held, Held):
            return hold_refusal(held, self._runtime.clock())
        self._granted_tokens = held.output_tokens
        route = tuple(deployment.id for deployment in self._route)
        self._notifier.notify(
            Admitted, self.request_id, self.project.name, route, held.held_tokens, held.held_microcredits
        )
        await self._notifier.flush()
        return None

    async def _choose_route(self, call: Call) -> Refusal | None:
        routing, models = self.routing, self._caller.plan.models
        if refusal := routing.routes.alias_refusal(call.alias, models):
            return refusal
        resolved, reasons = call.alias, None
        if call.alias == AUTO:
            judged = await choose_alias(routing, call)
            resolved, reasons = routing.routes.nearest(judged.alias, models), judged.reasons
        self.closing.note(resolved_alias=resolved, auto_reasons=reasons)
        whole = [routing.deployments[name] for name in routing.routes.resolve(resolved)]
        lacks = [deployment.lacks(call) for deployment in whole]
        self._route = [deployment for deployment, lack in zip(whole, lacks, strict=True) if lack is None]
        return None if self._route or lacks[0] is None else cannot(lacks[0])

    def ignored(self, call: Call) -> tuple[str, ...]:
        """Return the members of a call that the deployment to be asked first has no use for."""
        return self._route[0].ignored(call) if self._route else ()

    async def count(self, call: Call) -> int | Refusal:
        """Return the estimated input tokens for the deployment that would be asked first."""
        if (refusal := await self._choose_route(call)) is not None:
            return refusal
        vocabulary = self._route[0].vocabulary
        return (await estimate_input(call, [vocabulary]))[vocabulary].expected

    def _hold_request(self, call: Call) -> HoldRequest:
        """Hold the most that any deployment of the route can cost: input bound, granted output, thinking allowance."""
        plan = self._caller.plan
        wanted = min(call.max_tokens or plan.output_tokens, plan.output_tokens)
        worst = [(self._sizes[one.vocabulary].upper, one.thinking_allowance(call)) for one in self._route]
        costs = tuple(one.prices.cost_line(*case) for one, case in zip(self._route, worst, strict=True))
        now = self._runtime.clock()
        self.closing.day = utc_day(now)
        return HoldRequest(
            record=self.record,
            owner=self._caller.project.owner,
            day=self.closing.day,
            budget_tokens=plan.daily_tokens,
            estimate=HoldEstimate(max(map(sum, worst)), wanted, costs),
            now=self._runtime.time_for_expiry(),
            expires_at=now + self.routing.limits.hold_s,
            claim=self.closing.claim,
        )

    async def refuse(self, refusal: Refusal, ending: Ending = "refused") -> Bill:
        """End a request that gets no answer, and void its holds."""
        self._notifier.notify(Refused, self.request_id, refusal.code)
        return await self.closing.close(ending, refusal=refusal)

    async def replay(self, finish: FinishReason | None, refusal: Refusal | None) -> None:
        """End a request that gets another one's answer: up to its end, or to where it failed."""
        await self.closing.close("replayed", finish=finish, refusal=refusal)

    async def close(self) -> None:
        """End the request if it has not ended: the client has gone, or the host has cancelled it.

        What the current attempt produced is billed, if it was sent.
        """
        if self.closing.settled or self._is_read_on:
            return
        attempt = self._attempts.current if self._attempts is not None and self._attempts.may_cost else None
        if attempt is not None:
            allowance = 0 if self._call is None else attempt.deployment.thinking_allowance(self._call)
            attempt.meter.cut_short(self._runtime.expected_reasoning(attempt.deployment, allowance))
        await self.closing.close("client_gone", attempt=attempt)

    async def _read_on(self, attempts: AttemptRunner, starting: DetachedResult[Delta] | None) -> None:
        """Keep reading an answer for its usage report after the client has left, then settle. Runs in its own task."""
        try:
            with anyio.move_on_after(READ_ON_S):
                first = None if starting is None else await _first_delta(starting)
                await attempts.current.read_on(READ_ON_S, first)
        except UpstreamFault as fault:
            if fault.fault is not FaultKind.OUT_OF_TIME:  # a client that had stayed would pay nothing
                attempts.failed(fault)
                attempts.forget()
        finally:
            with anyio.CancelScope(shield=True):
                if starting is not None:
                    await starting.cancel()
                await attempts.close_current()
                self._is_read_on = False
                await self._end(attempts)

    # -- events ----------------------------------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the answer's events. Close the generator in the task that reads it; that settles what is unsettled."""
        if self._call is None:
            raise RuntimeError("the call was not admitted")
        attempts = self._attempts = self.closing.attempts = AttemptRunner(
            self._runtime,
            self.routing,
            self._notifier,
            self.request_id,
            self._call,
            self._route,
            self._sizes,
            granted_tokens=self._granted_tokens,
            deadline=self._deadline,
            clock=self._clock,
            suspect=self.project.id if self._runtime.has_several_projects else None,
        )
        fault: UpstreamFault | None = None
        self._runtime.runs.add(self)
        try:
            while (planned := attempts.next_attempt) is not None:
                if planned.delay_s:
                    await anyio.sleep(planned.delay_s)
                if self._runtime.stopping:
                    break
                try:
                    async with aclosing(self._answer(planned, attempts, self._call)) as answer:
                        async for event in answer:
                            yield event
                    return
                except UpstreamFault as error:
                    fault = error
                attempts.failed(fault)
                if self.closing.output_sent:
                    yield await self._fail_mid_stream(attempts.current)
                    return
                attempts.forget()
            yield await self._fail_before_output(fault, attempts)
        except Exception:
            await self._fail_internally()
            raise
        finally:
            if not self._is_read_on:
                await self._end(attempts)

    async def _end(self, attempts: AttemptRunner) -> None:
        self._runtime.runs.discard(self)
        attempts.close()
        await self.close()

    def stop(self) -> None:
        """End the answer because the server stops: what has been sent is billed, the rest is free."""
        if self._attempts is not None:
            self._attempts.stop()

    async def _answer(
        self, planned: PlannedAttempt, attempts: AttemptRunner, call: Call
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Yield one attempt's events; raise `UpstreamFault`. A plain answer's content is held back until its end."""
        joiner, held = SurrogateJoiner(), list[Content]()
        stream, shows_thinking = call.stream, call.shape.shows_thinking
        started, chunks = False, 0
        starting: DetachedResult[Delta] | None = None
        try:
            if self._reads_on and attempts.starts_apart and planned.deployment.thinking_allowance(call):
                starting = DetachedResult(self._runtime.tasks, partial(attempts.start, planned))
                delta = await _first_delta(starting)
                starting = None
            else:
                delta = await attempts.start(planned)
            attempt = attempts.current
            while True:
                attempt.meter.add(delta)
                content = content_of(delta.items, joiner, shows_thinking=shows_thinking)
                finish = "max_tokens" if attempt.meter.exceeded_grant else delta.finish
                if finish and (half := joiner.flush()):
                    content.append(Texts([half]))
                if content:
                    await self._note_text(attempts)
                if finish:
                    break
                if content and stream:
                    events = self._events_of(attempt, content, started)
                    started = self.closing.output_sent = True
                    for event in events:
                        yield event
                else:
                    held += content
                    chunks += 1
                    if chunks % MAX_CHUNKS_WITHOUT_PAUSE == 0:
                        await checkpoint()
                delta = await attempt.next()
            # The terminal event has been read: the capture comes first, even before the text in the same chunk.
            attempts.succeeded()
            events = self._events_of(attempt, held + content, started)
            bill = await self.closing.close("complete", attempt=attempt, finish=finish)
            self._runtime.note_reasoning(attempt.deployment, bill.usage)
            for event in events:
                yield event
            yield Completed(bill, finish)
        except Exception:
            raise
        except BaseException:  # the client has left, or this is cancelled
            if self._reads_on and attempts.hides_thinking and not self.closing.settled:
                self._is_read_on = True
                self._runtime.tasks.start(partial(self._read_on, attempts, starting))
            elif starting is not None:
                with anyio.CancelScope(shield=True):
                    await starting.cancel()
            raise
        finally:
            if not self._is_read_on:
                await attempts.close_current()

    def _events_of(self, attempt: Attempt, content: list[Content], started: bool) -> list[AnswerEvent]:
        """Return the content as events, preceded by `Started` for the first one; keep them for replays."""
        events = list[AnswerEvent]()
        if not started:
            events.append(attempt.meter.started(attempt.deployment.id))
        events += content
        if (kept := self.closing.answer_log) is not None:
            kept.add(events)
        return events

    async def _note_text(self, attempts: AttemptRunner) -> None:
        if attempts.first_text_ms is None:
            attempts.first_text_ms = after_ms = self.closing.elapsed_ms
            self._notifier.notify(FirstText, self.request_id, attempts.current.deployment.id, after_ms)
            await self._notifier.flush()

    # -- the ends --------------------------------------------------------------------------------------------------

    async def _fail_mid_stream(self, attempt: Attempt) -> Failed:
        """Bill what was produced: the upstream failed after the first text had left."""
        if self._runtime.stopping:
            return Failed(STOPPING, await self.closing.close("internal_error", attempt=attempt, refusal=STOPPING))
        refusal = Refusal(ErrorCode.PROVIDER_ERROR, "The provider failed in the middle of the answer.")
        return Failed(refusal, await self.closing.close("upstream_error", attempt=attempt, refusal=refusal))

    async def _fail_before_output(self, fault: UpstreamFault | None, attempts: AttemptRunner) -> Failed:
        """End with an error's status: nothing was sent, and nothing is charged."""
        if self._runtime.stopping:
            return Failed(STOPPING, await self.refuse(STOPPING, "internal_error"))
        if fault is None:
            refusal = cooling_down(attempts.cool_down_left_s)
            return Failed(refusal, await self.refuse(refusal))
        refusal = refusal_of(fault, self.dialect)
        ending: Ending = "refused" if fault.fault is FaultKind.CONTEXT_LENGTH else "upstream_error"
        return Failed(refusal, await self.refuse(refusal, ending))

    async def _fail_internally(self) -> None:
        """Bill what has been sent; the rest is free because the failure is the gateway's."""
        if self.closing.settled:
            return
        attempt = self._attempts.current if self.closing.output_sent and self._attempts is not None else None
        await self.closing.close("internal_error", attempt=attempt, refusal=INTERNAL_ERROR)


async def _first_delta(starting: DetachedResult[Delta]) -> Delta:
    delta = await starting.result()
    if delta is None:
        raise UpstreamFault(FaultKind.OUT_OF_TIME, "the gateway is stopping")
    return delta


def _logged(alias: str) -> str:
    """Return the alias as the log has it: short, and without control characters."""
    return "".join(one if one.isprintable() else "\ufffd" for one in alias[:MAX_LOGGED_ALIAS])
