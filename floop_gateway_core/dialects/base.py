"""A dialect is a value that defines how requests are addressed, read and answered. Pure; no I/O.

An exchange knows nothing about paths, JSON or headers of a dialect: it asks the dialect that owns the path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Bill, Call, Completed, Endpoint, FinishReason, Piece, RequestId, Started
from floop_gateway_core.wire.messages import GatewayRequest, Headers

__all__ = ["About", "Dialect", "Operation", "Renderer", "Router"]

Kind: TypeAlias = Literal["call", "count", "reply", "reserved"]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method of a path does.

    `call`: its body is a call of a model. `count`: its body is a call too, and `Dialect.reply` answers with the tokens of
    its input. `reply`: it is answered by `Dialect.reply`, without a call. `reserved`: it is refused with
    `NOT_IMPLEMENTED`, after key and rate. `endpoint` is its name in the usage log, which has calls and refusals alone.
    """

    endpoint: Endpoint
    kind: Kind = "call"


@dataclass(frozen=True, slots=True)
class About:
    """Data for a reply without a call: the models that the caller may use, and the number of input tokens."""

    models: Sequence[str] = ()
    input_tokens: int | None = None


class Renderer(Protocol):
    """Turns one answer's events into bytes."""

    def headers(self, started: Started | None) -> Headers:
        """Return the headers of the answer, streamed or whole; None if a heartbeat precedes the start."""

    def start(self, started: Started) -> bytes:
        """Return the bytes that begin a stream; they may be empty."""

    def texts(self, texts: Sequence[str]) -> bytes:
        """Return the frames of these texts."""

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """Return the frames of items other than text: tool calls, and thoughts if the call shows them."""

    def heartbeat(self) -> bytes:
        """Return a heartbeat."""

    def completed(self, bill: Bill, finish_reason: FinishReason) -> bytes:
        """Return the end of a stream."""

    def failed(self, refusal: Refusal, bill: Bill) -> bytes:
        """Return the end of a stream that failed after its head had been sent."""

    def whole(self, items: Sequence[str | Piece], completed: Completed) -> bytes:
        """Return the body of an answer that is not streamed; `items` are its texts and pieces in order."""


class Dialect(Protocol):
    """A way of speaking to the gateway. Stateless.

    An optional method `with_headers(call, request)` adds information from the request's headers to a parsed call.
    """

    @property
    def name(self) -> str:
        """The dialect's name in the usage log."""

    @property
    def routes(self) -> Mapping[str, Mapping[str, Operation]]:
        """Path → method → operation. 404, 405 and `Allow` follow from it. A path may end in `/{id}`, for any one name."""

    def key(self, request: GatewayRequest) -> str | None:
        """Return the caller's key, or None."""

    def parse(self, operation: Operation, body: bytes) -> Call | Refusal:
        """Parse a call. A long body is parsed in a worker thread."""

    def renderer(self, call: Call, request_id: RequestId, answer_id: RequestId) -> Renderer:
        """Return what renders this call's answer. `answer_id` is the first request's, if the answer is a replay."""

    def reply(self, operation: Operation, request: GatewayRequest, about: About) -> tuple[Headers, bytes] | Refusal:
        """Return the headers and the body of an operation without a call."""

    def error(self, refusal: Refusal, request_id: RequestId) -> tuple[Headers, bytes]:
        """Return a refusal's headers and body, in the dialect's own envelope."""


class Router:
    """Finds the dialect and the operations of a path.

    The first dialect answers for paths that belong to none, unless another one claims them by its `prefix`. A dialect
    with a `mark`, the name of a header, also writes the errors of marked requests below its prefix. Both attributes are
    optional. Raises ValueError if two dialects claim one path.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self.default = dialects[0]
        self._dialects: dict[str, Dialect] = {}
        self._prefixes: list[tuple[str, str | None, Dialect]] = []
        for dialect in dialects:
            for path in dialect.routes:
                if path in self._dialects:
                    raise ValueError(f"two dialects claim {path}")
                self._dialects[path] = dialect
            if prefix := getattr(dialect, "prefix", None):
                self._prefixes.append((prefix, getattr(dialect, "mark", None), dialect))
        self._prefixes.sort(key=lambda one: -len(one[0]))

    def dialect_of(self, path: str) -> Dialect:
        """Return the dialect that answers for a path, known or not."""
        found = self._dialects.get(path) or self._dialects.get(_pattern(path))
        if found is not None:
            return found
        return next((one for prefix, _, one in self._prefixes if path.startswith(prefix)), self.default)

    def envelope_of(self, request: GatewayRequest) -> Dialect:
        """Return the dialect in whose envelope a request's errors are written."""
        own = self.dialect_of(request.path)
        if own is self.default:
            return own
        marked = (one for _, mark, one in self._prefixes if mark is not None and request.header(mark))
        return next(marked, own)

    def methods(self, path: str) -> Mapping[str, Operation] | None:
        """Return the operations of a path by method, or None for an unknown path."""
        dialect = self.dialect_of(path)
        return dialect.routes.get(path) or dialect.routes.get(_pattern(path))

    @property
    def paths(self) -> Sequence[str]:
        """Return every path."""
        return tuple(self._dialects)


def _pattern(path: str) -> str:
    """Return the route of a path that ends in a name.

    >>> _pattern("/v1/models/fast")
    '/v1/models/{id}'
    """
    parent, _, name = path.rpartition("/")
    return f"{parent}/{{id}}" if name else path
