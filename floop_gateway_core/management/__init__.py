"""Applications for operators, served alongside the gateway: the HTTP administration and its OpenAPI document."""

from floop_gateway_core.management.application import AdminApplication, Authorize

__all__ = ["AdminApplication", "Authorize"]
