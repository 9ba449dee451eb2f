"""The gateway: one object that a host creates once, mounts, and closes.

It has the parts that the settings describe, or the host's own instead: a store or any of its protocols, an HTTP client,
providers, a classifier.
"""

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

import anyio.to_thread
import httpx

from floop_gateway_core.admin.service import Admin, KeyRotatedHook
from floop_gateway_core.assembly import (
    Secrets,
    breakers,
    open_configured,
    open_configured_rate,
    routing_table,
    spool_of,
)
from floop_gateway_core.clock import Clock, system_clock
from floop_gateway_core.config.settings import ConfigError, Settings
from floop_gateway_core.config.store_urls import shown
from floop_gateway_core.dialects.anthropic import AnthropicDialect
from floop_gateway_core.dialects.base import Dialect, Router
from floop_gateway_core.dialects.native.dialect import NATIVE
from floop_gateway_core.dialects.openai import OpenAIDialect
from floop_gateway_core.engine.assess import preload_tables
from floop_gateway_core.engine.gate import Gate
from floop_gateway_core.engine.host_checks import AfterAnswer, BeforeCall, RecordListener
from floop_gateway_core.engine.routing import Classifier, RoutingTable, Runtime
from floop_gateway_core.engine.settle import deliver_spool, retry_pending_settlements
from floop_gateway_core.http.exchange import Exchange
from floop_gateway_core.http.login import Authenticate, Login
from floop_gateway_core.in_process import Answer, AnswerStream, CallOptions, Calls, MessageLike, ProjectCalls
from floop_gateway_core.observability.events import Listener
from floop_gateway_core.policy.breaker import BreakerState
from floop_gateway_core.providers.base import Provider
from floop_gateway_core.providers.http.driver import HttpSenders
from floop_gateway_core.stores.base import LedgerStore, RateStore, Store
from floop_gateway_core.stores.stores import Stores
from floop_gateway_core.types import UsageRecord
from floop_gateway_core.wire.messages import GatewayRequest

__all__ = ["Gateway", "GatewayOptions"]

log = logging.getLogger("floop_gateway")

CLOSING_GRACE_S = 1.0
"""How long answers of disconnected clients may continue when the gateway is closed."""

SHOWN_PROJECTS = 10
"""How many projects a message lists."""


class GatewayOptions(TypedDict, total=False):
    """The optional arguments of `Gateway`."""

    store: Store | None
    rate: RateStore | None
    ledger: LedgerStore | None
    http: httpx.AsyncClient | None
    providers: Mapping[str, Provider] | None
    classifier: Classifier | None
    listeners: Sequence[Listener]
    dialects: Sequence[Dialect]
    on_key_rotated: KeyRotatedHook | None
    authenticate: Authenticate | None
    before_call: BeforeCall | None
    after_answer: AfterAnswer | None
    clock: Clock
    secrets: Secrets | None


def _after(options: GatewayOptions) -> tuple[Listener, ...]:
    after_answer = options.get("after_answer")
    return () if after_answer is None else (RecordListener(after_answer),)


def _compatible(settings: Settings) -> list[Dialect]:
    """Return the enabled compatible dialects. The models endpoint exists if either of them is enabled."""
    found: list[Dialect] = []
    if settings.dialects.openai:
        found.append(OpenAIDialect())
    if settings.dialects.anthropic:
        found.append(AnthropicDialect(lists_models=not settings.dialects.openai))
    return found


FIXED_AT_START = ("store", "store_env", "store_timeout_s", "store_spool", "rate_store", "rate_store_env", "when_down")


class Gateway:
    """Mount it through an adapter, or call `open` yourself.

    `store` implements all protocols; `rate` and `ledger` replace those parts of it, for the engine and the administration
    alike. `start` opens all of them and `aclose` closes them. `http` is an `httpx.AsyncClient` that the host keeps and
    closes. `providers` replaces the provider of deployments by their id. `classifier` chooses the alias for `auto` in
    place of the built-in one, sync or async. `listeners` are called with every event (`floop_gateway_core.observability`).
    `dialects` are served in addition to the gateway's own. `authenticate` lets users of the host's login in without a
    key: it gets the host's own request and returns a project's name, or None to require the key. `secrets` returns the
    API key for the name in a deployment's `api_key_env`; without it, `environ` is used (default: the process's
    environment).

    `before_call` may refuse each call or change it, once it has been read; `after_answer` sees each request's record.

    One gateway may serve several event loops; each gets its own upstream connections. Close it in each with `aclose`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **options: Unpack[GatewayOptions],
    ) -> None:
        self.settings = settings = settings or Settings()
        self._environ = os.environ if environ is None else environ
        clock = options.get("clock", system_clock)
        self.stores = Stores.of(
            options.get("store") or open_configured(settings, self._environ),
            rate=options.get("rate") or open_configured_rate(settings, self._environ),
            ledger=options.get("ledger"),
            admits_without_rate=settings.when_down == "admit",
        )
        self._source = "settings passed by the host"
        self._options = options
        self._has_file = False
        self._file: str | None = None
        self._client = options.get("http")
        self._senders = HttpSenders(self._client, connect_s=settings.upstream.connect_s)
        routing = self._routing_of(settings)
        hook = settings.hooks.load("lifecycle")
        self.runtime = Runtime(
            routing=routing,
            stores=self.stores,
            breakers=breakers(settings),
            spool=spool_of(settings, self.stores.ledger),
            clock=clock,
            listeners=(*options.get("listeners", ()), *(() if hook is None else (hook,)), *_after(options)),
            before_call=options.get("before_call"),
        )
        self.admin = Admin(
            settings,
            self.stores,
            clock=clock,
            on_key_rotated=options.get("on_key_rotated"),
            time_for_expiry=self.runtime.time_for_expiry,
        )
        self._gate = Gate(self.runtime)
        self._router = Router((NATIVE, *_compatible(settings), *options.get("dialects", ())))
        self._login = Login(options.get("authenticate"), frozenset(settings.admin.origins))
        self._calls = Calls(self._gate)

    @classmethod
    def from_config(cls, path: str | Path | None = None, **options: Unpack[GatewayOptions]) -> Self:
        """Build from a `gateway.toml`; without a path, look in the same places as the command. Raises `ConfigError`."""
        return cls._found(path, None, options)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Unpack[GatewayOptions]) -> Self:
        """Build from the file that `$FLOOP_GATEWAY_CONFIG` names, else from `gateway.toml`, else from the defaults."""
        return cls._found(None, environ, options)

    @classmethod
    def _found(cls, path: str | Path | None, environ: Mapping[str, str] | None, options: GatewayOptions) -> Self:
        settings, source = Settings.find(path, os.environ if environ is None else environ)
        try:
            gateway = cls(settings, environ=environ, **options)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        gateway._source = source
        gateway._has_file, gateway._file = True, None if path is None else str(path)
        return gateway

    def _routing_of(self, settings: Settings) -> RoutingTable:
        return routing_table(
            settings,
            self._senders,
            self._options.get("secrets") or self._environ.get,
            providers=self._options.get("providers") or {},
            classifier=self._options.get("classifier"),
        )

    async def reload(self, settings: Settings | None = None) -> None:
        """Apply new settings to new requests: deployments, routes, plans, prices, limits, and API keys (read again).

        Without `settings`, reload the file that the gateway was built from; if it was built from `Settings`, only the API
        keys are read again. Running requests keep their old settings.
        Raises `ConfigError` for invalid settings, a different store, or a removed plan that still has projects; nothing
        is changed then. `[upstream] connect_s`, `[serve]` and `[hooks]` take effect at the next start.
        """
        source = self._source
        if settings is None and not self._has_file:
            settings = self.settings
        elif settings is None:
            settings, source = Settings.find(self._file, self._environ)
        try:
            for name in FIXED_AT_START:
                if getattr(settings, name) != getattr(self.settings, name):
                    raise ConfigError(f"{name}: cannot be changed while running; restart to apply the change")
            routing = self._routing_of(settings)
            await self._check_plans(settings)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        await preload_tables(routing)
        self.runtime.breakers = breakers(settings, self.settings, self.runtime.breakers)
        self.runtime.routing = routing
        self.settings, self._source = settings, source
        self.admin.use(settings)
        log.info("configuration: %s reloaded", source)

    async def _check_plans(self, settings: Settings) -> None:
        gone = set(self.settings.plan_names) - set(settings.plan_names)
        for plan in sorted(gone):
            names = [project.name for project in await self.store.projects() if project.settings.plan == plan]
            if names:
                more = f" and {len(names) - SHOWN_PROJECTS} more" if len(names) > SHOWN_PROJECTS else ""
                shown = ", ".join(names[:SHOWN_PROJECTS])
                raise ConfigError(f"plans.{plan}: cannot be removed, because these projects use it: {shown}{more}")

    @property
    def store(self) -> Store:
        """The store that keeps the projects."""
        return self.stores.store

    def open(self, request: GatewayRequest) -> Exchange:
        """Begin an exchange: `async with gateway.open(request) as reply`."""
        return Exchange(self._gate, self._router, request, self._login)

    async def chat(self, key: str, messages: Sequence[MessageLike], **options: Unpack[CallOptions]) -> Answer:
        """Answer a list of messages within the process, with a project's key; raise `GatewayError`.

        A message is a `Message` or a dict in the wire's format; the options are the wire's fields. The call is checked,
        limited, billed and logged like one over HTTP.
        """
        return await self._calls.answer(key, "chat", {"messages": messages, **options})

    async def generate(self, key: str, prompt: str, **options: Unpack[CallOptions]) -> Answer:
        """Answer one prompt within the process, like `chat` does for a list of messages."""
        return await self._calls.answer(key, "generate", {"prompt": prompt, **options})

    def stream(self, key: str, messages: Sequence[MessageLike], **options: Unpack[CallOptions]) -> AnswerStream:
        """Return an answer to read as it comes.

        Enter it with `async with`, read its texts with `async for`, and find `answer.bill` afterwards.
        """
        return self._calls.stream(key, "chat", {"messages": messages, **options})

    def as_project(self, name: str) -> ProjectCalls:
        """Return calls for a project without its key: the host's own code is trusted to name it."""
        return ProjectCalls(self._calls, name)

    async def usage(self, project: str | None = None, since: float | None = None) -> AsyncIterator[UsageRecord]:
        """Yield the finished records of the usage log, oldest first. `since` is epoch seconds.

        Raises `NoSuchProject` if `project` is given and is not the name of a project.
        """
        await self.runtime.flush_refusals(every=True)
        id = None if project is None else (await self.admin.project(project)).id
        async for record in self.stores.ledger.usage(id, since):
            yield record

    def health(self, now: float | None = None) -> dict[str, BreakerState]:
        """Return each deployment's breaker state; `now` is on the clock of `time.monotonic`."""
        at = self.runtime.monotonic() if now is None else now
        return {name: self.runtime.breakers[name].state(at) for name in self.runtime.routing.deployments}

    async def rotate_key(self, project: str) -> str:
        """Replace a project's key, call the host's hook, and return the new key, which cannot be read again."""
        return (await self.admin.rotate_key(project)).key

    async def start(self) -> None:
        """Open the stores, so that mistakes show at start-up, and load what the first request would wait for."""
        self.runtime.stopping = False
        log.info("configuration: %s; store: %s", self._source, type(self.store).__name__)
        if self._source == "built-in defaults":
            log.warning(
                "no configuration found: using the provider `echo` and the store %s",
                shown(self.settings.store),
            )
        await self.stores.setup()
        await deliver_spool(self.runtime)
        await preload_tables(self.runtime.routing)
        if self._client is None and any(one.provider != "echo" for one in self.settings.deployments.values()):
            await anyio.to_thread.run_sync(import_module, "floop_gateway_core.providers.http.senders")

    def stop(self) -> None:
        """Refuse new requests and end open answers, because the server stops. Call it in their event loop.

        Streams end in an error frame and are billed for what was sent; a plain answer becomes a free 503.
        """
        self.runtime.stopping = True
        for run in tuple(self.runtime.runs):
            run.stop()

    async def aclose(self) -> None:
        """Close this event loop's upstream connections, and the stores."""
        try:
            self.runtime.retries_until = 0.0
            await self.runtime.tasks.aclose(CLOSING_GRACE_S)
            await retry_pending_settlements(self.runtime)
            await self.runtime.flush_refusals(every=True)
        finally:
            await self._senders.aclose()
            await self.stores.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
