"""The URLs of the stores that a configuration names, and how they are shown: never with a password."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from floop_gateway_core.config.errors import ConfigError
from floop_gateway_core.config.settings import Settings

__all__ = ["rate_url", "shown", "store_url"]


def store_url(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the URL of the store; raise `ConfigError`."""
    given = settings.store if "store" in settings.model_fields_set else None
    return _one_of("store", given, settings.store_env, environ) or settings.store


def rate_url(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the store of the rate alone, or None; raise `ConfigError`."""
    return _one_of("rate_store", settings.rate_store, settings.rate_store_env, environ)


def _one_of(key: str, url: str | None, variable: str | None, environ: Mapping[str, str]) -> str | None:
    if url is not None and variable is not None:
        raise ConfigError(f"{key} and {key}_env must not both be given")
    if variable is not None and not (url := environ.get(variable, "").strip()):
        raise ConfigError(f"{key}_env = {variable!r}: must name an environment variable that is set")
    return url


def shown(url: str) -> str:
    """Return a URL without what may be secret: its password and its parameters."""
    if url.startswith(("memory:", "sqlite:")):
        return url
    parts = urlsplit(url)
    user, separator, place = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}{separator}{place}"
    return parts._replace(netloc=netloc, query="", fragment="").geturl()
