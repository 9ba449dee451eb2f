"""Rate limits in Valkey or Redis: one script call per request, for several machines that share their limits.

Each project has a list of the instants that still count, in microseconds. The script trims it, counts, and keeps the new
instant if there is room; `policy.rate_window.decide` turns the counts into the decision. Keys have
the project in braces, so that a cluster keeps each in one place.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import redis
import redis.asyncio
from anyio.lowlevel import RunVar
from redis.backoff import NoBackoff

from floop_gateway_core.policy.rate_window import WINDOW_S, RateDecision, decide, microseconds
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.types import ProjectId

__all__ = ["SCHEMES", "ValkeyRate"]

SCHEMES = {"valkey": "redis", "valkeys": "rediss", "redis": "redis", "rediss": "rediss"}
MAX_CONNECTIONS = 8
"""Per run of trio; an event loop of asyncio has one, which its requests share."""
MAX_BATCH = 256
"""The most requests that are sent together."""
WINDOW_US = microseconds(WINDOW_S)
# Every instant is kept at most a window beyond the last one; the numbers are below 2^53, so Lua's doubles hold them.
SCRIPT = """
local key, now, window, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local first = redis.call('LINDEX', key, 0)
while first and tonumber(first) <= now - window do
    redis.call('LPOP', key)
    first = redis.call('LINDEX', key, 0)
end
local last = redis.call('LINDEX', key, -1)
while last and tonumber(last) > now + window do
    redis.call('RPOP', key)
    last = redis.call('LINDEX', key, -1)
end
local count = redis.call('LLEN', key)
first = redis.call('LINDEX', key, 0)
local leaving = false
if count >= limit then
    leaving = redis.call('LINDEX', key, count - limit)
else
    redis.call('RPUSH', key, string.format('%.0f', math.max(now, last and tonumber(last) or now)))
    redis.call('PEXPIRE', key, math.ceil(window / 1000) + 1000)
end
return {count, leaving, first}
"""


class ValkeyRate:
    """`url` is `valkey://`, `valkeys://` (TLS), `redis://` or `rediss://`; raises ValueError for any other.

    Each event loop has a connection of its own, which concurrent requests share. On trio, where the client does not
    run, it is called in a worker thread.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES or not rest:
            raise ValueError(f"the URL must begin with {', '.join(f'{one}://' for one in SCHEMES)}")
        self._timeout_s = timeout_s
        self._url = f"{SCHEMES[scheme]}://{rest}"
        self._clients: RunVar[_Client | None] = RunVar(f"floop_gateway_valkey_{id(self)}")

    async def acquire(self, project: ProjectId, limit: int, now: float) -> RateDecision:
        """Spend one request of the project's moving minute, or refuse; raise `StoreUnavailable`."""
        now_us = microseconds(now)
        try:
            with anyio.fail_after(self._timeout_s):
                count, leaving, oldest = await self._client().run(project, (now_us, WINDOW_US, limit))
        except TimeoutError:
            raise StoreUnavailable(f"Valkey: no answer within {self._timeout_s:g} s") from None
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"Valkey: {type(error).__name__}") from None
        return decide(
            limit=limit,
            count=int(count),
            oldest_us=None if oldest is None else int(oldest),
            leaving_us=None if leaving is None else int(leaving),
            now_us=now_us,
            window_us=WINDOW_US,
        )

    def _client(self) -> "_Client":
        client = self._clients.get(None)
        if client is None:
            client = _Client(self._url, timeout_s=self._timeout_s)
            self._clients.set(client)
        return client

    async def setup(self) -> None:
        """Do nothing: the connections are opened with the first request."""

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        client = self._clients.get(None)
        if client is not None:
            await client.aclose()
            self._clients.set(None)


class _Client:
    """The client of one event loop."""

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            retry = redis.retry.Retry(NoBackoff(), 1)
            pool = redis.BlockingConnectionPool.from_url(
                url, retry=retry, max_connections=MAX_CONNECTIONS, timeout=timeout_s, **options
            )
            self._sync: redis.Redis | None = redis.Redis.from_pool(pool)
            self._script: Any = self._sync.register_script(SCRIPT)
        else:
            self._sync = None
            again = redis.asyncio.retry.Retry(NoBackoff(), 1)
            self._async = redis.asyncio.Redis.from_url(url, retry=again, **options)
            self._script = self._async.register_script(SCRIPT)
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def run(self, project: ProjectId, arguments: tuple[int, ...]) -> Any:
        key = f"floop-gateway:{{{project}}}:rate"
        if self._sync is not None:
            call = partial(self._script, keys=[key], args=arguments)
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._waiting.append(_Waiting(key, arguments, answer))
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        """Send what is waiting, all together, until nothing is: one connection serves every request of the event loop."""
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                answers = await self._answers(batch)
                if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):  # a new server
                    await self._async.script_load(SCRIPT)
                    answers = await self._answers(batch)
            except Exception as error:
                answers = [error] * len(batch)
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():  # its request has given up
                    continue
                if isinstance(answer, Exception):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)

    async def _answers(self, batch: "list[_Waiting]") -> list[Any]:
        pipeline = self._async.pipeline(transaction=False)
        for one in batch:
            pipeline.evalsha(self._script.sha, 1, one.key, *one.arguments)
        return await pipeline.execute(raise_on_error=False)

    async def aclose(self) -> None:
        if self._sync is not None:
            self._sync.close()
            return
        if self._sending is not None:
            await asyncio.wait([self._sending])
        await self._async.aclose()


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: str
    arguments: tuple[int, ...]
    answer: "asyncio.Future[Any]"
