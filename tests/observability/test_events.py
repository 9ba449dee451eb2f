"""Listeners only listen: what they raise is logged, and headers that they add reach the upstream."""

from collections.abc import Mapping

import pytest

from floop_gateway_core import Gateway, Settings
from floop_gateway_core.observability import GatewayEvent, Listener, RequestStarted, Settled
from floop_gateway_core.testing import scripted_gateway
from floop_gateway_core.types import RequestId

pytestmark = pytest.mark.anyio


class Traces:
    def __init__(self, headers: Mapping[str, str] | None) -> None:
        self.seen: list[GatewayEvent] = []
        self.headers = headers

    def __call__(self, event: GatewayEvent) -> None:
        self.seen.append(event)

    def upstream_headers(self, request_id: RequestId, attempt: int) -> Mapping[str, str]:
        if self.headers is None:
            raise ValueError("no trace")
        return {**self.headers, "x-attempt": f"{attempt}"}


async def fails_later(event: GatewayEvent) -> None:
    raise RuntimeError("later")


def fails(event: GatewayEvent) -> None:
    raise RuntimeError("now")


async def test_what_a_listener_raises_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces(None)
    listeners: list[Listener] = [fails, fails_later, traces]
    async with scripted_gateway(listeners=listeners) as scripted:
        assert "Hello, world!" == (await scripted.gateway.generate(scripted.key, "Hi")).content
    assert isinstance(traces.seen[0], RequestStarted)
    assert isinstance(traces.seen[-1], Settled)
    said = {record.getMessage() for record in caplog.records if record.levelname == "ERROR"}
    assert {"a listener failed on Settled", "an async listener failed", "a listener's upstream_headers failed"} <= said


async def test_a_listeners_headers_go_to_the_upstream() -> None:
    listeners = [Traces({"traceparent": "00-1-2-01"})]
    async with scripted_gateway(listeners=listeners) as scripted:
        await scripted.gateway.generate(scripted.key, "Hi")
        headers = scripted.upstream.requests[0].headers
        assert ("00-1-2-01", "1") == (headers["traceparent"], headers["x-attempt"])


async def test_a_hook_of_the_configuration_is_a_listener_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[GatewayEvent] = []
    monkeypatch.setattr("floop_gateway_core.testing.seen", seen.append, raising=False)
    settings = Settings.read(
        {"store": "memory://", "hooks": {"lifecycle": "floop_gateway_core.testing:seen"}}, source="test"
    )
    async with Gateway(settings) as gateway:
        key = (await gateway.admin.create_project("p", credits="1")).key
        await gateway.generate(key, "Hi")
    assert isinstance(seen[-1], Settled)
