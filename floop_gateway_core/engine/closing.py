"""The end of one request: what its record says, what is charged for it, and its settlement, exactly once.

`endings` decides what each way of ending means for the record; `settle` brings it to the store.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from floop_gateway_core.engine.answers import AnswerLog
from floop_gateway_core.engine.assess import run_cpu_bound
from floop_gateway_core.engine.attempt import Attempt
from floop_gateway_core.engine.attempt_runner import AttemptRunner
from floop_gateway_core.engine.endings import Sent, outcome
from floop_gateway_core.engine.refusals import STORE_UNAVAILABLE
from floop_gateway_core.engine.routing import Caller, Runtime
from floop_gateway_core.engine.settle import retry_soon, settle
from floop_gateway_core.errors import Refusal
from floop_gateway_core.money import format_credits
from floop_gateway_core.observability.events import BudgetNearlyUsed, Notifier, PendingSettlements, Refused
from floop_gateway_core.observability.events import Settled as SettledEvent
from floop_gateway_core.policy.budget import is_nearly_used, utc_day
from floop_gateway_core.policy.idempotency import Claim
from floop_gateway_core.stores.base import Settlement, StoreUnavailable
from floop_gateway_core.types import (
    Bill,
    Call,
    Ending,
    Endpoint,
    FinishReason,
    Microcredits,
    RequestId,
    Usage,
    UsageRecord,
)
from floop_gateway_core.types.amounts import ZERO_CREDITS

__all__ = ["NO_BILL", "Asked", "Closing"]

log = logging.getLogger("floop_gateway")

NO_USAGE = Usage(0, 0)
NO_BILL = Bill(NO_USAGE, ZERO_CREDITS, None)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request when it begins. `started_at` is in epoch seconds."""

    request_id: RequestId
    key_prefix: str | None
    endpoint: Endpoint
    started_at: float
    dialect: str


class Closing:
    """Keeps a request's record from its beginning, and ends it with `close`.

    `headers_sent` and `output_sent` are what the client has been sent; `call`, `attempts`, `day`, `claim` and `answer_log`
    are set by the run once it has them. `clock` is the event loop's, on which the request's duration is measured.
    """

    def __init__(
        self,
        runtime: Runtime,
        caller: Caller,
        asked: Asked,
        notifier: Notifier,
        clock: Callable[[], float],
        *,
        settle_s: float,
    ) -> None:
        project = caller.project
        self._fields: dict[str, object] = {
            "request_id": asked.request_id,
            "project_id": project.id,
            "project": project.name,
            "key_prefix": asked.key_prefix,
            "endpoint": asked.endpoint,
            "started_at": asked.started_at,
            "dialect": asked.dialect,
        }
        self._record: UsageRecord | None = None
        self._runtime = runtime
        self._caller = caller
        self._notifier = notifier
        self._clock = clock
        self._started = clock()
        self._settle_s = settle_s
        self._id = asked.request_id
        self.headers_sent = False
        self.output_sent = False
        self.bill = NO_BILL
        self.settled = False
        self.day = utc_day(asked.started_at)  # until admission, whose day it is
        self.call: Call | None = None
        self.attempts: AttemptRunner | None = None
        self.claim: Claim | None = None
        self.answer_log: AnswerLog | None = None
        self.store_failed = False

    @property
    def record(self) -> UsageRecord:
        """The usage record as it stands."""
        if self._record is None:
            self._record = UsageRecord(**self._fields)  # type: ignore[arg-type]
        return self._record

    def note(self, **fields: object) -> None:
        """Set fields of the record. The record is rebuilt when it is next read, because building it is expensive."""
        self._fields.update(fields)
        self._record = None

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the request began."""
        return round((self._clock() - self._started) * 1000)

    @property
    def sent(self) -> Sent:
        """What the client has been sent so far."""
        if self.output_sent:
            return Sent.OUTPUT
        return Sent.HEAD if self.headers_sent else Sent.NOTHING

    async def close(
        self,
        ending: Ending,
        *,
        attempt: Attempt | None = None,
        refusal: Refusal | None = None,
        finish: FinishReason | None = None,
    ) -> Bill:
        """Finish the record and settle it: charge what `attempt` produced, or void if there is none."""
        usage, charge, estimated = NO_USAGE, None, False
        if attempt is not None:
            usage = await run_cpu_bound(attempt.meter.characters, attempt.meter.usage, shield=True)
            charge, estimated = attempt.deployment.prices.charge(usage), not attempt.meter.usage_is_complete
        self._finish(ending, usage, charge=charge, estimated=estimated, refusal=refusal, finish=finish)
        answer = None if self.answer_log is None else self.answer_log.encode(usage, finish, refusal)
        if self._runtime.listeners and attempt is not None and self.call is not None and self._notifier.wants_content:
            self._notifier.content(self._id, self.call, attempt.meter.text)
        return await self._settle(charge, usage, answer)

    def _finish(
        self,
        ending: Ending,
        usage: Usage,
        *,
        charge: Microcredits | None = None,
        estimated: bool = False,
        refusal: Refusal | None = None,
        finish: FinishReason | None = None,
    ) -> None:
        """Finish the record: the only place that decides what the log says."""
        end = outcome(ending, self.sent, refusal=refusal, finish=finish)
        attempts = self.attempts
        self.note(
            deployment=None if attempts is None else attempts.deployment,
            attempts=0 if attempts is None else attempts.made,
            first_text_ms=None if attempts is None else attempts.first_text_ms,
            status=end.status,
            code=end.code,
            finish_reason=end.finish_reason,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            microcredits=charge or ZERO_CREDITS,
            estimated=estimated,
            total_ms=self.elapsed_ms,
            settled_at=self._runtime.clock(),
            attempt_list=() if attempts is None else tuple(attempts.records),
            ending=ending,
        )

    async def _settle(self, charge: Microcredits | None, usage: Usage, answer: bytes | None) -> Bill:
        owner, now = self._caller.project.owner, self._runtime.clock()
        settlement = Settlement(self.record, owner, self.day, now, charge, usage.total_tokens, self.claim, answer)
        self.settled = True
        self.bill = Bill(usage, charge or ZERO_CREDITS, None)
        try:
            settled = await settle(self._runtime, settlement, self._settle_s, store_failed=self.store_failed)
        except StoreUnavailable:
            self._runtime.pending_settlements.append(self._pending(settlement))
            self._notifier.notify(PendingSettlements, len(self._runtime.pending_settlements), self._id)
            if self.record.ending == "refused" and settlement.record.code is None:
                self._notifier.notify(Refused, self._id, STORE_UNAVAILABLE.code)  # the answer was there, but unpaid
            await self._notifier.flush()
            if not self.store_failed:
                raise
            settled = None
        if self.store_failed:
            retry_soon(self._runtime)
        if settled is None:  # it waits for the store; what is left of the account is not known
            self._log()
            return self.bill
        if settled.hold.charged != settlement.record.microcredits:
            self.note(microcredits=settled.hold.charged)
        self.bill = Bill(usage, settled.hold.charged, settled.account.posted)
        self._log()
        self._note_budget(settled.day_tokens, usage.total_tokens)
        self._notifier.notify(SettledEvent, self.record)
        await self._notifier.flush()
        return self.bill

    def _note_budget(self, used: int | None, tokens: int) -> None:
        """Notify the listeners if these tokens have taken the project past 80 % of its day; `used` is the day's so far."""
        budget = self._caller.plan.daily_tokens
        if self._runtime.listeners and used is not None and is_nearly_used(budget, used, used - tokens):
            self._notifier.notify(BudgetNearlyUsed, self._id, self._caller.project.name, self.day, used, budget)

    def _log(self) -> None:
        """Log the request in one line."""
        if not log.isEnabledFor(logging.INFO):
            return
        record = self.record
        log.info(
            "request %s: project=%s alias=%s deployment=%s status=%s code=%s tokens=%d+%d credits=%s ms=%s",
            record.request_id,
            record.project,
            record.alias,
            record.deployment,
            record.status,
            record.code,
            record.input_tokens,
            record.output_tokens,
            format_credits(record.microcredits),
            record.total_ms,
            extra={"usage": record},
        )

    def _pending(self, settlement: Settlement) -> Settlement:
        """Return the settlement to make later. A client that has had no output gets 503 now and pays nothing."""
        if self.record.ending == "client_gone":
            return settlement
        if self.output_sent:
            if self.record.ending == "complete":  # the stream is about to end in an error frame instead
                end = outcome("internal_error", self.sent, refusal=STORE_UNAVAILABLE)
                self.note(ending="internal_error", code=end.code, finish_reason=end.finish_reason)
                if self.answer_log is not None:
                    answer = self.answer_log.encode(self.bill.usage, None, STORE_UNAVAILABLE)
                    return replace(settlement, record=self.record, answer=answer)
            return replace(settlement, record=self.record)
        self._finish("refused", NO_USAGE, refusal=STORE_UNAVAILABLE)
        self.bill = NO_BILL
        return replace(settlement, record=self.record, charge=None, tokens=0, answer=None)
