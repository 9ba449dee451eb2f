"""The engine's view of an upstream: one request out, deltas in, and faults with a defined meaning.

A *codec* is pure (bytes ↔ values, no I/O) and knows one vendor's wire format; `providers.http` sends its bytes over
HTTP. A *provider* is what the engine opens: the driver with a codec, or `echo`, which needs no wire.

Preamble (role chunks, pings, empty deltas, thinking) counts as upstream activity but not as text: it resets the
time-outs and commits nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, cast

from floop_gateway_core.policy.retry import FaultKind
from floop_gateway_core.types import DEFAULT_SAMPLING, NO_SHAPE, FinishReason, Message, Piece, Sampling, Shape, Usage

__all__ = [
    "Codec",
    "Decoder",
    "Delta",
    "DeltaItem",
    "FaultKind",
    "Provider",
    "Stream",
    "UpstreamCall",
    "UpstreamFault",
    "UpstreamRequest",
    "texts_alone",
]


class UpstreamFault(Exception):
    """An attempt failed. `reason` is short and safe to log: never the upstream's words, a key or a prompt."""

    def __init__(
        self,
        fault: FaultKind,
        reason: str,
        *,
        retry_after_s: float | None = None,
        again: bool | None = None,
        request_suspected: bool = False,
        refused_call: bool = False,
        subject: str | None = None,
    ) -> None:
        super().__init__(f"{fault.value}: {reason}")
        self.fault = fault
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.request_suspected = request_suspected  # the request itself may have caused it: 403, 404
        self.refused_call = refused_call  # the model's server rejected the call itself: 400, 413, 422
        self.subject = subject  # the name of the rejected field, as the server reports it
        self.again = again  # whether the upstream asked for a retry; None if it did not say


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One attempt's request in the gateway's terms; the codec translates it into the vendor's format.

    `max_tokens` is the output granted to the client; a deployment's thinking allowance comes on top.
    """

    model: str
    messages: tuple[Message, ...]
    system: str | None
    max_tokens: int
    temperature: float | None = None
    sampling: Sampling = DEFAULT_SAMPLING
    shape: Shape = NO_SHAPE
    headers: tuple[tuple[str, str], ...] = ()
    """Headers that a listener adds to the request, for a trace."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A complete HTTP request. `repr` hides everything that may hold a key or a prompt."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


DeltaItem: TypeAlias = str | Piece
"""Text, or a piece of something else."""
_ONLY_TEXTS: frozenset[type] = frozenset({str})


def texts_alone(items: list[DeltaItem]) -> list[str] | None:
    """Return the items if all of them are texts, as in nearly every chunk; a loop over them costs ten times as much."""
    return cast(list[str], items) if _ONLY_TEXTS.issuperset(map(type, items)) else None


@dataclass(slots=True)
class Delta:
    """What one chunk of the upstream added. Mutable, and one per chunk rather than per event: this is the hot path.

    `items` is what came, in order: text as `str`, or a piece of a thought or of a tool's call.
    `events` counts the upstream's events, preamble included. `usage` is cumulative, the last report in the chunk.
    `usage_is_complete` says whether that report came after all text and thinking so far. `finish` is the reason of the
    terminal event: once it is set, nothing more is read.
    """

    events: int = 0
    items: list[DeltaItem] = field(default_factory=list)
    usage: Usage | None = None
    usage_is_complete: bool = False
    finish: FinishReason | None = None

    @property
    def texts(self) -> list[str]:
        """Return the texts among the items."""
        if (texts := texts_alone(self.items)) is not None:
            return texts
        return [item for item in self.items if isinstance(item, str)]


class Decoder(Protocol):
    """The state of one answer. The same bytes give the same texts, usage and ending, however they are split."""

    def feed(self, chunk: bytes) -> Delta:
        """Take the next bytes; raise `UpstreamFault` for a malformed event or an error that came in band."""

    def end(self) -> Delta:
        """Handle the end of the body; raise `UpstreamFault` if the terminal event is still missing."""


class Codec(Protocol):
    """One vendor's wire format, with one deployment's options."""

    def encode(self, call: UpstreamCall, *, base_url: str | None, api_key: str | None) -> UpstreamRequest:
        """Return the HTTP request of a call; without a base URL, to the vendor's own."""

    def decoder(self) -> Decoder:
        """Return a decoder for one answer."""

    def fault(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> UpstreamFault:
        """Return what a non-200 answer means; `now` (epoch seconds) resolves an HTTP date in `Retry-After`."""

    def without_refused(self, body: bytes) -> "Codec | None":
        """Return a codec whose requests leave out what a 400's body refuses, or None if nothing can be left out."""


class Stream(Protocol):
    """An open answer. Call `next` until a delta has `finish`; it raises `UpstreamFault` if the answer fails."""

    async def next(self) -> Delta:
        """Return the next delta; raise `UpstreamFault`."""


class Provider(Protocol):
    """An upstream as the engine opens it."""

    def open(self, call: UpstreamCall, on_sent: Callable[[], None]) -> AbstractAsyncContextManager[Stream]:
        """Send the request and hold the answer open; leaving the context closes or releases the connection.

        `on_sent` is called when the request goes out on a connection: from then on the attempt may cost something.
        """
