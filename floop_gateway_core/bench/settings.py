"""What is measured: the user's own configuration, with its deployments pointed at the mock upstream."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["PROJECT", "Hosted", "turned_to"]

PROJECT = "bench"
OTHER_STORES = ("store_env", "rate_store", "rate_store_env", "store_spool")
"""Not written to by a measurement."""
PLENTY = {"requests_per_minute": 10**9, "daily_tokens": 10**12, "concurrency": 10**6, "output_tokens": 10**6}
"""Every limit is checked, and none refuses."""
OWN_OF_A_VENDOR = ("provider", "base_url", "api_key", "api_key_env", "api_key_file", "model", "words_per_second")


@dataclass(frozen=True, slots=True)
class Hosted:
    """One gateway process: its configuration, and what serves it. It is passed as JSON in `FLOOP_BENCH`."""

    settings: Mapping[str, Any]
    key_file: str
    port: int
    host: Literal["asgi", "flask", "aiohttp"] = "asgi"
    http: str = "httptools"
    loop: str = "uvloop"
    workers: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the process."""
        return {**os.environ, "FLOOP_BENCH": json.dumps(asdict(self))}

    @classmethod
    def of_environment(cls) -> "Hosted":
        """Return what this process is to serve."""
        return cls(**json.loads(os.environ["FLOOP_BENCH"]))


def turned_to(settings: Mapping[str, Any], upstream: int, store: str) -> dict[str, Any]:
    """Return settings whose deployments are the mock upstream, and whose limits refuse nothing."""
    mock = {"provider": "openai", "base_url": f"http://127.0.0.1:{upstream}/v1", "model": "mock"}
    deployments = {
        name: {**_price(own), **{key: value for key, value in own.items() if key not in OWN_OF_A_VENDOR}, **mock}
        for name, own in settings.get("deployments", {}).items()
    } or {"mock": {**_price({}), **mock}}
    first = [next(iter(deployments))]
    plans = settings.get("plans", {})
    return {
        **{name: value for name, value in settings.items() if name not in OTHER_STORES},
        "deployments": deployments,
        "routes": settings.get("routes") or dict.fromkeys(("fast", "smart", "reason"), first),
        "plans": {name: {**plans.get(name, {}), **PLENTY} for name in {"default", *plans}},
        "store": store,
    }


def _price(own: Mapping[str, Any]) -> dict[str, int]:
    """Return the price to add to a deployment that has none, such as `echo`."""
    return {} if any(name.endswith("microcredits_per_token") for name in own) else {"microcredits_per_token": 1}
