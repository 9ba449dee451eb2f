"""The bytes under the scripted upstream: a connection that can die in every way, and requests read from it.

Plain non-blocking sockets on `anyio.wait_readable` and `wait_writable`, the same under asyncio and trio: a library's
stream sends a FIN before it aborts, so it cannot produce a plain reset.
"""

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import anyio.lowlevel

__all__ = ["Connection", "Gone", "Received"]

_HEAD_MAX = 64 * 1024
_BODY_MAX = 64 * 1024 * 1024
_READ_BYTES = 64 * 1024


class Gone(Exception):
    """The client has closed or reset the connection."""


@dataclass(slots=True)
class Received:
    """One request as it came, and what became of its answer.

    Header names are lower case. `json` is None if the body is not JSON. `at` is `anyio.current_time()` when the request
    was complete. `cut` means that the client left before its answer was complete; `answered`, that all of it was
    sent (even if the script broke it off).
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    json: object = None
    cut: bool = False
    answered: bool = False
    texts_sent: int = 0

    @property
    def model(self) -> str:
        """The model that was asked for, in the body or (Gemini) in the path."""
        if isinstance(self.json, dict) and isinstance(self.json.get("model"), str):
            return str(self.json["model"])
        return self.path.rpartition("models/")[2].partition(":")[0]


class Connection:
    """One accepted socket. `closed` is set by whichever end of it came first."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._ahead = bytearray()
        self.closed = False

    async def request(self) -> Received | None:
        """Read the next request; return None if the client sends no more, or none that can be read."""
        try:
            head = await self._until(b"\r\n\r\n")
            request_line, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = request_line.split(" ", 2)
            pairs = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            body = await self._body(headers)
        except (Gone, ValueError):  # what is not HTTP gets no answer
            return None
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        return Received(method, path, headers, body, anyio.current_time(), parsed)

    async def gone(self) -> None:
        """Return when the client has left; what it sends in the meantime is kept for the next request."""
        try:
            while len(self._ahead) < _HEAD_MAX:
                await self._more()
        except Gone:
            return
        await anyio.sleep_forever()

    async def send(self, data: bytes) -> None:
        """Send all of it. Raises `Gone`."""
        await anyio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
            except OSError:
                raise Gone from None

    def close(self) -> None:
        """Close the connection with a FIN."""
        if not self.closed:
            self.closed = True
            self._sock.close()

    def reset(self) -> None:
        """Reset the connection (RST), even if data is still on its way."""
        if not self.closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int(await self._until(b"\r\n"), 16):
                body += await self._exactly(size)
                await self._until(b"\r\n")
            await self._until(b"\r\n")
            return body
        length = int(headers.get("content-length", "0"))
        if length > _BODY_MAX:
            raise Gone
        return await self._exactly(length)

    async def _until(self, mark: bytes) -> bytes:
        while (index := self._ahead.find(mark)) < 0:
            if len(self._ahead) > _HEAD_MAX:
                raise Gone
            await self._more()
        found = bytes(self._ahead[:index])
        del self._ahead[: index + len(mark)]
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._ahead) < size:
            await self._more()
        found = bytes(self._ahead[:size])
        del self._ahead[:size]
        return found

    async def _more(self) -> None:
        while True:
            await anyio.wait_readable(self._sock)
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                raise Gone from None
            if not data:
                raise Gone
            self._ahead += data
            return
