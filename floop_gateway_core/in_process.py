"""Calls within the process: the host's own code calls the gateway with a project's key, without HTTP.

    answer = await gateway.chat(key, messages)

    async with gateway.stream(key, messages) as answer:
        async for text in answer: ...
    answer.bill

A call goes through the same session and the same checks, in the same order, as an HTTP request: no path skips the
policy. A refusal is raised as the `GatewayError` subclass for its code.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeAlias, TypedDict, Unpack, assert_never

import anyio

from floop_gateway_core.concurrency.background import BackgroundTask, Block
from floop_gateway_core.dialects.blocks import blocks_of, text_of
from floop_gateway_core.dialects.native.typed import message_of, parse_typed
from floop_gateway_core.engine.gate import AsProject, Gate
from floop_gateway_core.engine.session import CallSession
from floop_gateway_core.errors import ErrorCode, GatewayError, Refusal
from floop_gateway_core.policy.idempotency import BAD_KEY
from floop_gateway_core.types import (
    AnswerEvent,
    Bill,
    Completed,
    Endpoint,
    Failed,
    FinishReason,
    Message,
    Piece,
    Pieces,
    RequestId,
    Started,
    Texts,
    Tool,
    ToolCallPart,
)

__all__ = ["Answer", "AnswerStream", "CallEvent", "CallOptions", "Calls", "MessageLike", "ProjectCalls"]

DIALECT = "in_process"
PAUSED_CONSUMER_GRACE_S = 1.0
"""Extra time for a consumer that pauses, so that the engine's own end comes first."""
TOO_LONG = Refusal(ErrorCode.INTERNAL_ERROR, "The request took too long: the answer was not read in time.")

MessageLike: TypeAlias = Message | Mapping[str, object]
CallEvent: TypeAlias = Started | Texts | Pieces | Completed


class CallOptions(TypedDict, total=False):
    """The optional fields of a call; None counts as absent."""

    model: str
    system: str | None
    temperature: float | None
    max_tokens: int | None
    idempotency_key: str | None
    """A repeated call with this key gets the first one's answer, and is not charged again."""
    tools: Sequence[Tool | Mapping[str, object]] | None
    """Functions that the model may call, as `Tool`s or as OpenAI's API writes them."""
    tool_choice: str | Mapping[str, object] | None
    parallel_tool_calls: bool | None
    response_format: type[Any] | Mapping[str, object] | None
    """A Pydantic model, for an instance in the answer's `parsed`, or a value in the format of OpenAI's API."""
    reasoning_effort: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `model` echoes the alias that was asked for; `deployment` is what served."""

    content: str
    model: str
    bill: Bill
    finish_reason: FinishReason
    request_id: RequestId
    deployment: str
    message: Message = field(default_factory=lambda: Message("assistant", ()), repr=False)
    """The answer as a message, to append to the conversation before the results of its tool calls."""
    response_model: Any = field(default=None, repr=False)

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls of tools, in order."""
        return tuple(part for part in self.message.content if isinstance(part, ToolCallPart))

    @property
    def parsed(self) -> Any:
        """The content as an instance of the model that was the response format, validated by it; None without one."""
        return None if self.response_model is None else self.response_model.model_validate_json(self.content)


class AnswerStream:
    """A streamed answer. Enter it and iterate over its texts or over `events`; leaving it settles the call.

    Entering raises `GatewayError` for a refusal; iterating raises it for an answer that fails. A call that is left early,
    cancelled, or paused for longer than the gateway's `total_s` is billed for what was delivered.
    """

    def __init__(
        self, gate: Gate, caller: str | AsProject, endpoint: Endpoint, fields: Mapping[str, object], *, stream: bool
    ) -> None:
        self._limits = gate.runtime.routing.limits
        self._session = CallSession(gate, DIALECT)
        self._caller = caller
        self._endpoint: Endpoint = endpoint
        self._key = fields.get("idempotency_key")
        self._fields = {name: value for name, value in fields.items() if name != "idempotency_key"} | {"stream": stream}
        self._stack = AsyncExitStack()
        self._events: AsyncGenerator[AnswerEvent, None] | None = None
        self._texts = _Texts(self)
        self._expired = False
        self._completed: Completed | None = None
        self.deployment: str | None = None
        """The deployment that serves; None before the first event."""

    @property
    def request_id(self) -> RequestId:
        """The id of the call's record in the usage log."""
        return self._session.request_id

    @property
    def model(self) -> str:
        """The alias that was asked for."""
        run = self._session.run
        return "auto" if run is None else run.record.alias or "auto"

    @property
    def bill(self) -> Bill | None:
        """What the call has cost; final once the answer has ended or was left."""
        return self._session.bill

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer was complete; None before its end."""
        return None if self._completed is None else self._completed.finish_reason

    async def __aenter__(self) -> "AnswerStream":
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._session.close)
            try:
                await self._open()
            except GatewayError:
                raise
            except Exception as error:
                refusal = await self._session.fail(error)
                if refusal.code is ErrorCode.INTERNAL_ERROR:
                    raise
                raise self._error(refusal) from None
            self._events = self._session.events()
            await stack.enter_async_context(aclosing(self._events))
            await stack.enter_async_context(BackgroundTask(self._settle_in_time))
            self._stack = stack.pop_all()
        return self

    async def _open(self) -> None:
        key = self._key
        refusal = await self._session.open(self._caller, self._endpoint, has_key=key is not None)
        if refusal is None:
            call = parse_typed(self._endpoint, self._fields)
            if isinstance(call, Refusal):
                refusal = await self._session.refuse(call)
            elif key is not None and not isinstance(key, str):
                refusal = await self._session.refuse(BAD_KEY)
            else:
                refusal = await self._session.admit(self._session.named(call), key)
        if refusal is not None:
            raise self._error(refusal)

    async def _settle_in_time(self, _: Block) -> None:
        """Settle a call whose consumer has stopped reading: the engine can only end a call that is being read."""
        await anyio.sleep(self._limits.total_s + PAUSED_CONSUMER_GRACE_S)
        self._expired = True
        await self._session.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    def __aiter__(self) -> AsyncIterator[str]:
        return self._texts  # shared by all loops over the stream, because it buffers texts that it has not yielded yet

    def events(self) -> AsyncIterator[CallEvent]:
        """Iterate over the answer's events; the last is `Completed`, with the bill. Raises `GatewayError`."""
        return _Events(self)

    async def next_event(self) -> CallEvent | None:
        """Return the next event, or None after the last. Raises `GatewayError`."""
        if self._events is None:
            raise RuntimeError("use the stream in a context: async with gateway.stream(…) as answer")
        event = await self._next(self._events)
        match event:
            case Failed(refusal, bill):
                raise self._error(refusal, bill.credits_used)
            case Started(deployment, _):
                self.deployment = deployment
            case Completed():
                self._completed = event
            case Texts() | Pieces() | None:
                pass
            case _:
                assert_never(event)
        return event

    async def _next(self, events: AsyncGenerator[AnswerEvent, None]) -> AnswerEvent | None:
        if self._expired and self._completed is None:
            raise self._error(TOO_LONG, 0 if self.bill is None else self.bill.credits_used)
        try:
            return await anext(events, None)
        except Exception as error:
            refusal = await self._session.fail(error)
            if refusal.code is ErrorCode.INTERNAL_ERROR:
                raise
            raise self._error(refusal, 0 if self.bill is None else self.bill.credits_used) from None

    def _error(self, refusal: Refusal, credits_used: int = 0) -> GatewayError:
        run = self._session.run
        if run is None:
            return GatewayError.from_refusal(refusal, credits_used)
        return GatewayError.from_refusal(refusal, credits_used, self.request_id, run.record.attempt_list)


class _Events:
    """An iterator and not a generator, so that it needs no closing when it is left early."""

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream

    def __aiter__(self) -> "_Events":
        return self

    async def __anext__(self) -> CallEvent:
        event = await self._stream.next_event()
        if event is None:
            raise StopAsyncIteration
        return event


class _Texts:
    """The texts of one answer, one at a time."""

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream
        self._ready: list[str] = []

    def __aiter__(self) -> "_Texts":
        return self

    async def __anext__(self) -> str:
        while not self._ready:
            event = await self._stream.next_event()
            if event is None:
                raise StopAsyncIteration
            if isinstance(event, Texts):
                self._ready = list(reversed(event.texts))
        return self._ready.pop()


class Calls:
    """Implements `Gateway.chat`, `generate` and `stream`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def stream(self, caller: str | AsProject, endpoint: Endpoint, fields: Mapping[str, object]) -> AnswerStream:
        """Return the answer to enter and read."""
        return AnswerStream(self._gate, caller, endpoint, fields, stream=True)

    async def answer(self, caller: str | AsProject, endpoint: Endpoint, fields: Mapping[str, object]) -> Answer:
        """Return the whole answer; raise `GatewayError`."""
        items: list[str | Piece] = []
        async with AnswerStream(self._gate, caller, endpoint, fields, stream=False) as stream:
            async for event in stream.events():
                if isinstance(event, Texts):
                    items += event.texts
                elif isinstance(event, Pieces):
                    items += event.pieces
                elif isinstance(event, Completed):
                    done = event
        model = fields.get("response_format")
        return Answer(
            text_of(items),
            stream.model,
            done.bill,
            done.finish_reason,
            stream.request_id,
            stream.deployment or "",
            message_of(blocks_of(items)),
            model if hasattr(model, "model_validate_json") else None,
        )


class ProjectCalls:
    """Calls for one project without its key: `gateway.as_project("shop").chat(messages)`.

    They are checked, limited, billed and logged like any other; their records name no key.
    """

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls = calls
        self._caller = AsProject(name)

    async def chat(self, messages: Sequence[MessageLike], **options: Unpack[CallOptions]) -> Answer:
        """Answer a list of messages; raise `GatewayError`."""
        return await self._calls.answer(self._caller, "chat", {"messages": messages, **options})

    async def generate(self, prompt: str, **options: Unpack[CallOptions]) -> Answer:
        """Answer one prompt; raise `GatewayError`."""
        return await self._calls.answer(self._caller, "generate", {"prompt": prompt, **options})

    def stream(self, messages: Sequence[MessageLike], **options: Unpack[CallOptions]) -> AnswerStream:
        """Return an answer to read as it comes."""
        return self._calls.stream(self._caller, "chat", {"messages": messages, **options})
