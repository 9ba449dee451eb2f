"""A dialect is a value that defines how requests are addressed, read and answered. Pure; no I/O.

An exchange knows no path, no JSON and no header of a dialect: it asks the dialect that a path belongs to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Bill, Call, Completed, Endpoint, FinishReason, RequestId, Started
from floop_gateway_core.wire.messages import GatewayRequest, Headers

__all__ = ["Dialect", "Operation", "Renderer", "Router"]

Kind: TypeAlias = Literal["call", "reply", "reserved"]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method of a path does.

    `call`: its body is a call of a model. `reply`: it is answered by `Dialect.reply`, without a call. `reserved`: it is
    refused with `NOT_IMPLEMENTED`, after key and rate. `endpoint` is its name in the usage log.
    """

    endpoint: Endpoint
    kind: Kind = "call"


class Renderer(Protocol):
    """Turns one answer's events into bytes."""

    def headers(self, started: Started | None) -> Headers:
        """Return the headers of the answer, streamed or whole; None if a heartbeat precedes the start."""

    def start(self, started: Started) -> bytes:
        """Return the bytes that begin a stream; they may be empty."""

    def texts(self, texts: Sequence[str]) -> bytes:
        """Return the frames of these texts."""

    def heartbeat(self) -> bytes:
        """Return a heartbeat."""

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        """Return the end of a stream."""

    def failed(self, refusal: Refusal, bill: Bill) -> bytes:
        """Return the end of a stream that failed after its head had been sent."""

    def whole(self, texts: Sequence[str], completed: Completed) -> bytes:
        """Return the body of an answer that is not streamed."""


class Dialect(Protocol):
    """A way of speaking to the gateway. Stateless."""

    @property
    def name(self) -> str:
        """The dialect's name in the usage log."""

    @property
    def routes(self) -> Mapping[str, Mapping[str, Operation]]:
        """Path → method → operation. 404, 405 and `Allow` follow from it."""

    def key(self, request: GatewayRequest) -> str | None:
        """Return the caller's key, or None."""

    def parse(self, operation: Operation, body: bytes) -> Call | Refusal:
        """Parse a call. A long body is parsed in a worker thread."""

    def renderer(self, call: Call) -> Renderer:
        """Return what renders this call's answer."""

    def reply(self, operation: Operation, request: GatewayRequest) -> tuple[Headers, bytes] | Refusal:
        """Return the headers and the body of an operation without a call."""

    def error(self, refusal: Refusal, request_id: RequestId) -> tuple[Headers, bytes]:
        """Return a refusal's headers and body, in the dialect's own envelope."""


class Router:
    """Finds the dialect of a path. The first dialect answers for paths that belong to none.

    Raises ValueError if two dialects claim one path.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self.default = dialects[0]
        self._dialects: dict[str, Dialect] = {}
        for dialect in dialects:
            for path in dialect.routes:
                if path in self._dialects:
                    raise ValueError(f"two dialects claim {path}")
                self._dialects[path] = dialect

    def dialect_of(self, path: str) -> Dialect:
        """Return the dialect that answers for a path, known or not."""
        return self._dialects.get(path, self.default)
