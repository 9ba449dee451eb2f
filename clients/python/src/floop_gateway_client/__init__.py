"""The client of the FloopFloop AI Gateway."""

from floop_gateway_client.client import AsyncFloopAI, FloopAI
from floop_gateway_client.errors import (
    BudgetExceededError,
    ConnectionFailed,
    FloopError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotImplementedByGateway,
    ProviderError,
    RateLimitedError,
    StreamCut,
    UnauthorizedError,
    UnavailableError,
)
from floop_gateway_client.streams import AsyncStream, Stream
from floop_gateway_client.values import Answer, Message, Usage

__all__ = [
    "Answer",
    "AsyncFloopAI",
    "AsyncStream",
    "BudgetExceededError",
    "ConnectionFailed",
    "FloopAI",
    "FloopError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "Message",
    "NotImplementedByGateway",
    "ProviderError",
    "RateLimitedError",
    "Stream",
    "StreamCut",
    "UnauthorizedError",
    "UnavailableError",
    "Usage",
]
