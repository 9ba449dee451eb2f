"""What all tests share: every async test runs on asyncio and on trio; the shipped suites' assertions are explained."""

import pytest
from hypothesis import settings

from floop_gateway_core.policy import retry

pytest.register_assert_rewrite("floop_gateway_core.testing")

# A deadline would make a slow machine a failure; a database would make one run depend on another.
settings.register_profile("house", deadline=None, max_examples=60, database=None)
settings.load_profile("house")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as little as possible between two attempts on one deployment."""
    monkeypatch.setattr(retry, "BACKOFF_BASE_S", 0.01)
