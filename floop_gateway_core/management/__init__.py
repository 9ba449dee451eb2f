"""Applications beside the gateway, for operators: the administration over HTTP, with a document of itself."""

from floop_gateway_core.management.application import AdminApplication, Authorize

__all__ = ["AdminApplication", "Authorize"]
