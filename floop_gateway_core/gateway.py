"""The gateway: one object that a host makes once, mounts, and closes.

It builds the parts that the settings describe, or takes the host's own in their place: a store or any of its protocols, an
HTTP client, providers, a classifier. Everything that happens afterwards is `exchange` and `engine`.
"""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack, cast

import anyio
import httpx

from floop_gateway_core.admin import Admin, KeyRotatedHook
from floop_gateway_core.clock import Clock, system_clock
from floop_gateway_core.config.settings import VOCABULARY_OF, ConfigError, DeploymentSettings, Settings
from floop_gateway_core.engine.assess import prepare
from floop_gateway_core.engine.gate import Gate
from floop_gateway_core.engine.routing import Classifier, Deployment, Engine, Plan, UpstreamLimits
from floop_gateway_core.engine.settle import retry_pending_settlements
from floop_gateway_core.http.exchange import Exchange
from floop_gateway_core.in_process import Answer, CallEvent, CallOptions, Calls, MessageLike
from floop_gateway_core.observability.events import Listener
from floop_gateway_core.policy.breaker import BreakerState, CircuitBreaker
from floop_gateway_core.policy.routes import Routes
from floop_gateway_core.providers.anthropic import AnthropicCodec
from floop_gateway_core.providers.base import Codec, Provider
from floop_gateway_core.providers.echo import EchoProvider
from floop_gateway_core.providers.gemini import GeminiCodec
from floop_gateway_core.providers.http.driver import HttpProvider, HttpSenders
from floop_gateway_core.providers.openai import OpenAICodec
from floop_gateway_core.stores.base import Admitted, LedgerStore, RateStore, Store
from floop_gateway_core.stores.registry import open_store
from floop_gateway_core.types import Project
from floop_gateway_core.wire.messages import GatewayRequest

__all__ = ["Gateway"]

CODECS: Mapping[str, type[Codec]] = {"openai": OpenAICodec, "anthropic": AnthropicCodec, "gemini": GeminiCodec}


class Gateway:
    """Mount it through an adapter, or call `open` yourself.

    `store` is all three protocols; `rate` and `ledger` replace those parts of it. `http` is an `httpx.AsyncClient` that
    the host keeps and closes. `providers` replaces the provider of deployments by their id. `classifier` judges `auto`
    in place of ours, sync or async. Listeners hear every lifecycle event.

    One gateway may serve several event loops; each gets its own upstream connections. Close it in each with `aclose`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        rate: RateStore | None = None,
        ledger: LedgerStore | None = None,
        http: httpx.AsyncClient | None = None,
        providers: Mapping[str, Provider] | None = None,
        classifier: Classifier | None = None,
        listeners: Sequence[Listener] = (),
        on_key_rotated: KeyRotatedHook | None = None,
        clock: Clock = system_clock,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings = settings or Settings()
        self.store = store or open_store(settings.store)
        self.admin = Admin(settings, self.store, clock=clock, on_key_rotated=on_key_rotated)
        self._rate = rate
        self._clients = HttpSenders(http, connect_s=settings.upstream.connect_s)
        deployments = {
            name: self._deployment(name, one, (providers or {}).get(name), environ)
            for name, one in settings.deployments.items()
        }
        self.engine = Engine(
            ledger=ledger or self.store,
            deployments=deployments,
            routes=Routes(settings.routes, tuple(deployments)),
            breakers={name: _breaker(settings) for name in deployments},
            limits=UpstreamLimits(
                attempts=settings.upstream.attempts,
                total_s=settings.upstream.total_s,
                heartbeat_s=settings.upstream.heartbeat_s,
                hedge_after_s=settings.upstream.hedge_after_s,
            ),
            classifier=classifier,
            classifier_s=settings.auto.deadline_s,
            thresholds=settings.auto.thresholds,
            clock=clock,
            listeners=(*listeners, *filter(None, [settings.hooks.load("lifecycle")])),
        )
        self._front = Gate(self.engine, self._authenticate, self.plan_of, settings.body_bytes, settings.body_s)
        self._calls = Calls(self._front)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Self:
        """Build from a `gateway.toml`; without a path, from where the command would look. Raises `ConfigError`."""
        settings, source = Settings.find(path)
        try:
            return cls(settings)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Build from the file that `$FLOOP_GATEWAY_CONFIG` names, else from `gateway.toml`, else from the defaults."""
        settings, source = Settings.find(None, environ)
        try:
            return cls(settings, environ=environ)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    def _deployment(
        self, name: str, settings: DeploymentSettings, provider: Provider | None, environ: Mapping[str, str]
    ) -> Deployment:
        upstream = self.settings.upstream
        thinks = settings.thinking_allowance > 0
        field = settings.max_tokens_field or ("max_tokens" if settings.base_url else "max_completion_tokens")
        return Deployment(
            id=name,
            provider=provider or self._provider(name, settings, environ),
            model=settings.model,
            prices=settings.prices,
            vocabulary=settings.vocabulary or VOCABULARY_OF[settings.provider],
            thinking_tokens=settings.thinking_tokens,
            thinking=settings.thinking,
            thinking_allowance_tokens=settings.thinking_allowance,
            send_temperature=settings.send_temperature,
            max_tokens_field=field,
            extra_body=settings.extra_body,
            # Thinking may send nothing for as long as it likes; the request's own limit still holds.
            first_event_s=settings.first_event_s or (upstream.total_s if thinks else upstream.first_event_s),
            between_events_s=settings.between_events_s or (upstream.total_s if thinks else upstream.between_events_s),
        )

    def _provider(self, name: str, settings: DeploymentSettings, environ: Mapping[str, str]) -> Provider:
        if settings.provider == "echo":
            return EchoProvider(words_per_second=settings.words_per_second)
        api_key = None
        if settings.api_key_env is not None:
            api_key = environ.get(settings.api_key_env, "").strip()
            if not api_key:
                raise ConfigError(
                    f"deployments.{name}.api_key_env = {settings.api_key_env!r}: the environment has no such variable"
                )
        codec = CODECS[settings.provider]()
        return cast(Provider, HttpProvider(codec, self._clients, base_url=settings.base_url, api_key=api_key))

    def plan_of(self, project: Project) -> Plan:
        """Give a project's limits: its plan's, with its own settings over them."""
        plan, own = self.settings.plan(project.settings.plan), project.settings
        return Plan(
            own.requests_per_minute or plan.requests_per_minute,
            own.daily_tokens or plan.daily_tokens,
            plan.input_tokens,
            plan.output_tokens,
        )

    async def _authenticate(self, digest: str, now: float) -> Admitted | None:
        if self._rate is None:
            return await self.store.authenticate_and_acquire(
                digest, lambda project: self.plan_of(project).requests_per_minute, now
            )
        project = await self.store.authenticate(digest)
        if project is None:
            return None
        return project, await self._rate.acquire(project.name, self.plan_of(project).requests_per_minute, now)

    def open(self, request: GatewayRequest) -> Exchange:
        """Begin an exchange: `async with gateway.open(request) as reply`."""
        return Exchange(self._front, request)

    async def chat(
        self,
        key: str,
        messages: Sequence[MessageLike],
        **options: Unpack[CallOptions],
    ) -> Answer:
        """Answer a list of messages within the process, under a project's key; raise `GatewayError`.

        A message is a `Message` or a dictionary as the wire's; the options are the wire's fields. The call is checked,
        limited, billed and logged as one that came over HTTP.
        """
        fields = {"messages": messages, **options}
        return await self._calls.answer(key, "chat", fields)

    async def generate(
        self,
        key: str,
        prompt: str,
        **options: Unpack[CallOptions],
    ) -> Answer:
        """Answer one prompt within the process, as `chat` does a list of messages."""
        fields = {"prompt": prompt, **options}
        return await self._calls.answer(key, "generate", fields)

    def stream(
        self,
        key: str,
        messages: Sequence[MessageLike],
        **options: Unpack[CallOptions],
    ) -> AsyncGenerator[CallEvent, None]:
        """Give an answer's events as they come: `Texts`, and last `Completed` with the bill; raise `GatewayError`.

        Leaving early, settle at once by closing it: `async with aclosing(gateway.stream(…)) as events`.
        """
        fields = {"messages": messages, **options}
        return self._calls.stream(key, "chat", fields)

    def health(self, now: float | None = None) -> dict[str, BreakerState]:
        """Give each deployment's breaker state; `now` is on the clock of `anyio.current_time`."""
        at = anyio.current_time() if now is None else now
        return {name: breaker.state(at) for name, breaker in self.engine.breakers.items()}

    async def rotate_key(self, project: str) -> str:
        """Put a new key in place of a project's, tell the host's hook, and give the key, this once."""
        new = await self.admin.rotate_key(project)
        await self.admin.tell_rotation(new)
        return new.key

    async def start(self) -> None:
        """Open the store now, so that a mistake shows at start-up, and read the tables; else the first request does."""
        await self.store.setup()
        await prepare(self.engine)

    async def aclose(self) -> None:
        """Close this event loop's upstream connections, and the store."""
        try:
            await retry_pending_settlements(self.engine)
        finally:
            await self._clients.aclose()
            await self.store.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _breaker(settings: Settings) -> CircuitBreaker:
    upstream = settings.upstream
    return CircuitBreaker(
        failures=upstream.breaker_failures,
        window_s=upstream.breaker_window_s,
        cool_down_s=upstream.breaker_cool_down_s,
    )
