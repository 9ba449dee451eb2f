"""`gateway.toml`: the keys, their allowed values, and the message for each mistake."""

from floop_gateway_core.config.settings import (
    ConfigError,
    DeploymentSettings,
    HookSettings,
    PlanSettings,
    Settings,
    UpstreamSettings,
)

__all__ = ["ConfigError", "DeploymentSettings", "HookSettings", "PlanSettings", "Settings", "UpstreamSettings"]
