"""The clients: one for threads, one for event loops."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from floop_gateway_client import wire
from floop_gateway_client.errors import ConnectionFailed
from floop_gateway_client.streams import AsyncStream, Stream
from floop_gateway_client.values import Answer, Message, Options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncFloopAI", "FloopAI"]

KEY_VARIABLE, URL_VARIABLE = "FLOOPFLOOP_AI_KEY", "FLOOPFLOOP_AI_URL"
DEFAULT_URL = "https://api.floopfloop.com/api/v1/ai"
DEFAULT_TIMEOUT_S = 300.0
MAY_HELP = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
"""Failures after which another try may help: it reuses the idempotency key, so nothing runs or is charged twice."""


class _Settings:
    def __init__(self, api_key: str | None, base_url: str | None, max_retries: int) -> None:
        key = api_key or os.environ.get(KEY_VARIABLE)
        if not key:
            raise ValueError(f"pass api_key, or set {KEY_VARIABLE}")
        if max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more, got {max_retries}")
        self._api_key = key
        self._url = (base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        self._max_retries = max_retries

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._url!r})"

    def _request(self, client: Any, path: str, fields: dict[str, Any]) -> Any:
        body = wire.without_none(fields)
        return client.build_request("POST", self._url + path, json=body, headers=wire.headers(self._api_key))

    def _delay_after(self, error: httpx.HTTPError, tries: int) -> float:
        """Return how long to wait after a failure, or raise `ConnectionFailed`."""
        if isinstance(error, MAY_HELP) and tries < self._max_retries:
            return wire.backoff_s(tries)
        said = f"the gateway at {self._url} cannot be reached: {type(error).__name__}"
        raise ConnectionFailed(said, "CONNECTION_FAILED") from None


class FloopAI(_Settings):
    """The client for threads and scripts. The key and the address may come from the environment.

    `timeout` is in seconds, for each wait and not for a whole stream. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        max_retries: int = 2,
    ) -> None:
        super().__init__(api_key, base_url, max_retries)
        self._client = httpx.Client(timeout=timeout)

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Answer:
        """Answer a list of messages; raise `FloopError`."""
        return self._answer("/chat", {"messages": list(messages), **options})

    def generate(self, prompt: str, **options: Unpack[Options]) -> Answer:
        """Answer one prompt; raise `FloopError`."""
        return self._answer("/generate", {"prompt": prompt, **options})

    def stream(self, messages: Sequence[Message] | str, **options: Unpack[Options]) -> Stream:
        """Return a stream to enter: of an answer to messages, or to one prompt."""
        path, said = ("/generate", "prompt") if isinstance(messages, str) else ("/chat", "messages")
        value = messages if isinstance(messages, str) else list(messages)
        return Stream(lambda: self._sent(path, {said: value, **options, "stream": True}, stream=True))

    def embed(self, text: str) -> None:
        """Raise `NotImplementedByGateway`: embeddings are reserved for later."""
        self._sent("/embed", {"input": text}, stream=False)

    def _answer(self, path: str, fields: dict[str, Any]) -> Answer:
        response = self._sent(path, fields, stream=False)
        return wire.answer(response.content, response.headers, response.status_code)

    def _sent(self, path: str, fields: dict[str, Any], *, stream: bool) -> httpx.Response:
        request = self._request(self._client, path, fields)
        for tries in range(self._max_retries + 1):
            try:
                response = self._client.send(request, stream=stream)
                if response.status_code == 200:
                    return response
                body = response.read()
            except httpx.HTTPError as error:
                time.sleep(self._delay_after(error, tries))
                continue
            delay_s = wire.retry_delay_s(response.status_code, response.headers, tries)
            if delay_s is None or tries == self._max_retries:
                raise wire.refusal(response.status_code, response.headers, body)
            time.sleep(delay_s)
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> FloopAI:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncFloopAI(_Settings):
    """The client for event loops of asyncio, with the methods of `FloopAI`."""

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        max_retries: int = 2,
    ) -> None:
        super().__init__(api_key, base_url, max_retries)
        self._client = httpx.AsyncClient(timeout=timeout)

    async def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Answer:
        """Answer a list of messages; raise `FloopError`."""
        return await self._answer("/chat", {"messages": list(messages), **options})

    async def generate(self, prompt: str, **options: Unpack[Options]) -> Answer:
        """Answer one prompt; raise `FloopError`."""
        return await self._answer("/generate", {"prompt": prompt, **options})

    def stream(self, messages: Sequence[Message] | str, **options: Unpack[Options]) -> AsyncStream:
        """Return a stream to enter: of an answer to messages, or to one prompt."""
        path, said = ("/generate", "prompt") if isinstance(messages, str) else ("/chat", "messages")
        value = messages if isinstance(messages, str) else list(messages)
        return AsyncStream(lambda: self._sent(path, {said: value, **options, "stream": True}, stream=True))

    async def embed(self, text: str) -> None:
        """Raise `NotImplementedByGateway`: embeddings are reserved for later."""
        await self._sent("/embed", {"input": text}, stream=False)

    async def _answer(self, path: str, fields: dict[str, Any]) -> Answer:
        response = await self._sent(path, fields, stream=False)
        return wire.answer(response.content, response.headers, response.status_code)

    async def _sent(self, path: str, fields: dict[str, Any], *, stream: bool) -> httpx.Response:
        request = self._request(self._client, path, fields)
        for tries in range(self._max_retries + 1):
            try:
                response = await self._client.send(request, stream=stream)
                if response.status_code == 200:
                    return response
                body = await response.aread()
            except httpx.HTTPError as error:
                await asyncio.sleep(self._delay_after(error, tries))
                continue
            delay_s = wire.retry_delay_s(response.status_code, response.headers, tries)
            if delay_s is None or tries == self._max_retries:
                raise wire.refusal(response.status_code, response.headers, body)
            await asyncio.sleep(delay_s)
        raise AssertionError("the last try returns or raises")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncFloopAI:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
