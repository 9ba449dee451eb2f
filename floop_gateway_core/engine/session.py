"""One caller's call, from key to settlement. HTTP exchanges and in-process calls are both driven through a session.

    open      key and rate. From here on there is one usage record, and `close` settles it if nothing else has.
    admit     the call: alias, size, both holds
    events    the answer
    fail      an unexpected error, as a refusal

Every refusal that these return has been recorded.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import assert_never

import anyio

from floop_gateway_core.clock import new_request_id
from floop_gateway_core.engine.answers import SharedAnswer, decode
from floop_gateway_core.engine.gate import UNAUTHORIZED, UNKNOWN_PROJECT, AsProject, Gate
from floop_gateway_core.engine.host_checks import checked
from floop_gateway_core.engine.refusals import COMPATIBLE, INTERNAL_ERROR, STOPPING, STORE_UNAVAILABLE
from floop_gateway_core.engine.run import Run
from floop_gateway_core.errors import ErrorCode, Refusal, StoreUnavailable
from floop_gateway_core.observability.events import Notifier
from floop_gateway_core.observability.events import Refused as NotifiedRefusal
from floop_gateway_core.observability.request_id import request_id
from floop_gateway_core.policy.admission import rate_refusal
from floop_gateway_core.policy.idempotency import (
    BAD_KEY,
    MISMATCH,
    NOT_KEPT,
    Claim,
    KeptAnswer,
    digest_of,
    is_valid_key,
    refusal_of,
)
from floop_gateway_core.policy.rate_window import RateDecision
from floop_gateway_core.types import (
    AnswerEvent,
    Bill,
    Call,
    Completed,
    Ending,
    Endpoint,
    Failed,
    Pieces,
    ProjectId,
    RequestId,
    Started,
    Texts,
)
from floop_gateway_core.wire.messages import Headers

__all__ = ["CallSession"]

log = logging.getLogger("floop_gateway")

PRODUCER_GRACE_S = 1.0
"""Extra time for an answer with a key, so that the engine's own end comes first."""
CROWDED = Refusal(
    ErrorCode.RATE_LIMITED,
    "All threads of this server but one are busy with answers. Retry when one has ended.",
    retry_after_s=1,
)
SUSPENDED = Refusal(ErrorCode.PROJECT_SUSPENDED, "The project is suspended. Its owner or the operator can resume it.")


class CallSession:
    """One request. `run` and `decision` are None until `open` knows the caller."""

    def __init__(self, gate: Gate, dialect: str) -> None:
        self._gate = gate
        self._dialect = dialect
        self.now = gate.runtime.clock()
        self.request_id = new_request_id(self.now)
        request_id.set(self.request_id)
        self.run: Run | None = None
        self.decision: RateDecision | None = None
        self._entered: ProjectId | None = None
        self._shared: SharedAnswer | None = None
        self._is_handed_over = False
        self._shared_bill: Bill | None = None

    async def open(
        self,
        caller: str | AsProject | None,
        endpoint: Endpoint,
        *,
        has_key: bool = False,
        is_crowded: bool = False,
        trace: Headers = (),
    ) -> Refusal | None:
        """Authenticate the caller, by a key or as a project, and spend one request of its rate.

        A request with an idempotency key counts as open only once it is known to be the first with that key. `trace` is
        passed to the listeners.
        """
        if self._gate.runtime.stopping:
            return await self._turn_away(STOPPING)
        admitted = await self._gate.admit_caller(caller, endpoint, self.request_id, self.now, self._dialect)
        if admitted is None:
            return await self._turn_away(UNKNOWN_PROJECT if isinstance(caller, AsProject) else UNAUTHORIZED)
        self.run, self.decision = admitted.run, admitted.decision
        refusal = SUSPENDED if admitted.is_suspended else None
        if admitted.decision is not None:
            refusal = rate_refusal(admitted.decision)
        if refusal is not None and (shared := await self._share(admitted.run, refusal)) is not None:
            self.run = None  # the refusal is counted in another request's record
            await self._turn_away(refusal)
            return replace(refusal, extra_headers=(*refusal.extra_headers, ("X-Record-Id", shared)))
        await self.run.begin(trace)
        if refusal is None:
            await self._gate.runtime.keep_house()
            refusal = CROWDED if is_crowded else None if has_key else self._enter(admitted.run)
        return None if refusal is None else await self.refuse(refusal)

    async def _turn_away(self, refusal: Refusal) -> Refusal:
        """Notify the listeners of a refusal that has no record of its own, and return it."""
        notifier = Notifier(self._gate.runtime.listeners)
        notifier.notify(NotifiedRefusal, self.request_id, refusal.code)
        await notifier.flush()
        return refusal

    async def _share(self, run: Run, refusal: Refusal) -> RequestId | None:
        """Count a refusal at the gate; return the id of the record that it shares, or None if it has its own."""
        runtime = self._gate.runtime
        return await runtime.refusals.note(
            run.record, refusal, runtime.stores.ledger, now=self.now, monotonic=runtime.monotonic()
        )

    def _enter(self, run: Run) -> Refusal | None:
        """Count the request as open in its project, or refuse it: one project must not use up the whole process."""
        most = run.plan.concurrency
        open_requests = self._gate.runtime.open_requests
        project = run.project.id
        if open_requests[project] >= most:
            message = f"The project has {most} requests open at once, which is its limit. Retry when one has ended."
            return Refusal(ErrorCode.RATE_LIMITED, message, retry_after_s=1)
        open_requests[project] += 1
        self._entered = project
        return None

    def named(self, call: Call) -> Call:
        """Return the call with its alias resolved: from a mapped name, or the plan's default if it names no model."""
        run = self._known()
        if not call.names_model:
            return replace(call, alias=run.routing.routes.default(run.plan.models), names_model=True)
        if self._dialect in COMPATIBLE and (target := run.routing.mapped(call.alias)) is not None:
            return replace(call, alias=target, asked=call.alias)
        return call

    @property
    def models(self) -> Sequence[str]:
        """The names that the caller may ask for."""
        run = self._known()
        return run.routing.names_for(run.plan)

    @property
    def answer_id(self) -> RequestId:
        """The id of the request whose answer this is: another one's for a replay."""
        return self.request_id if self._shared is None else self._shared.request_id

    async def count(self, call: Call) -> int | Refusal:
        """Return the estimated input tokens for the deployment that would be asked first."""
        return await self._known().count(call)

    async def forget(self) -> None:
        """End a request that needs no call: it has spent one of its rate, and leaves no record."""
        self.run = None
        self._leave()

    async def admit(self, call: Call, key: str | None = None, *, reads_on: bool = False) -> Refusal | None:
        """Admit the call: afterwards there are holds, or a refusal, or another request's answer to `key`.

        `reads_on` means that nobody waits for the bill of an abandoned answer, so its usage report may be awaited.
        """
        if key is not None:
            return await self._admit_with_key(call, key)
        run = self._known()
        refusal = await self._admitted(run, call, reads_on=reads_on)
        return None if refusal is None else await self.refuse(refusal)

    async def _admitted(self, run: Run, call: Call, *, reads_on: bool = False) -> Refusal | None:
        """Ask the host, then the policy."""
        check = self._gate.runtime.before_call
        if check is not None:
            found = await checked(check, call, run.project)
            if isinstance(found, Refusal):
                run.note_call(call)
                return found
            call = replace(found, stream=call.stream)  # what has been promised to the client
        return await run.admit(call, reads_on=reads_on)

    async def _admit_with_key(self, call: Call, key: str) -> Refusal | None:
        run, answers = self._known(), self._gate.runtime.answers
        if not is_valid_key(key):
            return await self.refuse(BAD_KEY)
        project, claim = run.project.id, Claim(key, digest_of(call, run.dialect))
        shared = answers.get(project, key)
        if shared is None:
            kept = await self._gate.runtime.stores.ledger.kept_answer(project, key, self.now)
            shared = answers.get(project, key)  # another request may have begun meanwhile
            if shared is None and kept is not None:
                return await self._replay(call, claim, kept)
        if shared is not None:
            if shared.digest != claim.digest:
                return await self.refuse(MISMATCH)
            if shared.log.is_too_long:
                return await self.refuse(NOT_KEPT)
            run.note_call(call, replay_of=shared.request_id)
        else:
            if (refusal := self._enter(run)) is not None:
                return await self.refuse(refusal)
            shared = SharedAnswer(self.request_id, claim.digest)
            run.claim(claim, shared.log)
            self._is_handed_over = True
            answers.start(project, key, shared, lambda answer: self._produce(call, answer))
        self._shared = shared
        refusal = await shared.decided()
        return None if refusal is None else await self.refuse(refusal)

    async def _replay(self, call: Call, claim: Claim, kept: KeptAnswer) -> Refusal | None:
        """Let `events` return what the store has kept for the key, or refuse."""
        if (refusal := refusal_of(kept, claim)) is not None:
            return await self.refuse(refusal)
        self._known().note_call(call, replay_of=kept.request_id)
        self._shared = SharedAnswer(kept.request_id, kept.digest, decode(kept), ended=True)
        return None

    async def _produce(self, call: Call, answer: SharedAnswer) -> None:
        """Run the call to its end, even if no client is left."""
        run, refusal = self._known(), STOPPING
        try:
            with anyio.fail_after(run.routing.limits.total_s + PRODUCER_GRACE_S):
                if (refused := await self._admitted(run, call)) is not None:
                    await run.refuse(refused)
                    refusal = refused
                    return
                answer.admit()
                async with aclosing(run.events()) as events:
                    async for event in events:
                        answer.add(event)
        except Exception as error:
            refusal = await self._failed(error)
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await run.close()
                finally:
                    answer.end(refusal, run.closing.bill)
                    self._leave()

    def ignored(self, call: Call) -> tuple[str, ...]:
        """Return the members of a call that the deployment to be asked first has no use for."""
        return () if self.run is None else self.run.ignored(call)

    @property
    def is_replay(self) -> bool:
        """Return whether the answer is another request's."""
        return self._shared is not None and not self._is_handed_over

    async def refuse(self, refusal: Refusal, ending: Ending = "refused") -> Refusal:
        """Record a refusal, and return it."""
        if not self._is_handed_over:
            await self._known().refuse(refusal, ending)
        return refusal

    def events(self) -> AsyncGenerator[AnswerEvent, None]:
        """Return the answer's events; close the generator in the task that reads it."""
        return self._known().events() if self._shared is None else self._read(self._shared)

    async def _read(self, shared: SharedAnswer) -> AsyncGenerator[AnswerEvent, None]:
        """Yield a shared answer's events; a request that replays it ends with it."""
        run = self._known()
        async with aclosing(shared.read()) as events:
            async for event in events:
                match event:
                    case Completed(bill, finish):
                        self._shared_bill = bill
                        if self.is_replay:
                            await run.replay(finish, None)
                    case Failed(refusal, bill):
                        self._shared_bill = bill
                        if self.is_replay:
                            await (run.replay(None, refusal) if run.closing.output_sent else run.refuse(refusal))
                    case Texts() | Pieces():
                        run.closing.output_sent = True
                    case Started():
                        pass
                    case _:
                        assert_never(event)
                yield event

    async def fail(self, error: Exception) -> Refusal:
        """Return the refusal for an unexpected failure, and record it if the store allows."""
        if self._is_handed_over:  # the task that produces the answer records how it ends
            return STORE_UNAVAILABLE if isinstance(error, StoreUnavailable) else INTERNAL_ERROR
        return await self._failed(error)

    async def _failed(self, error: Exception) -> Refusal:
        if isinstance(error, StoreUnavailable):
            log.warning("request %s: the store does not answer: %s", self.request_id, error)
            refusal, ending = STORE_UNAVAILABLE, "refused"
        else:
            log.error("request %s failed", self.request_id, exc_info=error)
            refusal, ending = INTERNAL_ERROR, "internal_error"
        run = self.run
        if run is None:
            await self._turn_away(refusal)
        elif not run.closing.settled:
            run.closing.store_failed = refusal is STORE_UNAVAILABLE
            try:
                await run.refuse(refusal, "refused" if ending == "refused" else "internal_error")
            except Exception:
                log.exception("request %s could not be recorded", self.request_id)
        elif run.record.code in (ErrorCode.INTERNAL_ERROR, ErrorCode.SERVICE_UNAVAILABLE):
            # The run has already ended the record; the client gets the same refusal.
            return STORE_UNAVAILABLE if run.record.code is ErrorCode.SERVICE_UNAVAILABLE else INTERNAL_ERROR
        return refusal

    async def close(self) -> None:
        """Settle the call unless that has happened."""
        if self._is_handed_over:
            return
        try:
            if self.run is not None:
                await self.run.close()
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._entered is not None:
            open_requests = self._gate.runtime.open_requests
            open_requests[self._entered] -= 1
            if open_requests[self._entered] <= 0:
                del open_requests[self._entered]
            self._entered = None

    @property
    def bill(self) -> Bill | None:
        """The bill so far; final after the end."""
        if self._shared_bill is not None:
            return self._shared_bill
        return None if self.run is None else self.run.closing.bill

    def _known(self) -> Run:
        if self.run is None:
            raise RuntimeError("the session is not open")
        return self.run
