"""The settings that gateways begin with and that reloads bring: limits, prices, hedging."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from floop_gateway_core import Settings

__all__ = ["HOLD_S", "TOTAL_S", "VARIANTS", "settings_of"]

TOTAL_S = 30.0
HOLD_S = TOTAL_S + 8.0 + 2.0
VARIANTS: tuple[Mapping[str, Any], ...] = (
    {"rpm": 100, "tokens": 1_000_000, "prices": {"a": ("10", "30"), "b": ("25", "40")}},
    {"rpm": 3, "tokens": 1_000_000, "prices": {"a": ("0.25", "1.5"), "b": ("100", "0")}},
    {"rpm": 100, "tokens": 150, "prices": {"a": ("10", "30"), "b": ("10", "30")}},
    {"rpm": 2, "tokens": 400, "prices": {"a": ("7", "3.333333"), "b": ("10", "30")}},
    {"rpm": 100, "tokens": 1_000_000, "hedge_after_s": 0.3, "prices": {"a": ("10", "30"), "b": ("1", "1")}},
)
"""The settings that a reload may bring: limits, prices of the input's and the output's tokens, hedging."""


@cache
def settings_of(variant: int) -> Settings:
    """Return the settings of a variant; the models' names say which it is."""
    of = VARIANTS[variant]
    return Settings.read(
        {
            "store": "memory://",
            "plans": {"default": {"requests_per_minute": of["rpm"], "daily_tokens": of["tokens"], "output_tokens": 40}},
            "deployments": {
                name: {
                    "provider": "openai",
                    "model": f"{name}@{variant}",
                    "input_microcredits_per_token": prices[0],
                    "output_microcredits_per_token": prices[1],
                }
                for name, prices in of["prices"].items()
            },
            "routes": {alias: ["a", "b"] for alias in ("fast", "smart", "reason")},
            "upstream": {
                "total_s": TOTAL_S,
                "first_event_s": 5.0,
                "between_events_s": 5.0,
                "breaker_failures": 4,
                "breaker_cool_down_s": 5.0,
                "hedge_after_s": of.get("hedge_after_s", 0),
            },
        },
        source="simulation",
    )
