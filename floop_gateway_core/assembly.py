"""Builds the routing table and the breakers that the settings describe."""

import re
from collections.abc import Mapping

from floop_gateway_core.config.settings import ConfigError, DeploymentSettings, Settings
from floop_gateway_core.engine.routing import Classifier, Deployment, Plan, RoutingTable, UpstreamLimits
from floop_gateway_core.engine.shared_breaker import SharedBreaker
from floop_gateway_core.policy.breaker import CircuitBreaker
from floop_gateway_core.policy.budget import DAY_S
from floop_gateway_core.policy.routes import Routes
from floop_gateway_core.providers.base import Provider
from floop_gateway_core.providers.http.driver import HttpSenders
from floop_gateway_core.providers.registry import Place, ProviderSpec, spec_of

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

__all__ = ["breakers", "routing_table"]


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
        retention_s=settings.retention.usage_days * DAY_S,
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
    return Plan(
        plan.requests_per_minute,
        plan.daily_tokens,
        plan.input_tokens,
        plan.output_tokens,
        plan.concurrency,
        None if plan.models is None else tuple(plan.models),
    )


def _deployment(name: str, one: DeploymentSettings, settings: Settings, provider: Provider) -> Deployment:
    upstream = settings.upstream
    thinks = one.thinking_allowance > 0
    return Deployment(
        id=name,
        provider=provider,
        model=one.model,
        prices=one.prices,
        vocabulary=one.vocabulary or _spec(one).vocabulary,
        thinking_allowance_tokens=one.thinking_allowance,
        # A model that thinks may be silent for any time; the request's own limit still applies.
        first_event_s=one.first_event_s or (upstream.total_s if thinks else upstream.first_event_s),
        between_events_s=one.between_events_s or (upstream.total_s if thinks else upstream.between_events_s),
    )


def _spec(one: DeploymentSettings) -> ProviderSpec:
    spec = spec_of(one.provider)
    assert spec is not None, "settings name only providers that exist"
    return spec


def _provider(name: str, one: DeploymentSettings, senders: HttpSenders, environ: Mapping[str, str]) -> Provider:
    api_key = None
    if one.api_key_env is not None:
        api_key = environ.get(one.api_key_env, "").strip()
        if not api_key:
            # The value may be the key itself, written in place of the variable's name.
            shown = f" = {one.api_key_env!r}" if _VARIABLE.fullmatch(one.api_key_env) else ""
            raise ConfigError(f"deployments.{name}.api_key_env{shown}: must name an environment variable that is set")
    try:
        return _spec(one).make(one, Place(senders, one.base_url, api_key))
    except ValueError as error:
        raise ConfigError(f"deployments.{name}: {error}") from error
