"""Builds the routing table, the breakers and the stores that the settings describe."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from floop_gateway_core.config.settings import ConfigError, DeploymentSettings, Settings
from floop_gateway_core.config.store_urls import rate_url, store_url
from floop_gateway_core.engine.routing import Classifier, Deployment, Plan, RoutingTable, UpstreamLimits
from floop_gateway_core.engine.shared_breaker import SharedBreaker
from floop_gateway_core.policy.breaker import CircuitBreaker
from floop_gateway_core.policy.budget import DAY_S
from floop_gateway_core.policy.routes import Routes
from floop_gateway_core.policy.schemas import SchemaRules
from floop_gateway_core.providers.base import Provider
from floop_gateway_core.providers.http.driver import HttpSenders
from floop_gateway_core.providers.registry import Place, ProviderSpec, spec_of
from floop_gateway_core.stores.base import LedgerStore, RateStore, Store
from floop_gateway_core.stores.registry import open_rate, open_store
from floop_gateway_core.stores.spool import SettlementSpool
from floop_gateway_core.types import Capability, Wish

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

T = TypeVar("T")
Secrets: TypeAlias = Callable[[str], str | None]
"""Returns the secret for a name from a deployment's `api_key_env`."""

__all__ = ["Secrets", "breakers", "open_configured", "open_configured_rate", "routing_table", "spool_of"]


def routing_table(
    settings: Settings,
    senders: HttpSenders,
    secrets: Secrets,
    *,
    providers: Mapping[str, Provider],
    classifier: Classifier | None,
) -> RoutingTable:
    """Return the routing table; raise `ConfigError` for a key that `secrets` does not know."""
    deployments = {
        name: _deployment(name, one, settings, providers.get(name) or _provider(name, one, senders, secrets))
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
        entries_s=settings.retention.entries_days * DAY_S,
        model_names=tuple(settings.dialects.models.items()),
    )


def breakers(
    settings: Settings, before: Settings | None = None, known: Mapping[str, CircuitBreaker] = MappingProxyType({})
) -> Mapping[str, CircuitBreaker]:
    """Return each deployment's breaker: the existing one if the deployment is the same as `before`, else a new one.

    Breakers of removed deployments are kept for requests that are still running.
    """
    found = dict(known)
    for name, deployment in settings.deployments.items():
        is_same = (
            before is not None
            and name in known
            and deployment == before.deployments.get(name)
            and _thresholds(settings) == _thresholds(before)
        )
        if not is_same:
            found[name] = SharedBreaker(**_thresholds(settings))
    return found


def _thresholds(settings: Settings) -> dict[str, Any]:
    upstream = settings.upstream
    return {
        "failures": upstream.breaker_failures,
        "window_s": upstream.breaker_window_s,
        "cool_down_s": upstream.breaker_cool_down_s,
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
        capabilities=_capabilities(one),
        grants=_grants(one),
        temperature_max=_spec(one).temperature_max if one.send_temperature else -1.0,
        # A thinking model may be silent for any length of time; the request's own limit still applies.
        first_event_s=one.first_event_s or (upstream.total_s if thinks else upstream.first_event_s),
        between_events_s=one.between_events_s or (upstream.total_s if thinks else upstream.between_events_s),
        provider_name=one.provider,
        thinking_range=_spec(one).thinking,
        own_thinking=one.own_thinking,
        schema_rules=_schema_rules(one),
    )


def _capabilities(one: DeploymentSettings) -> frozenset[Capability]:
    """Return a deployment's capabilities: its provider's, unless the deployment overrides them."""
    found = set(_spec(one).capabilities)
    own: dict[Capability, bool | None] = {"tools": one.tools, "images": one.images, "json_schema": one.json_schema}
    for name, value in own.items():
        if value is not None:
            (found.add if value else found.discard)(name)
    return frozenset(found)


def _schema_rules(one: DeploymentSettings) -> SchemaRules | None:
    rules = _spec(one).schema_rules
    return None if rules is None or (rules.own_servers_only and one.base_url is not None) else rules


def _grants(one: DeploymentSettings) -> frozenset[Wish]:
    """Return the wishes that a deployment can grant: its provider's, and thinking if it has an allowance for it."""
    thinks: set[Wish] = {"thinking"} if one.thinking_allowance else {"no_thinking"}
    return _spec(one).grants | thinks | ({"effort"} if one.thinking is not None else set())


def _spec(one: DeploymentSettings) -> ProviderSpec:
    spec = spec_of(one.provider)
    assert spec is not None, "settings name only providers that exist"
    return spec


def _provider(name: str, one: DeploymentSettings, senders: HttpSenders, secrets: Secrets) -> Provider:
    place = Place(senders, one.base_url, _api_key(name, one, secrets))
    try:
        return _spec(one).make(one, place)
    except ValueError as error:
        raise ConfigError(f"deployments.{name}: {error}") from error


def _api_key(name: str, one: DeploymentSettings, secrets: Secrets) -> str | None:
    """Return a deployment's key, from wherever its settings say; None if they name none."""
    if one.api_key_file is not None:
        if one.api_key_env is not None:
            raise ConfigError(f"deployments.{name}: api_key_env and api_key_file must not both be given")
        try:
            found = Path(one.api_key_file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"deployments.{name}.api_key_file: cannot be read: {why}") from None
        if not found:
            raise ConfigError(f"deployments.{name}.api_key_file: must not be empty")
        return found
    if one.api_key_env is None:
        return None
    found = (secrets(one.api_key_env) or "").strip()
    if not found:
        # The value may be the key itself, written in place of the variable's name.
        shown = f" = {one.api_key_env!r}" if _VARIABLE.fullmatch(one.api_key_env) else ""
        raise ConfigError(f"deployments.{name}.api_key_env{shown}: must name an environment variable that is set")
    return found


def open_configured(settings: Settings, environ: Mapping[str, str]) -> Store:
    """Return the store that the settings name; raise `ConfigError`."""
    url = store_url(settings, environ)
    return _opened("store", settings.store_env, lambda: open_store(url, timeout_s=settings.store_timeout_s))


def open_configured_rate(settings: Settings, environ: Mapping[str, str]) -> RateStore | None:
    """Return the store of the rate alone that the settings name, or None; raise `ConfigError`."""
    if (url := rate_url(settings, environ)) is None:
        return None
    open_it = partial(open_rate, url, timeout_s=settings.store_timeout_s)
    return _opened("rate_store", settings.rate_store_env, open_it)


def spool_of(settings: Settings, ledger: LedgerStore) -> SettlementSpool | None:
    """Return where settlements wait while the store is down: as configured, or beside a SQLite file, else nowhere."""
    if settings.store_spool is not None:
        return SettlementSpool(Path(settings.store_spool))
    path = getattr(ledger, "path", None)
    return SettlementSpool(path.with_suffix(".spool")) if isinstance(path, Path) else None


def _opened(key: str, variable: str | None, open_it: Callable[[], T]) -> T:
    try:
        return open_it()
    except ValueError as error:
        raise ConfigError(f"{key if variable is None else f'{key}_env'}: {error}") from None
