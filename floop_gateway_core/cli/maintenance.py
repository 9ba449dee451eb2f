"""The commands that look after the store and the configuration as a whole."""

import argparse
import os
from pathlib import Path

import anyio
import anyio.to_thread

from floop_gateway_core.assembly import open_configured
from floop_gateway_core.cli.commands import opened
from floop_gateway_core.cli.output import print_document
from floop_gateway_core.clock import system_clock
from floop_gateway_core.config import ConfigError, Settings
from floop_gateway_core.config.store_urls import shown, store_url
from floop_gateway_core.errors import AdminError
from floop_gateway_core.stores.registry import inspect_store
from floop_gateway_core.stores.sqlite import SQLiteStore
from floop_gateway_core.stores.sqlite.backup import copy_to

Args = argparse.Namespace


async def migrate(args: Args) -> int:
    """`migrate`: update the schema, as opening the store does too, but before a new release starts serving."""
    settings, _ = Settings.find(args.config)
    url = store_url(settings, os.environ)
    if args.sql:
        return _print_sql(url, settings)
    before, _ = inspect_store(url, timeout_s=settings.store_timeout_s)
    async with opened(args) as (_, store):
        await store.setup()
    after, projects = inspect_store(url, timeout_s=settings.store_timeout_s)
    print_document(args, {"store": shown(url), "before": before, "state": after, "projects": projects})
    return 0


def _print_sql(url: str, settings: Settings) -> int:
    """Print what `migrate` would run, for people who run it themselves."""
    if not url.startswith("postgres"):
        raise AdminError(f"--sql is for PostgreSQL; the store is {shown(url)}")
    from floop_gateway_core.stores.postgres.migrations import pending_script

    print(pending_script(url, settings.store_timeout_s) or "-- the schema is up to date", end="")
    return 0


async def prune(args: Args) -> int:
    """`prune`."""
    pruned = 0
    async with opened(args) as (admin, _):
        while (count := await admin.prune()) > 0:
            pruned += count
    print_document(args, {"deleted": pruned})
    return 0


async def backup(args: Args) -> int:
    """`backup`: copy the store into a new file while it runs."""
    settings, _ = Settings.find(args.config)
    store = open_configured(settings, os.environ)
    if not isinstance(store, SQLiteStore):
        raise AdminError(
            f"only a SQLite store can be backed up by this command; the store is {shown(store_url(settings, os.environ))}"
        )
    file = Path(args.file)
    _check_folder("backup", file)
    await anyio.to_thread.run_sync(copy_to, store.path, file)
    print_document(args, {"backup": args.file, "bytes": (await anyio.Path(args.file).stat()).st_size})
    return 0


def _check_folder(what: str, path: Path) -> None:
    """Raise `AdminError` unless a file can be written in its folder."""
    if not os.access(path.parent, os.W_OK):
        raise AdminError(f"{what}: the folder {path.parent} must exist and be writable")


async def check(args: Args) -> int:
    """Build the whole gateway, so that a missing secret shows too, and look at the store without changing it."""
    # The other commands do not need the providers.
    from floop_gateway_core.cli.serve import exporters
    from floop_gateway_core.gateway import Gateway
    from floop_gateway_core.management.health import test_deployment

    settings, source = Settings.find(args.config)
    gateway = Gateway.from_config(args.config, listeners=exporters(settings))
    try:
        settings.hooks.load("key_rotated")
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    url = store_url(settings, os.environ)
    state, projects = inspect_store(url, timeout_s=settings.store_timeout_s)
    await gateway.stores.try_rate(system_clock())
    if gateway.runtime.spool is not None:
        _check_folder("store_spool", gateway.runtime.spool.path)
    tested = {}
    for name in settings.deployments if args.providers else ():
        ok, reason = await test_deployment(gateway, name)
        tested[name] = "ok" if ok else str(reason)
    await gateway.aclose()
    failed = [name for name, said in tested.items() if said != "ok"]
    document: dict[str, object] = {
        "configuration": source,
        "store": shown(url),
        "state": state,
        "projects": projects,
        "deployments": ", ".join(settings.deployments) if not args.json else list(settings.deployments),
        "ok": not failed if args.json else "no" if failed else "yes",
    }
    if tested:
        document["providers"] = tested if args.json else "; ".join(f"{name}: {said}" for name, said in tested.items())
    print_document(args, document)
    return 1 if failed else 0
