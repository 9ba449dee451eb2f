"""`gateway.toml`, typed: keys, allowed values, and a message for each mistake (contract: Command and configuration).

A message names the file, the key, the value and what is allowed. Secrets are never in the file: a deployment names the
environment variable that holds its key. This module only describes; `assembly` builds the parts.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from floop_gateway_core.config.errors import ConfigError, explain
from floop_gateway_core.policy.auto.classify import DEFAULT as DEFAULT_THRESHOLDS
from floop_gateway_core.policy.auto.classify import Thresholds
from floop_gateway_core.policy.pricing import Prices, parse_rate
from floop_gateway_core.policy.routes import Routes
from floop_gateway_core.policy.tokens.estimate import VOCABULARIES
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.registry import provider_names, spec_of
from floop_gateway_core.stores.registry import check_store_url

__all__ = ["ConfigError", "DeploymentSettings", "HookSettings", "PlanSettings", "Settings", "UpstreamSettings"]

CONFIG_VARIABLE = "FLOOP_GATEWAY_CONFIG"
DEFAULT_FILE = "gateway.toml"
DEFAULT_STORE = "sqlite:///floop-gateway.db"
ECHO_MICROCREDITS_PER_TOKEN = 1250


def _rate(value: object) -> int:
    """Read a rate through its decimal text: 0.1 means a tenth, not the nearest binary fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a number of micro-credits per token")
    return parse_rate(value if isinstance(value, Decimal | int | str) else Decimal(repr(value)))


Rate = Annotated[int, BeforeValidator(_rate)]
Count = Annotated[int, Field(ge=1, le=10**12)]
# Only these characters, because it is sent in a header.
Name = Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlanSettings(_Model):
    """The limits of a plan; a project may have its own requests per minute and daily tokens.

    `models` are the aliases and deployments that its projects may name; None is all.
    """

    requests_per_minute: Count = 10
    daily_tokens: Count = 10_000
    input_tokens: Count = 128_000
    output_tokens: Count = 4_096
    concurrency: Count = 50
    models: Annotated[list[Name], Field(min_length=1)] | None = None


class DeploymentSettings(Options):
    """A model at a provider: its prices, vocabulary, time-outs, and the provider's options."""

    provider: str
    model: str = ""
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    microcredits_per_token: Rate | None = None
    input_microcredits_per_token: Rate | None = None
    output_microcredits_per_token: Rate | None = None
    cached_input_microcredits_per_token: Rate | None = None
    cache_write_input_microcredits_per_token: Rate | None = None
    reasoning_microcredits_per_token: Rate | None = None
    vocabulary: str | None = None
    first_event_s: Seconds | None = None
    between_events_s: Seconds | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        spec = spec_of(self.provider)
        if spec is None:
            raise ValueError(f"provider is {self.provider!r}; allowed are {', '.join(provider_names())}")
        if spec.needs_model:
            if not self.model:
                raise ValueError("model is missing; set it to the provider's name for the model")
            if self.microcredits_per_token is None and (
                self.input_microcredits_per_token is None or self.output_microcredits_per_token is None
            ):
                raise ValueError(
                    "a price is missing: microcredits_per_token, or input_microcredits_per_token and "
                    "output_microcredits_per_token; 0 is allowed"
                )
        if self.vocabulary is not None and self.vocabulary not in VOCABULARIES:
            raise ValueError(f"vocabulary is {self.vocabulary!r}; allowed are {', '.join(VOCABULARIES)}")
        if self.thinking is not None and self.thinking_tokens is not None:
            raise ValueError("thinking and thinking_tokens must not both be set")
        if not spec.thinking_budget and self.thinking_tokens is not None:
            raise ValueError(f"{self.provider} does not support thinking_tokens; set an effort with thinking")
        if self.thinking_allowance_tokens is not None and self.thinking is None:
            raise ValueError("thinking_allowance_tokens requires thinking; thinking_tokens already sets an allowance")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is {self.base_url!r}; it starts with http:// or https://")
        return self

    @property
    def prices(self) -> Prices:
        """Return the rates. Specific rates override the flat one; cached defaults to input, reasoning to output."""
        flat = self.microcredits_per_token or 0
        of_input = flat if self.input_microcredits_per_token is None else self.input_microcredits_per_token
        of_output = flat if self.output_microcredits_per_token is None else self.output_microcredits_per_token
        cached, reasoning = self.cached_input_microcredits_per_token, self.reasoning_microcredits_per_token
        return Prices(
            of_input,
            of_output,
            of_input if cached is None else cached,
            of_output if reasoning is None else reasoning,
            self.cache_write_input_microcredits_per_token,
        )


class UpstreamSettings(_Model):
    """`heartbeat_s` and `hedge_after_s` of 0 turn heartbeats and hedging off."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    connect_s: Seconds = 5.0
    first_event_s: Seconds = 30.0
    between_events_s: Seconds = 30.0
    total_s: Seconds = 300.0
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    breaker_window_s: Seconds = 60.0
    breaker_cool_down_s: Seconds = 60.0
    heartbeat_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    hedge_after_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class AutoSettings(_Model):
    """The classifier's scores at which `auto` changes from `fast` to `smart` and from `smart` to `reason`."""

    smart_from: Annotated[float, Field(ge=0, le=1)] | None = None
    reason_from: Annotated[float, Field(ge=0, le=1)] | None = None
    deadline_s: Seconds = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        self.thresholds  # noqa: B018 - raises if the two are out of order
        return self

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(
            DEFAULT_THRESHOLDS.smart_from if self.smart_from is None else self.smart_from,
            DEFAULT_THRESHOLDS.reason_from if self.reason_from is None else self.reason_from,
        )


Reference = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]


class HookSettings(_Model):
    """Each is `module:callable`."""

    key_rotated: Reference | None = None
    lifecycle: Reference | None = None

    def load(self, name: Literal["key_rotated", "lifecycle"]) -> Callable[..., Any] | None:
        """Import a hook, or return None if none is set; raise `ConfigError` if it cannot be imported."""
        reference: str | None = getattr(self, name)
        if reference is None:
            return None
        module, _, path = reference.partition(":")
        try:
            hook: object = import_module(module)
            for part in path.split("."):
                hook = getattr(hook, part)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"hooks.{name} = {reference!r}: {error}") from error
        if not callable(hook):
            raise ConfigError(f"hooks.{name} = {reference!r}: is not callable")
        return hook


class ServeSettings(_Model):
    """For the command `serve`. `grace_s` is how long open answers may take to end after a signal."""

    grace_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 8.0


class AdminSettings(_Model):
    """For the administration over HTTP: `origins` of other sites whose pages may write (`https://admin.example`)."""

    origins: list[str] = Field(default_factory=list)


class LogSettings(_Model):
    """How `serve` and `demo` write the log: lines for people, or JSON."""

    format: Literal["text", "json"] = "text"


class MetricsSettings(_Model):
    """For `/metrics`: `public` lets it be read without a login."""

    public: bool = False


class DialectSettings(_Model):
    """The compatible dialects, and the names of models that their clients insist on."""

    openai: bool = True
    anthropic: bool = True
    models: dict[str, str] = Field(default_factory=dict)


class RetentionSettings(_Model):
    """How long finished usage records and account entries are kept; 0 keeps entries forever."""

    usage_days: Annotated[int, Field(ge=1, le=36_500)] = 400
    entries_days: Annotated[int, Field(ge=0, le=36_500)] = 0


def _built_in_deployments() -> dict[str, DeploymentSettings]:
    return {"echo": DeploymentSettings(provider="echo", microcredits_per_token=ECHO_MICROCREDITS_PER_TOKEN)}


def _built_in_routes() -> dict[str, list[str]]:
    return {"fast": ["echo"], "smart": ["echo"], "reason": ["echo"]}


class Settings(_Model):
    """The whole configuration. Deployments and routes, if given, replace the built-in ones."""

    store: Annotated[str, AfterValidator(check_store_url)] = DEFAULT_STORE
    store_env: VariableName | None = None
    store_timeout_s: Annotated[float, Field(ge=0.1, le=60.0)] = 2.0
    store_spool: Annotated[str, Field(min_length=1)] | None = None
    rate_store: str | None = None
    rate_store_env: VariableName | None = None
    when_down: Literal["refuse", "admit"] = "refuse"
    body_bytes: Annotated[int, Field(ge=1, le=2**30)] = 8_388_608
    body_s: Seconds = 30.0
    plans: dict[str, PlanSettings] = Field(default_factory=dict)
    deployments: dict[Name, DeploymentSettings] = Field(default_factory=_built_in_deployments)
    routes: dict[Name, list[str]] = Field(default_factory=_built_in_routes)
    upstream: UpstreamSettings = UpstreamSettings()
    auto: AutoSettings = AutoSettings()
    hooks: HookSettings = HookSettings()
    serve: ServeSettings = ServeSettings()
    retention: RetentionSettings = RetentionSettings()
    dialects: DialectSettings = DialectSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    admin: AdminSettings = AdminSettings()

    @model_validator(mode="before")
    @classmethod
    def _replaced_together(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and ("deployments" in value) != ("routes" in value):
            given, missing = ("deployments", "routes") if "deployments" in value else ("routes", "deployments")
            raise ValueError(f"{given} replace the built-in ones, so {missing} must be given too")
        return value

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        routes = Routes(self.routes, tuple(self.deployments))
        for name, plan in self.plans.items():
            try:
                routes.check_models(plan.models)
            except ValueError as error:
                raise ValueError(f"plans.{name}.models: {error}") from None
        if self.when_down == "admit" and self.rate_store is None and self.rate_store_env is None:
            raise ValueError("when_down = 'admit' requires a separate rate_store; the ledger always refuses")
        for pattern, target in self.dialects.models.items():
            if not routes.knows(target):
                raise ValueError(f"dialects.models.{pattern!r}: {target!r} is not an alias or a deployment")
        return self

    def plan(self, name: str) -> PlanSettings:
        """Return a plan. A name that is no longer configured falls back to `default`."""
        return self.plans.get(name) or self.plans.get("default") or PlanSettings()

    @property
    def plan_names(self) -> list[str]:
        """Return the names of all plans, `default` among them."""
        return sorted({"default", *self.plans})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file; raise `ConfigError` with one line for each mistake."""
        try:
            text = Path(path).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        try:
            value = tomllib.loads(text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: invalid TOML: {error}") from error
        return cls.read(_plain(value), source=str(path))

    @classmethod
    def read(cls, value: Mapping[str, Any], *, source: str) -> Self:
        """Validate a parsed file; raise `ConfigError` with one line for each mistake, starting with `source`."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            lines = [explain(source, value, one, _SECTIONS) for one in error.errors(include_url=False)]
            raise ConfigError("\n".join(lines)) from None

    @classmethod
    def find(cls, path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[Self, str]:
        """Load the named file, else `$FLOOP_GATEWAY_CONFIG`, else `gateway.toml` if it is there.

        Return the settings and their source.
        """
        environ = os.environ if environ is None else environ
        named = path or environ.get(CONFIG_VARIABLE) or (DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None)
        return (cls.load(named), str(named)) if named else (cls(), "built-in defaults")


def _plain(value: Any, key: str = "") -> Any:
    """Keep decimals for rates, whose every digit counts, and convert other decimals to floats."""
    if isinstance(value, dict):
        return {name: _plain(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) and not key.endswith("microcredits_per_token") else value


_SECTIONS: Mapping[str, type[BaseModel]] = {
    "": Settings,
    "plans": PlanSettings,
    "deployments": DeploymentSettings,
    "upstream": UpstreamSettings,
    "auto": AutoSettings,
    "hooks": HookSettings,
    "serve": ServeSettings,
    "retention": RetentionSettings,
    "dialects": DialectSettings,
    "log": LogSettings,
    "metrics": MetricsSettings,
    "admin": AdminSettings,
}
"""The section of each table of the file, for the keys that a message lists."""
