"""Sends one scripted answer: its events, their framing and compression, and the point at which it breaks.

It closes nothing itself but returns how the connection is to end (`Ending`), because its caller still reads from it.
"""

import zlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

import anyio

from floop_gateway_core.testing.answers import Break, Hold, Moment, Reply, Status
from floop_gateway_core.testing.connection import Connection, Received
from floop_gateway_core.testing.vendors import Frame, error_body, error_frame, frames, kind_of, vendor_of

__all__ = ["Answering", "Ending"]

Ending: TypeAlias = Literal["keep", "close", "reset"]

_MALFORMED = Frame("preamble", b'data: {"choices":[{"delta"\n\n')
_NOISE = b"\xff\x00" * 64  # no deflate block begins so


class _Broken(Exception):
    """The script has broken the answer off."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending


class Answering:
    """Send one answer to one request."""

    def __init__(self, connection: Connection, request: Received) -> None:
        self._connection = connection
        self._request = request
        self._vendor = vendor_of(request.path.partition("?")[0])
        self._reply = Reply()
        self._chunked = False
        self._zip = zlib.compressobj(wbits=31)
        self._zipped = False
        self._unsent: list[bytes] = []

    async def give(self, answer: Reply | Status) -> Ending:
        """Send the answer as far as the script says. Raises `Gone` if the client has left."""
        if isinstance(answer, Status):
            return await self._status(answer)
        self._reply = answer
        try:
            await self._moment("head")
            ending = await self._head()
            await self._moment("body")
            await self._events(frames(self._vendor, answer, self._request.model))
            await self._end()
        except _Broken as broken:
            return broken.ending
        return ending

    async def _status(self, answer: Status) -> Ending:
        if answer.hold is not None:
            await answer.hold.until.wait()
        body = answer.body
        if body is None:
            kind = answer.kind or kind_of(answer.status)
            body = error_body(self._vendor, kind, quoting=_quoted(self._request), status=answer.status)
        headers = {"content-type": answer.content_type, "content-length": str(len(body)), **answer.headers}
        await self._connection.send(_head(answer.status, headers) + body)
        return "keep"

    async def _head(self) -> Ending:
        reply = self._reply
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        self._zipped = reply.gzip or (reply.broken is not None and reply.broken.how == "gzip")
        if self._zipped:
            headers["content-encoding"] = "gzip"
        known = reply.framing == "length" and not self._zipped and not reply.endless
        if known:
            total = sum(len(frame.data) for frame in frames(self._vendor, reply, self._request.model))
            headers["content-length"] = str(total)
        elif reply.framing == "close":
            headers["connection"] = "close"
        else:
            self._chunked = True
            headers["transfer-encoding"] = "chunked"
        await self._connection.send(_head(200, headers))
        return "keep" if known or self._chunked else "close"

    async def _events(self, events: Iterator[Frame]) -> None:
        """Send the events, stopping at each moment. One event is read ahead, to know which is the last."""
        before = "preamble"
        current = next(events, None)
        while current is not None:
            following = next(events, None)
            if before == "preamble" and current.kind != "preamble":
                await self._moment("preamble", current)
            if before != "end" and current.kind == "end":
                await self._moment("end", current)
            if following is None:
                await self._moment("done", current)
            await self._event(current)
            if current.kind == "text":
                self._request.texts_sent += 1
                await self._moment("text", following)
            before, current = current.kind, following

    async def _moment(self, at: Moment, following: Frame | None = None) -> None:
        """Do here what the script says: wait, or break. `following` is the event that would come next."""
        hold, broken = self._reply.hold, self._reply.broken
        if hold is not None and self._is_now(hold, at):
            await self._flush()
            await hold.until.wait()
        if broken is not None and self._is_now(broken, at):
            await self._flush()
            await (self._break_head(broken) if at == "head" else self._break_body(broken, following))

    def _is_now(self, plan: Hold | Break, at: Moment) -> bool:
        return plan.at == at and (at != "text" or plan.texts == self._request.texts_sent)

    async def _break_head(self, broken: Break) -> None:
        match broken.how:
            case "stall":
                await anyio.sleep_forever()
            case "reset" | "refuse":
                raise _Broken("reset")
            case "malformed":
                await self._connection.send(b"NONSENSE\r\n\r\n")
                raise _Broken("close")
            case _:
                raise _Broken("close")

    async def _break_body(self, broken: Break, following: Frame | None) -> None:
        """Break the answer off; only a malformed event lets it go on."""
        match broken.how:
            case "malformed":
                await self._event(_MALFORMED)
                return
            case "stall":
                await anyio.sleep_forever()
            case "reset" | "refuse":
                raise _Broken("reset")
            case "bad_chunk":
                await self._connection.send(b"ZZ\r\n")
                raise _Broken("close")
            case "truncate":
                await self._half(following)
                raise _Broken("close")
            case "error":
                await self._event(error_frame(self._vendor, broken.kind))
            case "gzip":
                await self._send(_NOISE)
            case "eof":
                pass
        await self._end()
        # Without chunks only a close ends the body; with an announced length it comes too early.
        raise _Broken("keep" if self._chunked else "close")

    async def _half(self, following: Frame | None) -> None:
        data = following.data if following is not None else b"data: "
        half = data[: len(data) // 2]
        await self._connection.send(b"%x\r\n%s" % (len(data), half) if self._chunked else half)

    async def _event(self, frame: Frame) -> None:
        data = frame.data
        if self._zipped:
            data = self._zip.compress(data) + self._zip.flush(zlib.Z_SYNC_FLUSH)
        match self._reply.split:
            case "whole":
                self._unsent.append(data)
            case "events":
                await self._send(data)
            case "bytes":
                for index in range(len(data)):
                    await self._send(data[index : index + 1])

    async def _flush(self) -> None:
        if self._unsent:
            data, self._unsent = b"".join(self._unsent), []
            await self._send(data)

    async def _end(self) -> None:
        await self._flush()
        if self._zipped:
            await self._send(self._zip.flush())
        if self._chunked:
            await self._connection.send(b"0\r\n\r\n")

    async def _send(self, data: bytes) -> None:
        await self._connection.send(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)
        if self._reply.delay_s:
            await anyio.sleep(self._reply.delay_s)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode("latin-1")


def _quoted(request: Received) -> str:
    names = ("authorization", "api-key", "x-api-key", "x-goog-api-key")
    keys = " ".join(request.headers[name] for name in names if name in request.headers)
    return f"(key: {keys}; request: {request.body[:1000].decode('utf-8', 'replace')})"
