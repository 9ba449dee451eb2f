"""The providers that a deployment can name, each with everything the gateway needs to know about it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from floop_gateway_core.policy.schemas import ANTHROPIC_RULES, OPENAI_RULES, SchemaRules
from floop_gateway_core.providers.anthropic import AnthropicCodec
from floop_gateway_core.providers.anthropic.codec import TEMPERATURE_MAX as ANTHROPIC_TEMPERATURE_MAX
from floop_gateway_core.providers.anthropic.codec import THINKING as ANTHROPIC_THINKING
from floop_gateway_core.providers.base import Codec, Provider
from floop_gateway_core.providers.echo import EchoProvider
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.gemini.codec import THINKING as GEMINI_THINKING
from floop_gateway_core.providers.http.driver import HttpProvider, HttpSenders
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.providers.openai.codec import THINKING as OPENAI_THINKING
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.thinking import ANY_THINKING, ThinkingRange
from floop_gateway_core.types import Capability, Wish

__all__ = ["Place", "ProviderSpec", "provider_names", "register_provider", "spec_of"]

ENTRY_POINTS = "floop_gateway.providers"
"""The group of entry points by which an installed package offers its `ProviderSpec`s."""


COMMON: frozenset[Capability] = frozenset({"tools", "images", "json_schema"})
"""What the models of all three vendors can do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a provider sends its requests, and with which connections. `base_url` of None is the vendor's own."""

    senders: HttpSenders
    base_url: str | None = None
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A kind of provider: how to make one for a deployment, and its defaults.

    `vocabulary` is what token estimates use unless the deployment sets its own. `needs_model` is whether a deployment
    must name a model and a price. `thinking_budget` is whether the vendor supports `thinking_tokens`.
    """

    name: str
    make: Callable[[Options, Place], Provider]
    vocabulary: str = "o200k"
    needs_model: bool = True
    thinking_budget: bool = True
    capabilities: frozenset[Capability] = frozenset()
    """What its models can do beyond text, unless a deployment says otherwise."""
    grants: frozenset[Wish] = frozenset()
    """The optional request fields that its codec can send."""
    temperature_max: float = 2.0
    """The highest temperature that the vendor takes."""
    schema_rules: SchemaRules | None = None
    """What the vendor refuses in the schema of an answer."""
    thinking: ThinkingRange = ANY_THINKING
    """What the vendor takes of a call's wish to think more or less."""

    @classmethod
    def over_http(
        cls,
        name: str,
        codec: Callable[[Options], Codec],
        *,
        vocabulary: str = "o200k",
        thinking_budget: bool = True,
        capabilities: frozenset[Capability] = frozenset(),
        grants: frozenset[Wish] = frozenset(),
        temperature_max: float = 2.0,
        schema_rules: SchemaRules | None = None,
        thinking: ThinkingRange = ANY_THINKING,
    ) -> "ProviderSpec":
        """Return the spec of a vendor that a codec speaks to over HTTP."""

        def make(options: Options, place: Place) -> Provider:
            return HttpProvider(codec(options), place.senders, base_url=place.base_url, api_key=place.api_key)

        return cls(
            name,
            make,
            vocabulary,
            thinking_budget=thinking_budget,
            capabilities=capabilities,
            grants=grants,
            temperature_max=temperature_max,
            schema_rules=schema_rules,
            thinking=thinking,
        )


def _echo(options: Options, _: Place) -> Provider:
    return EchoProvider(words_per_second=options.words_per_second)


_specs = {
    spec.name: spec
    for spec in (
        ProviderSpec.over_http(
            "openai",
            OpenAICodec,
            thinking_budget=False,
            capabilities=COMMON | {"json_object", "serial_tools"},
            grants=frozenset({"seed", "penalties"}),
            schema_rules=OPENAI_RULES,
            thinking=OPENAI_THINKING,
        ),
        ProviderSpec.over_http(
            "anthropic",
            AnthropicCodec,
            vocabulary="claude",
            capabilities=COMMON | {"serial_tools", "documents"},
            grants=frozenset({"top_k", "extensions", "no_thinking"}),
            temperature_max=ANTHROPIC_TEMPERATURE_MAX,
            schema_rules=ANTHROPIC_RULES,
            thinking=ANTHROPIC_THINKING,
        ),
        ProviderSpec.over_http(
            "gemini",
            GeminiCodec,
            vocabulary="gemini",
            capabilities=COMMON | {"json_object"},
            grants=frozenset({"seed", "penalties", "top_k"}),
            thinking=GEMINI_THINKING,
        ),
        ProviderSpec("echo", _echo, needs_model=False),
    )
}


def register_provider(spec: ProviderSpec) -> None:
    """Let deployments name this provider; raise ValueError if the name is taken."""
    if _specs.setdefault(spec.name, spec) is not spec:
        raise ValueError(f"the provider {spec.name!r} is already registered")


def spec_of(name: str) -> ProviderSpec | None:
    """Return a provider's spec: a built-in one, one that was registered, or one of an installed package."""
    if name not in _specs:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            spec = entry.load()
            if not isinstance(spec, ProviderSpec):
                raise ValueError(f"the entry point {entry.value!r} must be a ProviderSpec, is {type(spec).__name__}")
            _specs[name] = spec
    return _specs.get(name)


def provider_names() -> list[str]:
    """Return the names that a deployment may use: the built-in ones first, then others by name."""
    return [*_specs, *sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)} - _specs.keys())]
