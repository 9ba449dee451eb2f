"""The fixture for users' tests: a gateway over a scripted upstream."""

import pytest

from floop_gateway_core import GatewayRequest
from floop_gateway_core.testing import Reply, ScriptedGateway, Status, scripted_gateway

pytest_plugins = ["floop_gateway_core.testing.plugin"]
pytestmark = pytest.mark.anyio


async def test_a_test_scripts_what_the_apps_model_answers(scripted: ScriptedGateway) -> None:
    scripted.upstream.script(Reply(["Hello"]))
    headers = list(scripted.headers.items())
    request = GatewayRequest("POST", "/generate", headers, b'{"prompt": "Hi"}')
    async with scripted.gateway.open(request) as reply:
        assert 200 == reply.status
        assert isinstance(reply.body, bytes)
        assert b'"content": "Hello"' in reply.body
    assert scripted.key not in repr(scripted)


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "gemini"])
async def test_it_speaks_every_vendors_format_and_takes_settings(vendor: str) -> None:
    limits = {"upstream": {"attempts": 1}}
    async with scripted_gateway(Status(500), Reply(["Hi"]), vendor=vendor, settings=limits) as scripted:  # type: ignore[arg-type]
        with pytest.raises(Exception, match="PROVIDER_ERROR"):
            await scripted.gateway.generate(scripted.key, "Hi")
        assert "Hi" == (await scripted.gateway.generate(scripted.key, "Hi")).content
