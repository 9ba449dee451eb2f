"""The script of an upstream: one value for each answer.

`Reply` is an answer as the vendor streams it, whole or `broken` somewhere; `Break` alone is the default reply broken
there; `Status` is an answer other than a stream. The moments (`Moment`) are the same for every vendor:

    head      nothing has been sent, not even a status line
    body      the head is out, no event yet
    preamble  events are out (roles, pings, thinking), but no text
    text      `texts` texts are out
    end       every text is out, nothing of what follows
    done      only the last event is missing
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import anyio

from floop_gateway_core.types import FinishReason, Usage

__all__ = ["Answer", "Break", "Called", "Hold", "How", "Kind", "Moment", "Reply", "Status", "Vendor"]

Vendor: TypeAlias = Literal["openai", "anthropic", "gemini"]
Moment: TypeAlias = Literal["head", "body", "preamble", "text", "end", "done"]
Kind: TypeAlias = Literal["invalid", "context_length", "auth", "rate_limit", "quota", "server", "overloaded"]
"""What a vendor-shaped error says it is about."""

How: TypeAlias = Literal[
    "refuse",  # the connection is closed as soon as it is accepted (if it is reused: before the head)
    "reset",  # RST
    "eof",  # the body ends cleanly, and the terminal event is missing
    "truncate",  # FIN in the middle of an event, a chunk, or the announced length
    "stall",  # nothing more comes, and the connection stays open
    "malformed",  # an event that is not JSON, then the rest of the answer
    "bad_chunk",  # a chunk whose size is not a number
    "gzip",  # a compressed body that turns into noise
    "error",  # the vendor's error event, then a clean end
]


_USAGE = Usage(input_tokens=12, output_tokens=4)


@dataclass(frozen=True, slots=True)
class Break:
    """How an answer breaks, and when. `kind` is what an `error` event is about."""

    how: How = "reset"
    at: Moment = "text"
    texts: int = 1
    kind: Kind = "overloaded"


@dataclass(frozen=True, slots=True)
class Hold:
    """Pause an answer until the test sets an event, so that the test can inspect what has arrived so far."""

    until: anyio.Event
    at: Moment = "text"
    texts: int = 1


@dataclass(frozen=True, slots=True)
class Called:
    """A call of a tool in an answer. `arguments` is JSON text, in one event each, where the vendor has pieces.

    `signature` is what the vendor ties to it: Gemini's signature, or that of Anthropic's thinking before it.
    """

    name: str
    arguments: Sequence[str] = ("{}",)
    id: str | None = "call_1"
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as the vendor streams it.

    Lone surrogates in `texts` are sent as JSON escapes, as some servers do in the middle of an emoji. `usage=None` is
    a vendor that reports none. `pings` are sent before the first text. `endless` repeats `texts` until the client
    leaves. `split` says what one write holds: the whole answer, an event, or a byte; `delay_s` is waited between
    writes. `framing`: `length` and `close` send the body without chunked encoding.
    """

    texts: Sequence[str] = ("Hello", ", ", "world", "!")
    thinking: Sequence[str] = ()
    calls: Sequence[Called] = ()
    usage: Usage | None = _USAGE
    finish: FinishReason = "end_turn"
    pings: int = 0
    endless: bool = False
    split: Literal["whole", "events", "bytes"] = "events"
    delay_s: float = 0.0
    framing: Literal["chunked", "length", "close"] = "chunked"
    gzip: bool = False
    hold: Hold | None = None
    broken: Break | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """An answer other than a stream: an error in the vendor's shape, or any `body` of any `content_type`.

    `kind` of None follows from the status. The shaped error quotes the request's key and prompt, as bad
    upstreams do, so that a test can see that an app does not pass them on. `Status(200)` is the error that comes with
    status 200.
    """

    status: int
    kind: Kind | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    hold: Hold | None = None

    @classmethod
    def html(cls, status: int = 200) -> "Status":
        """A proxy's page in place of the model's answer."""
        return cls(status, body=b"<!doctype html><title>Welcome</title>", content_type="text/html")


Answer: TypeAlias = Reply | Break | Status
