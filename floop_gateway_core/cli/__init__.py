"""The command `floop-gateway`: `parser` says what may be typed, `commands` does it, `output` prints it."""

from floop_gateway_core.cli.main import main

__all__ = ["main"]
