"""A model provider for tests: a real HTTP/1.1 server on a loopback socket, scripted answer by answer.

It speaks OpenAI's, Anthropic's and Gemini's streaming formats, each under the vendor's own path, and fails in
every way that real ones fail. Answers are taken in order: a script made for the request's model first, then the common
one; if neither has one left, `default` is sent every time.

    async with ScriptedUpstream() as upstream:
        upstream.script(Status(429, headers={"retry-after": "1"}), Break("reset", at="text"), Reply(["Hello"]))
        ...  # point the app under test at upstream.base_url("openai")
        assert [request.cut for request in upstream.requests] == [False, False, False]

It runs under asyncio and trio, in the task that enters it. It always streams: `stream: false` is ignored. It must
never be reachable from outside: it binds to 127.0.0.1.
"""

import socket
from collections import defaultdict, deque
from collections.abc import Callable
from types import TracebackType

import anyio

from floop_gateway_core.testing.answering import Answering, Ending
from floop_gateway_core.testing.answers import Answer, Break, Reply, Status, Vendor
from floop_gateway_core.testing.connection import Connection, Gone, Received

__all__ = ["ScriptedUpstream"]

_BACKLOG = 128


class ScriptedUpstream:
    """The server; enter it with `async with`. `requests` holds every request in the order of arrival."""

    def __init__(self, *answers: Answer, default: Answer | None = None) -> None:
        self.default: Answer = Reply() if default is None else default
        self.requests: list[Received] = []
        self.open_connections = 0
        self.streams_open = 0
        self._common: deque[Answer] = deque(answers)
        self._by_model: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._changed = anyio.Event()

    def script(self, *answers: Answer, model: str | None = None) -> None:
        """Append answers, for one model or for all."""
        (self._common if model is None else self._by_model[model]).extend(answers)

    @property
    def url(self) -> str:
        """Return the server's URL, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def base_url(self, vendor: Vendor) -> str:
        """Return the `base_url` for a deployment, as for the vendor's own SDK."""
        return f"{self.url}/v1" if vendor == "openai" else self.url

    @property
    def nowhere(self) -> str:
        """A URL whose port is held and refuses connections, for as long as the server runs."""
        return f"http://127.0.0.1:{self._nowhere.getsockname()[1]}"

    async def until(self, condition: Callable[["ScriptedUpstream"], bool]) -> None:
        """Wait until a condition holds: `await upstream.until(lambda u: u.open_connections == 0)`."""
        while not condition(self):
            await self._changed.wait()

    async def __aenter__(self) -> "ScriptedUpstream":
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._port: int = self._listener.getsockname()[1]
        self._nowhere = socket.socket()
        self._nowhere.bind(("127.0.0.1", 0))
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        try:
            # The task group does not see the body's exception, so it raises it as it is and not in an exception group.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._listener.close()
            self._nowhere.close()

    async def _accept(self) -> None:
        while True:
            await anyio.wait_readable(self._listener)
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue  # the client left again before it was accepted
            connection = Connection(sock)
            if self._common and _refuses(self._common[0]):
                self._common.popleft()
                connection.reset()
                continue
            self._count(connections=1)
            self._tasks.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            while (request := await connection.request()) is not None:
                self.requests.append(request)
                self._count(streams=1)
                try:
                    ending = await self._answer(connection, request)
                finally:
                    self._count(streams=-1)
                if ending == "reset":
                    connection.reset()
                if ending != "keep":
                    return
        finally:
            connection.close()
            self._count(connections=-1)

    async def _answer(self, connection: Connection, request: Received) -> Ending:
        """Send one answer; stop immediately if the client leaves."""
        ending: Ending = "close"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch, connection, request, tasks.cancel_scope)
            try:
                ending = await Answering(connection, request).give(self._next(request))
                request.answered = True
            except Gone:
                request.cut = True
            tasks.cancel_scope.cancel()
        return ending

    def _next(self, request: Received) -> Reply | Status:
        queue = self._by_model.get(request.model) or self._common
        answer = queue.popleft() if queue else self.default
        if _refuses(answer):  # unknown when the connection was accepted: it is reused, or the script is for one model
            return Reply(broken=Break("refuse", "head"))
        return Reply(broken=answer) if isinstance(answer, Break) else answer

    def _count(self, *, connections: int = 0, streams: int = 0) -> None:
        self.open_connections += connections
        self.streams_open += streams
        self._changed.set()
        self._changed = anyio.Event()


async def _watch(connection: Connection, request: Received, scope: anyio.CancelScope) -> None:
    await connection.gone()
    request.cut = True
    scope.cancel()


def _refuses(answer: Answer) -> bool:
    if isinstance(answer, Reply):
        answer = answer.broken or answer
    return isinstance(answer, Break) and answer.how == "refuse"
