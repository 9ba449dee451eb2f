"""Streams: enter one, and iterate over its texts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import TracebackType

import httpx

from floop_gateway_client.errors import StreamCut
from floop_gateway_client.values import Usage
from floop_gateway_client.wire import Frames

__all__ = ["AsyncStream", "Stream"]


def _cut(error: httpx.HTTPError, request_id: str | None) -> StreamCut:
    return StreamCut(f"the connection broke: {type(error).__name__}", "STREAM_CUT", 200, request_id)


class _Ended:
    """What a stream knows at its end."""

    _frames: Frames | None = None

    @property
    def usage(self) -> Usage | None:
        """What the call cost; None before the end."""
        return None if self._frames is None else self._frames.usage

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended; None before the end."""
        return None if self._frames is None else self._frames.finish_reason

    @property
    def request_id(self) -> str | None:
        """The request's id in the gateway's log; None before the stream is entered."""
        return None if self._frames is None else self._frames.request_id


class Stream(_Ended):
    """`with ai.stream(messages) as stream: for text in stream: …`. A stream that is cut raises `StreamCut`."""

    def __init__(self, open: Callable[[], httpx.Response]) -> None:
        self._open = open
        self._response: httpx.Response | None = None
        self._texts: Generator[str, None, None] | None = None

    def __enter__(self) -> Stream:
        self._response = self._open()
        self._frames = Frames(self._response.headers.get("x-request-id"))
        self._texts = self._read(self._response, self._frames)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._texts is not None:
            self._texts.close()
        if self._response is not None:
            self._response.close()

    def __iter__(self) -> Iterator[str]:
        if self._texts is None:
            raise RuntimeError("use the stream in a context: with ai.stream(…) as stream")
        return self._texts

    def _read(self, response: httpx.Response, frames: Frames) -> Generator[str, None, None]:
        try:
            for chunk in response.iter_bytes():
                yield from frames.feed(chunk)
        except httpx.HTTPError as error:
            if not frames.done:
                raise _cut(error, frames.request_id) from None
        frames.end()


class AsyncStream(_Ended):
    """`async with ai.stream(messages) as stream: async for text in stream: …`."""

    def __init__(self, open: Callable[[], Awaitable[httpx.Response]]) -> None:
        self._open = open
        self._response: httpx.Response | None = None
        self._texts: AsyncGenerator[str, None] | None = None

    async def __aenter__(self) -> AsyncStream:
        self._response = await self._open()
        self._frames = Frames(self._response.headers.get("x-request-id"))
        self._texts = self._read(self._response, self._frames)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._texts is not None:
            await self._texts.aclose()
        if self._response is not None:
            await self._response.aclose()

    def __aiter__(self) -> AsyncIterator[str]:
        if self._texts is None:
            raise RuntimeError("use the stream in a context: async with ai.stream(…) as stream")
        return self._texts

    async def _read(self, response: httpx.Response, frames: Frames) -> AsyncGenerator[str, None]:
        try:
            async for chunk in response.aiter_bytes():
                for text in frames.feed(chunk):
                    yield text
        except httpx.HTTPError as error:
            if not frames.done:
                raise _cut(error, frames.request_id) from None
        frames.end()
