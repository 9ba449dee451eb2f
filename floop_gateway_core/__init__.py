"""floop-gateway: the LLM gateway that you mount inside the Python web app you already have.

Everything public is importable from here and resolved at its first use, so importing a single piece loads that piece.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from floop_gateway_core.admin import Admin as Admin
    from floop_gateway_core.admin import KeyRotated as KeyRotated
    from floop_gateway_core.bridge import Bridge as Bridge
    from floop_gateway_core.calls import Answer as Answer
    from floop_gateway_core.config import ConfigError as ConfigError
    from floop_gateway_core.config import Settings as Settings
    from floop_gateway_core.errors import CATALOGUE as CATALOGUE
    from floop_gateway_core.errors import BudgetExceededError as BudgetExceededError
    from floop_gateway_core.errors import ErrorCode as ErrorCode
    from floop_gateway_core.errors import GatewayError as GatewayError
    from floop_gateway_core.errors import InsufficientCreditsError as InsufficientCreditsError
    from floop_gateway_core.errors import InvalidRequestError as InvalidRequestError
    from floop_gateway_core.errors import ProviderError as ProviderError
    from floop_gateway_core.errors import RateLimitedError as RateLimitedError
    from floop_gateway_core.errors import Refusal as Refusal
    from floop_gateway_core.errors import UnauthorizedError as UnauthorizedError
    from floop_gateway_core.errors import UnavailableError as UnavailableError
    from floop_gateway_core.gateway import Gateway as Gateway
    from floop_gateway_core.pieces.breaker import Breaker as Breaker
    from floop_gateway_core.pieces.breaker import BreakerOpen as BreakerOpen
    from floop_gateway_core.pieces.credits import Credits as Credits
    from floop_gateway_core.pieces.limiting import RequestLimiter as RequestLimiter
    from floop_gateway_core.policy.breaker import CircuitBreaker as CircuitBreaker
    from floop_gateway_core.policy.classify import Classification as Classification
    from floop_gateway_core.policy.classify import classify as classify
    from floop_gateway_core.policy.estimate import TokenEstimate as TokenEstimate
    from floop_gateway_core.policy.estimate import estimate_messages as estimate_messages
    from floop_gateway_core.policy.estimate import estimate_tokens as estimate_tokens
    from floop_gateway_core.policy.estimate import fits as fits
    from floop_gateway_core.policy.pricing import Prices as Prices
    from floop_gateway_core.policy.route import Routes as Routes
    from floop_gateway_core.policy.window import Decision as Decision
    from floop_gateway_core.policy.window import RateLimiter as RateLimiter
    from floop_gateway_core.stores.memory import MemoryStore as MemoryStore
    from floop_gateway_core.stores.sqlite import SQLiteStore as SQLiteStore
    from floop_gateway_core.types import Completed as Completed
    from floop_gateway_core.types import Message as Message
    from floop_gateway_core.types import Microcredits as Microcredits
    from floop_gateway_core.types import TextPart as TextPart
    from floop_gateway_core.types import Texts as Texts
    from floop_gateway_core.types import Usage as Usage
    from floop_gateway_core.wire.exchange import BodyReader as BodyReader
    from floop_gateway_core.wire.exchange import ClientDisconnected as ClientDisconnected
    from floop_gateway_core.wire.exchange import GatewayRequest as GatewayRequest
    from floop_gateway_core.wire.exchange import Reply as Reply
    from floop_gateway_core.wire.sse import ServerSentEvent as ServerSentEvent
    from floop_gateway_core.wire.sse import SSEDecoder as SSEDecoder
    from floop_gateway_core.wire.sse import SSEEncoder as SSEEncoder

_WHERE = {
    "admin": ("Admin", "KeyRotated"),
    "bridge": ("Bridge",),
    "calls": ("Answer",),
    "config": ("ConfigError", "Settings"),
    "errors": (
        "CATALOGUE",
        "ErrorCode",
        "GatewayError",
        "Refusal",
        "BudgetExceededError",
        "InsufficientCreditsError",
        "InvalidRequestError",
        "ProviderError",
        "RateLimitedError",
        "UnauthorizedError",
        "UnavailableError",
    ),
    "gateway": ("Gateway",),
    "pieces.breaker": ("Breaker", "BreakerOpen"),
    "pieces.credits": ("Credits",),
    "pieces.limiting": ("RequestLimiter",),
    "policy.breaker": ("CircuitBreaker",),
    "policy.classify": ("Classification", "classify"),
    "policy.estimate": ("TokenEstimate", "estimate_messages", "estimate_tokens", "fits"),
    "policy.pricing": ("Prices",),
    "policy.route": ("Routes",),
    "policy.window": ("Decision", "RateLimiter"),
    "stores.memory": ("MemoryStore",),
    "stores.sqlite": ("SQLiteStore",),
    "types": ("Completed", "Message", "Microcredits", "TextPart", "Texts", "Usage"),
    "wire.exchange": ("BodyReader", "ClientDisconnected", "GatewayRequest", "Reply"),
    "wire.sse": ("SSEDecoder", "SSEEncoder", "ServerSentEvent"),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
