"""Endless event streams end when their server stops."""

import signal
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import anyio
import pytest

from floop_gateway_asgi.streaming import EventStreamResponse
from floop_gateway_core.hosting import stopping

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def running() -> Iterator[None]:
    yield
    stopping._stopped.clear()


class Server:
    def __init__(self, **state: bool) -> None:
        self.__dict__.update(state)

    def handle_exit(self, *_: object) -> None: ...


@pytest.mark.parametrize("server", [Server(should_exit=True), Server(alive=False)], ids=["uvicorn", "gunicorn"])
def test_a_server_that_stops_is_seen_by_its_handler(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: server.handle_exit)
    assert stopping.server_is_stopping()


@pytest.mark.parametrize(
    "handler", [signal.SIG_DFL, None, Server(should_exit=False).handle_exit, Server(alive=True).handle_exit]
)
def test_other_handlers_say_nothing(handler: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: handler)
    assert not stopping.server_is_stopping()


async def test_an_endless_stream_ends_properly_when_the_host_says_so() -> None:
    sent: list[dict[str, object]] = []
    closed = False

    async def ticks() -> AsyncIterator[str]:
        nonlocal closed
        try:
            while True:
                yield "tick"
                await anyio.sleep(0.01)
        finally:
            closed = True

    async def send(message: dict[str, object]) -> None:
        sent.append(message)
        if len(sent) == 5:
            stopping.stop_event_streams(SimpleNamespace())

    with anyio.fail_after(10):
        await EventStreamResponse(ticks())({"type": "http", "method": "GET", "headers": []}, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert closed
    assert {"type": "http.response.body", "body": b""} == sent[-1]
