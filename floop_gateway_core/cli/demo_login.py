"""The demo's stand-in for a host's login: a link that works once, and a cookie for as long as the demo runs."""

import hmac
import secrets
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

from floop_gateway_core.admin import Operator

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["DemoLogin"]

COOKIE = "floop_demo"


class DemoLogin:
    """`link` is the path and query of the one-time login; `authorize` knows its browser afterwards."""

    def __init__(self, path: str, then: str) -> None:
        self._once: str | None = secrets.token_urlsafe(24)
        self._session = secrets.token_urlsafe(24)
        self._then = then
        self.link = f"{path}?once={self._once}"

    async def visit(self, request: "Request") -> "Response":
        """Let the first visitor with the link in."""
        from starlette.responses import PlainTextResponse, RedirectResponse

        sent = request.query_params.get("once", "")
        if self._once is None or not hmac.compare_digest(sent.encode(), self._once.encode()):
            return PlainTextResponse("The link works once. Start the demo again for another.", 403)
        self._once = None
        answer = RedirectResponse(self._then, 303, headers={"Cache-Control": "no-store"})
        answer.set_cookie(COOKIE, self._session, httponly=True, samesite="lax")
        return answer

    def authorize(self, scope: Any) -> Operator | None:
        """Return the operator of all projects to the browser that has logged in."""
        for name, value in scope["headers"]:
            if name == b"cookie":
                sent = SimpleCookie(value.decode("latin-1")).get(COOKIE)
                if sent is not None and hmac.compare_digest(sent.value.encode(), self._session.encode()):
                    return Operator("demo")
        return None
