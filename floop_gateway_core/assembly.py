"""From settings to parts: the routing table that they describe, and the breakers of its deployments."""

import re
from collections.abc import Mapping

from floop_gateway_core.config.settings import VOCABULARY_OF, ConfigError, DeploymentSettings, Settings
from floop_gateway_core.engine.routing import Classifier, Deployment, Plan, RoutingTable, UpstreamLimits
from floop_gateway_core.engine.shared_breaker import SharedBreaker
from floop_gateway_core.policy.breaker import CircuitBreaker
from floop_gateway_core.policy.routes import Routes
from floop_gateway_core.providers.anthropic import AnthropicCodec
from floop_gateway_core.providers.base import Codec, Provider
from floop_gateway_core.providers.echo import EchoProvider
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.http.driver import HttpProvider, HttpSenders
from floop_gateway_core.providers.openai import OpenAICodec

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

__all__ = ["breakers", "routing_table"]

CODECS: Mapping[str, type[Codec]] = {"openai": OpenAICodec, "anthropic": AnthropicCodec, "gemini": GeminiCodec}


def routing_table(
    settings: Settings,
    senders: HttpSenders,
    environ: Mapping[str, str],
    *,
    providers: Mapping[str, Provider],
    classifier: Classifier | None,
) -> RoutingTable:
    """Return the routing table; raise `ConfigError` for a key that the environment lacks."""
    deployments = {
        name: _deployment(name, one, settings, providers.get(name) or _provider(name, one, senders, environ))
        for name, one in settings.deployments.items()
    }
    upstream = settings.upstream
    return RoutingTable(
        deployments=deployments,
        routes=Routes(settings.routes, tuple(deployments)),
        limits=UpstreamLimits(
            attempts=upstream.attempts,
            total_s=upstream.total_s,
            heartbeat_s=upstream.heartbeat_s,
            hedge_after_s=upstream.hedge_after_s,
        ),
        plans={name: _plan(settings, name) for name in settings.plan_names},
        classifier=classifier,
        thresholds=settings.auto.thresholds,
        classifier_s=settings.auto.deadline_s,
        body_bytes=settings.body_bytes,
        body_s=settings.body_s,
    )


def breakers(settings: Settings) -> Mapping[str, CircuitBreaker]:
    """Return a closed breaker for each deployment."""
    upstream = settings.upstream
    return {
        name: SharedBreaker(
            failures=upstream.breaker_failures,
            window_s=upstream.breaker_window_s,
            cool_down_s=upstream.breaker_cool_down_s,
        )
        for name in settings.deployments
    }


def _plan(settings: Settings, name: str) -> Plan:
    plan = settings.plan(name)
    return Plan(plan.requests_per_minute, plan.daily_tokens, plan.input_tokens, plan.output_tokens, plan.concurrency)


def _deployment(name: str, one: DeploymentSettings, settings: Settings, provider: Provider) -> Deployment:
    upstream = settings.upstream
    thinks = one.thinking_allowance > 0
    field = one.max_tokens_field or ("max_tokens" if one.base_url else "max_completion_tokens")
    return Deployment(
        id=name,
        provider=provider,
        model=one.model,
        prices=one.prices,
        vocabulary=one.vocabulary or VOCABULARY_OF[one.provider],
        thinking_tokens=one.thinking_tokens,
        thinking=one.thinking,
        thinking_allowance_tokens=one.thinking_allowance,
        send_temperature=one.send_temperature,
        max_tokens_field=field,
        extra_body=one.extra_body,
        stream_usage=one.stream_usage,
        api_key_header=one.api_key_header,
        system_role=one.system_role,
        merge_turns=one.merge_turns,
        # Thinking may send nothing for as long as it likes; the request's own limit still holds.
        first_event_s=one.first_event_s or (upstream.total_s if thinks else upstream.first_event_s),
        between_events_s=one.between_events_s or (upstream.total_s if thinks else upstream.between_events_s),
    )


def _provider(name: str, one: DeploymentSettings, senders: HttpSenders, environ: Mapping[str, str]) -> Provider:
    if one.provider == "echo":
        return EchoProvider(words_per_second=one.words_per_second)
    api_key = None
    if one.api_key_env is not None:
        api_key = environ.get(one.api_key_env, "").strip()
        if not api_key:
            # Somebody may have written the key itself in place of the name.
            shown = f" = {one.api_key_env!r}" if _VARIABLE.fullmatch(one.api_key_env) else ""
            raise ConfigError(f"deployments.{name}.api_key_env{shown}: must name an environment variable that is set")
    return HttpProvider(CODECS[one.provider](), senders, base_url=one.base_url, api_key=api_key)
