"""The host's own login as a way in without a key.

It is not asked for a request that says it comes from another site: a browser sends the host's cookies with those too.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio.to_thread

from floop_gateway_core.engine.gate import AsProject
from floop_gateway_core.http.origin import is_same_site
from floop_gateway_core.wire.messages import GatewayRequest

__all__ = ["NO_LOGIN", "Authenticate", "Login", "ask_host"]

Authenticate: TypeAlias = Callable[[Any], "str | Awaitable[str | None] | None"]


async def ask_host(function: Callable[[Any], object], request: object) -> object:
    """Call a host's function with its own request. A plain one may block, so it runs in a thread."""
    if inspect.iscoroutinefunction(function):
        found: object = await function(request)
        return found
    found = await anyio.to_thread.run_sync(function, request)
    return await found if inspect.isawaitable(found) else found


@dataclass(frozen=True, slots=True)
class Login:
    """`authenticate` returns a project's name for the host's own request, or None. It is None if there is no login."""

    authenticate: Authenticate | None = None
    origins: frozenset[str] = frozenset()

    async def caller(self, request: GatewayRequest) -> AsProject | None:
        """Return the caller that the host's login admits, or None, in which case the key decides."""
        if self.authenticate is None or not is_same_site(request, self.origins):
            return None
        name = await ask_host(self.authenticate, request.host)
        if name is None:
            return None
        if not isinstance(name, str):
            raise TypeError(f"authenticate must return the name of a project or None, got {type(name).__name__}")
        return AsProject(name)


NO_LOGIN = Login()
