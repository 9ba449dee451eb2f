"""The entry point: parse, run, and turn errors into one line and an exit code (0 done, 1 failed, 2 wrong use)."""

import inspect
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import anyio

from floop_gateway_core.cli.parser import build_parser
from floop_gateway_core.config import ConfigError
from floop_gateway_core.errors import AdminError
from floop_gateway_core.stores.base import StoreUnavailable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser, words = build_parser(), sys.argv[1:] if argv is None else argv
    if any("\ud800" <= character <= "\udfff" for word in words for character in word):
        parser.error("an argument is not UTF-8")
    args = parser.parse_args(words)
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # hooks of the configuration are found in the working folder
    try:
        module, _, name = args.handler.partition(":")
        handler = getattr(import_module(f"floop_gateway_core.cli.{module}"), name)
        return int(anyio.run(handler, args) if inspect.iscoroutinefunction(handler) else handler(args))
    except (AdminError, ConfigError) as error:
        return _fail(str(error))
    except StoreUnavailable as error:
        return _fail(f"the store is unavailable: {error}")
    except BrokenPipeError:
        sys.stderr.close()  # stdout's pipe was closed by its reader; Python would report it at exit
        return 1
    except KeyboardInterrupt:
        return 130


def _fail(message: str) -> int:
    for line in message.splitlines():
        print(f"floop-gateway: {line}", file=sys.stderr)
    return 1
