"""A pytest plugin: the fixture `scripted`, a running `ScriptedGateway`.

Name it in a conftest.py: `pytest_plugins = ["floop_gateway_core.testing.plugin"]`. The fixture is async and runs under
anyio's plugin, so tests that use it are marked `@pytest.mark.anyio`.
"""

from collections.abc import AsyncIterator

import pytest

from floop_gateway_core.testing.gateway import ScriptedGateway, scripted_gateway

__all__ = ["scripted"]


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedGateway]:
    """Yield a running gateway over a scripted upstream, new for each test."""
    async with scripted_gateway() as running:
        yield running
