"""The public names are pinned: adding one is a decision, removing one breaks somebody."""

import importlib
import importlib.metadata
import pkgutil

import pytest

import floop_gateway_core

PUBLIC = [
    "Admin",
    "AdminError",
    "Answer",
    "AnswerStream",
    "Bill",
    "BodyReader",
    "Breaker",
    "BreakerOpen",
    "Bridge",
    "BudgetExceededError",
    "CATALOGUE",
    "CircuitBreaker",
    "Classification",
    "ClientDisconnected",
    "Completed",
    "ConfigError",
    "Conflict",
    "Credits",
    "ErrorCode",
    "Failed",
    "FieldError",
    "Forbidden",
    "Gateway",
    "GatewayError",
    "GatewayRequest",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "KeyRotated",
    "MemoryStore",
    "Message",
    "Microcredits",
    "Mountable",
    "NewKey",
    "NoSuchAccount",
    "NoSuchProject",
    "NoSuchRequest",
    "Operator",
    "Prices",
    "Project",
    "ProjectExists",
    "ProjectSettings",
    "ProjectStatus",
    "ProviderError",
    "ProviderSpec",
    "RateDecision",
    "RateLimitedError",
    "RateLimiter",
    "Refusal",
    "Reply",
    "RequestLimiter",
    "Routes",
    "SQLiteStore",
    "SSEDecoder",
    "SSEEncoder",
    "ServerSentEvent",
    "Settings",
    "Started",
    "Store",
    "StoreUnavailable",
    "TextPart",
    "Texts",
    "Thresholds",
    "TokenEstimate",
    "UnauthorizedError",
    "UnavailableError",
    "Usage",
    "UsageRecord",
    "classify",
    "estimate_messages",
    "estimate_tokens",
    "fits",
    "register_provider",
]


def test_the_names_at_the_top_are_these() -> None:
    assert sorted(PUBLIC) == sorted(floop_gateway_core.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(floop_gateway_core, name)
    if isinstance(value, type) or callable(value):
        assert value.__doc__


def test_the_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("floop-gateway") == floop_gateway_core.__version__


def test_every_name_in_an_all_exists() -> None:
    for module in pkgutil.walk_packages(floop_gateway_core.__path__, "floop_gateway_core."):
        if module.name.endswith(("__main__", "local_model")):
            continue
        found = importlib.import_module(module.name)
        for name in getattr(found, "__all__", ()):
            assert hasattr(found, name), f"{module.name}.{name}"
