"""Answers to requests with an idempotency key: one task produces an answer, and every request with its key reads it.

The task outlives the client that started it, and ends with the gateway or at the request's deadline. Readers receive
every event from the first, each at its own pace. A stored answer is decoded to the same events.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import assert_never

import anyio
import msgspec

from floop_gateway_core.concurrency.detached import DetachedTasks
from floop_gateway_core.concurrency.loops import current_event_loop
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.policy.idempotency import MAX_ANSWER_BYTES, TOO_LONG, KeptAnswer
from floop_gateway_core.types import (
    AnswerEvent,
    Bill,
    Completed,
    Failed,
    FinishReason,
    Piece,
    Pieces,
    ProjectId,
    RefusalStart,
    RequestId,
    Started,
    Texts,
    Thought,
    ToolEnd,
    ToolPiece,
    Usage,
)

__all__ = ["AnswerLog", "Answers", "SharedAnswer", "decode"]


class _KeptPiece(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of content other than text; `ends` marks the end of a call."""

    index: int = 0
    arguments: str = ""
    id: str = ""
    name: str = ""
    signature: str | None = None
    thoughts: str | None = None
    thought: str | None = None
    redacted: str | None = None
    declines: bool = False
    ends: bool = False

    @classmethod
    def of(cls, piece: Piece) -> "_KeptPiece":
        match piece:
            case ToolPiece(index, arguments, id, name, signature, thoughts):
                return cls(index, arguments, id, name, signature, thoughts)
            case ToolEnd(index):
                return cls(index, ends=True)
            case Thought(text, signature, redacted):
                return cls(thought=text, signature=signature, redacted=redacted)
            case RefusalStart():
                return cls(declines=True)
            case _:
                assert_never(piece)

    @property
    def piece(self) -> Piece:
        if self.ends:
            return ToolEnd(self.index)
        if self.declines:
            return RefusalStart()
        if self.thought is not None:
            return Thought(self.thought, self.signature, self.redacted)
        return ToolPiece(self.index, self.arguments, self.id, self.name, self.signature, self.thoughts)


class _Kept(msgspec.Struct, frozen=True):
    started: Started
    content: list[list[str | _KeptPiece]]
    usage: Usage
    finish: FinishReason | None
    code: ErrorCode | None
    message: str


class AnswerLog:
    """The events of one answer, from which its kept form is made when it is settled."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._content: list[list[str | _KeptPiece]] = []
        self._bytes = 0

    def add(self, events: Sequence[AnswerEvent]) -> None:
        """Add events in their order."""
        for event in events:
            if isinstance(event, Started):
                self._started = event
            elif isinstance(event, Texts):
                self._bytes += sum(len(text.encode("utf-8", "replace")) for text in event.texts)
                self._content.append(list(event.texts))
            elif isinstance(event, Pieces):
                kept: list[str | _KeptPiece] = [_KeptPiece.of(piece) for piece in event.pieces]
                self._bytes += len(msgspec.json.encode(kept))
                self._content.append(kept)
        if self.is_too_long:
            self._content = []

    @property
    def is_too_long(self) -> bool:
        """Return whether the answer is longer than what is kept."""
        return self._bytes > MAX_ANSWER_BYTES

    def encode(self, usage: Usage, finish: FinishReason | None, refusal: Refusal | None) -> bytes | None:
        """Return what to keep of an answer that is complete, or failed after it had begun; None for any other."""
        if self._started is None or (finish is None and refusal is None):
            return None
        if self.is_too_long:
            return TOO_LONG
        code, message = (None, "") if refusal is None else (refusal.code, refusal.message)
        return msgspec.json.encode(_Kept(self._started, self._content, usage, finish, code, message))


def decode(kept: KeptAnswer) -> list[AnswerEvent]:
    """Return the events of an answer that a store has kept."""
    found = msgspec.json.decode(kept.answer, type=_Kept)
    bill = Bill(found.usage, kept.charged, kept.posted)
    end: AnswerEvent
    if found.code is not None:
        end = Failed(Refusal(found.code, found.message), bill)
    elif found.finish is not None:
        end = Completed(bill, found.finish)
    else:
        raise ValueError("a kept answer must have an end")
    content = [_content(group) for group in found.content]
    return [found.started, *content, end]


def _content(group: list[str | _KeptPiece]) -> AnswerEvent:
    pieces = [one.piece for one in group if isinstance(one, _KeptPiece)]
    return Pieces(pieces) if pieces else Texts([one for one in group if isinstance(one, str)])


class SharedAnswer:
    """An answer that several requests read. `log` says whether it has become too long for others to join."""

    def __init__(self, request_id: RequestId, digest: str, events: Sequence[AnswerEvent] = (), *, ended: bool = False):
        self.request_id = request_id
        self.digest = digest
        self.log = AnswerLog()
        self.ended = anyio.Event()
        self._events = list(events)
        self._admitted = ended
        self._changed = anyio.Event()
        if ended:
            self.ended.set()

    def admit(self) -> None:
        """Note that the request was admitted."""
        self._admitted = True
        self._wake()

    def add(self, event: AnswerEvent) -> None:
        """Pass an event on to the readers."""
        self._events.append(event)
        self._wake()

    def end(self, refusal: Refusal, bill: Bill) -> None:
        """End the answer. If it has not ended on its own, it fails with `refusal` and costs `bill`."""
        if not self._events or not isinstance(self._events[-1], Completed | Failed):
            self._events.append(Failed(refusal, bill))
        self.ended.set()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def decided(self) -> Refusal | None:
        """Wait for the admission; return the refusal of a request that was not admitted."""
        while not self._admitted and not self._events:
            await self._changed.wait()
        first = self._events[0] if self._events else None
        return first.refusal if isinstance(first, Failed) and not self._admitted else None

    async def read(self) -> AsyncGenerator[AnswerEvent, None]:
        """Yield every event from the first on, up to the last."""
        place = 0
        while True:
            while place < len(self._events):
                yield self._events[place]
                place += 1
            if self.ended.is_set():
                return
            await self._changed.wait()


class Answers:
    """The running answers of one gateway by event loop, project and key: a reader waits in its own event loop."""

    def __init__(self, tasks: DetachedTasks) -> None:
        self._tasks = tasks
        self._running: dict[tuple[object, ProjectId, str], SharedAnswer] = {}

    def get(self, project: ProjectId, key: str) -> SharedAnswer | None:
        """Return the running answer of a key, in this event loop."""
        return self._running.get((current_event_loop(), project, key))

    def start(
        self, project: ProjectId, key: str, shared: SharedAnswer, produce: Callable[[SharedAnswer], Awaitable[None]]
    ) -> None:
        """Produce an answer in a task of its own. `produce` must end it."""
        place = current_event_loop(), project, key
        self._running[place] = shared

        async def task() -> None:
            try:
                await produce(shared)
            finally:
                self._running.pop(place, None)

        self._tasks.start(task)
