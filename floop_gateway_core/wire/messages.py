"""The exchange between a host and the gateway: a request in, a reply out, both independent of any framework.

A host builds a `GatewayRequest` and writes out a `Reply`; it parses no JSON, formats no error and knows no route.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

__all__ = [
    "CLIENT_GONE_STATUS",
    "BodyReader",
    "ClientDisconnected",
    "GatewayRequest",
    "Headers",
    "MalformedBody",
    "Mountable",
    "Reply",
]

CLIENT_GONE_STATUS = 499
"""The status that nginx logs for a client that disconnected before the response. It is never sent."""

Headers: TypeAlias = Sequence[tuple[str, str]]


class ClientDisconnected(Exception):
    """Raised by a `BodyReader`: the client went away before its body was complete."""


class MalformedBody(Exception):
    """Raised by a `BodyReader`: the body's framing is broken, though the client is still there."""


class BodyReader(Protocol):
    """The rest of a request's body, pulled by the gateway after key and rate are settled."""

    async def read(self) -> bytes:
        """Return the next bytes, or `b""` at the end and from then on; raise `ClientDisconnected` or `MalformedBody`."""


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """`path` is relative to the mount (`/chat`); header names are of any case, and several may share a name.

    `query` is the part after `?`, undecoded. `host` is the host's own request: an ASGI scope, a WSGI environ or an aiohttp
    request. `repr` hides what may hold a key or a prompt.
    """

    method: str
    path: str
    headers: Headers = field(repr=False)
    body: bytes | BodyReader = field(default=b"", repr=False)
    query: str = field(default="", repr=False)
    host: object | None = field(default=None, repr=False)
    is_crowded: bool = False
    """Whether the host has no thread to spare for another answer."""
    _by_name: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def header(self, name: str) -> list[str]:
        """Return all values of a header; `name` is in lower case."""
        by_name = self._by_name
        if not by_name:
            for key, value in self.headers:
                by_name.setdefault(key.lower(), []).append(value)
        return by_name.get(name) or []


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is bytes, or an iterator of chunks that the host writes as they come and need not close."""

    status: int
    headers: Headers
    body: bytes | AsyncIterator[bytes] = field(repr=False)


class Mountable(Protocol):
    """What an adapter mounts: a gateway, or another application over the same messages."""

    def open(self, request: GatewayRequest) -> AbstractAsyncContextManager[Reply]:
        """Begin an exchange. The reply's body must be read in the same task, inside the context."""

    async def start(self) -> None:
        """Open what is needed. Repeated, do nothing."""

    async def aclose(self) -> None:
        """Close what is open on this event loop."""
