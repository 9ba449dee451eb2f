"""Every test here runs over asyncio (on the default transport) and over trio (on plain httpx)."""

from typing import get_args

import pytest

from floop_gateway_core.testing.answers import Vendor


@pytest.fixture(params=get_args(Vendor))
def vendor(request: pytest.FixtureRequest) -> Vendor:
    value: Vendor = request.param
    return value


@pytest.fixture(params=[False, True], ids=["json", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value
