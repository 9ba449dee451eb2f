"""floop-gateway: the LLM gateway that you mount inside the Python web app you already have.

Everything public is importable from here and resolved at its first use, so importing a single piece loads only that piece.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from floop_gateway_core.admin import Admin as Admin
    from floop_gateway_core.admin import KeyRotated as KeyRotated
    from floop_gateway_core.admin import NewKey as NewKey
    from floop_gateway_core.admin import Operator as Operator
    from floop_gateway_core.admin import ProjectStatus as ProjectStatus
    from floop_gateway_core.bridge import Bridge as Bridge
    from floop_gateway_core.config import ConfigError as ConfigError
    from floop_gateway_core.config import Settings as Settings
    from floop_gateway_core.errors import CATALOGUE as CATALOGUE
    from floop_gateway_core.errors import AdminError as AdminError
    from floop_gateway_core.errors import BudgetExceededError as BudgetExceededError
    from floop_gateway_core.errors import Conflict as Conflict
    from floop_gateway_core.errors import ErrorCode as ErrorCode
    from floop_gateway_core.errors import FieldError as FieldError
    from floop_gateway_core.errors import Forbidden as Forbidden
    from floop_gateway_core.errors import GatewayError as GatewayError
    from floop_gateway_core.errors import InsufficientCreditsError as InsufficientCreditsError
    from floop_gateway_core.errors import InvalidRequestError as InvalidRequestError
    from floop_gateway_core.errors import NoSuchAccount as NoSuchAccount
    from floop_gateway_core.errors import NoSuchRequest as NoSuchRequest
    from floop_gateway_core.errors import ProviderError as ProviderError
    from floop_gateway_core.errors import RateLimitedError as RateLimitedError
    from floop_gateway_core.errors import Refusal as Refusal
    from floop_gateway_core.errors import UnauthorizedError as UnauthorizedError
    from floop_gateway_core.errors import UnavailableError as UnavailableError
    from floop_gateway_core.gateway import Gateway as Gateway
    from floop_gateway_core.in_process import Answer as Answer
    from floop_gateway_core.in_process import AnswerStream as AnswerStream
    from floop_gateway_core.policy.auto.classify import Classification as Classification
    from floop_gateway_core.policy.auto.classify import Thresholds as Thresholds
    from floop_gateway_core.policy.auto.classify import classify as classify
    from floop_gateway_core.policy.breaker import CircuitBreaker as CircuitBreaker
    from floop_gateway_core.policy.pricing import Prices as Prices
    from floop_gateway_core.policy.rate_window import RateDecision as RateDecision
    from floop_gateway_core.policy.rate_window import RateLimiter as RateLimiter
    from floop_gateway_core.policy.routes import Routes as Routes
    from floop_gateway_core.policy.tokens.estimate import TokenEstimate as TokenEstimate
    from floop_gateway_core.policy.tokens.estimate import estimate_messages as estimate_messages
    from floop_gateway_core.policy.tokens.estimate import estimate_tokens as estimate_tokens
    from floop_gateway_core.policy.tokens.estimate import fits as fits
    from floop_gateway_core.providers.registry import ProviderSpec as ProviderSpec
    from floop_gateway_core.providers.registry import register_provider as register_provider
    from floop_gateway_core.stores.base import NoSuchProject as NoSuchProject
    from floop_gateway_core.stores.base import ProjectExists as ProjectExists
    from floop_gateway_core.stores.base import Store as Store
    from floop_gateway_core.stores.base import StoreUnavailable as StoreUnavailable
    from floop_gateway_core.stores.memory import MemoryStore as MemoryStore
    from floop_gateway_core.stores.sqlite import SQLiteStore as SQLiteStore
    from floop_gateway_core.toolkit.breaker import Breaker as Breaker
    from floop_gateway_core.toolkit.breaker import BreakerOpen as BreakerOpen
    from floop_gateway_core.toolkit.credits import Credits as Credits
    from floop_gateway_core.toolkit.limiting import RequestLimiter as RequestLimiter
    from floop_gateway_core.types import Bill as Bill
    from floop_gateway_core.types import Completed as Completed
    from floop_gateway_core.types import Failed as Failed
    from floop_gateway_core.types import Message as Message
    from floop_gateway_core.types import Microcredits as Microcredits
    from floop_gateway_core.types import Project as Project
    from floop_gateway_core.types import ProjectSettings as ProjectSettings
    from floop_gateway_core.types import Started as Started
    from floop_gateway_core.types import TextPart as TextPart
    from floop_gateway_core.types import Texts as Texts
    from floop_gateway_core.types import Usage as Usage
    from floop_gateway_core.types import UsageRecord as UsageRecord
    from floop_gateway_core.wire.messages import BodyReader as BodyReader
    from floop_gateway_core.wire.messages import ClientDisconnected as ClientDisconnected
    from floop_gateway_core.wire.messages import GatewayRequest as GatewayRequest
    from floop_gateway_core.wire.messages import Mountable as Mountable
    from floop_gateway_core.wire.messages import Reply as Reply
    from floop_gateway_core.wire.sse import ServerSentEvent as ServerSentEvent
    from floop_gateway_core.wire.sse import SSEDecoder as SSEDecoder
    from floop_gateway_core.wire.sse import SSEEncoder as SSEEncoder

_EXPORTS = {
    "admin": ("Admin", "KeyRotated", "NewKey", "Operator", "ProjectStatus"),
    "bridge": ("Bridge",),
    "config": ("ConfigError", "Settings"),
    "errors": (
        "CATALOGUE",
        "AdminError",
        "NoSuchAccount",
        "BudgetExceededError",
        "Conflict",
        "Forbidden",
        "NoSuchRequest",
        "ErrorCode",
        "FieldError",
        "GatewayError",
        "InsufficientCreditsError",
        "InvalidRequestError",
        "ProviderError",
        "RateLimitedError",
        "Refusal",
        "UnauthorizedError",
        "UnavailableError",
    ),
    "gateway": ("Gateway",),
    "in_process": ("Answer", "AnswerStream"),
    "policy.auto.classify": ("Classification", "Thresholds", "classify"),
    "policy.breaker": ("CircuitBreaker",),
    "policy.pricing": ("Prices",),
    "policy.rate_window": ("RateDecision", "RateLimiter"),
    "policy.routes": ("Routes",),
    "policy.tokens.estimate": ("TokenEstimate", "estimate_messages", "estimate_tokens", "fits"),
    "providers.registry": ("ProviderSpec", "register_provider"),
    "stores.base": ("NoSuchProject", "ProjectExists", "Store", "StoreUnavailable"),
    "stores.memory": ("MemoryStore",),
    "stores.sqlite": ("SQLiteStore",),
    "toolkit.breaker": ("Breaker", "BreakerOpen"),
    "toolkit.credits": ("Credits",),
    "toolkit.limiting": ("RequestLimiter",),
    "types": (
        "Bill",
        "Completed",
        "Failed",
        "Message",
        "Microcredits",
        "Project",
        "ProjectSettings",
        "Started",
        "TextPart",
        "Texts",
        "Usage",
        "UsageRecord",
    ),
    "wire.messages": ("BodyReader", "ClientDisconnected", "GatewayRequest", "Mountable", "Reply"),
    "wire.sse": ("SSEDecoder", "SSEEncoder", "ServerSentEvent"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version("floop-gateway")
    elif name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
