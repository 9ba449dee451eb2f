"""The dashboard as an application that every adapter mounts.

    static?  →  authorize  →  page, or (same site? token?) action  →  template

A form must send the token from its page, which must match a cookie that no other site can read or send. Scripts and
styles are only loaded from this application, and every page works without scripts.
"""

import hmac
import re
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import cache
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined

from floop_gateway_core.admin import Operator
from floop_gateway_core.errors import AdminError, ErrorCode, Refusal
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.http.body import read_body
from floop_gateway_core.http.login import ask_host
from floop_gateway_core.http.origin import is_same_site
from floop_gateway_core.management import handlers
from floop_gateway_core.management.application import Authorize
from floop_gateway_core.management.dashboard import pages
from floop_gateway_core.management.dashboard.actions import ACTIONS
from floop_gateway_core.management.dashboard.forms import fields
from floop_gateway_core.management.dashboard.pages import Page
from floop_gateway_core.management.dashboard.place import base_url, is_https, mount_of
from floop_gateway_core.management.desk import Desk
from floop_gateway_core.management.faults import Refused, refused
from floop_gateway_core.management.query import Query
from floop_gateway_core.management.routes import LOG
from floop_gateway_core.money import format_credits
from floop_gateway_core.types import Microcredits
from floop_gateway_core.wire.messages import ClientDisconnected, GatewayRequest, Headers, Reply

__all__ = ["DashboardApplication"]

COOKIE, NOTICE = "floop_csrf", "floop_notice"
NOTICE_S = 60
BODY_BYTES, BODY_S = 64 * 1024, 10.0
MAX_NOTICE = 300
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", POLICY),
    ("Referrer-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
STATIC = {
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx.LICENSE.txt": "text/plain; charset=utf-8",
}
NO_PAGE = Refusal(ErrorCode.NOT_FOUND, "Page not found.")
CROSS_SITE = Refusal(ErrorCode.FORBIDDEN, "This form came from another page or has expired. Open the page again.")
LOGIN = Refusal(ErrorCode.UNAUTHORIZED, "Log in as an operator.")


@cache
def _templates() -> Environment:
    loader = PackageLoader("floop_gateway_core.management.dashboard")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters["credits"] = lambda amount: format_credits(Microcredits(amount))
    return found


@cache
def _static(name: str) -> bytes:
    return resources.files(__package__).joinpath("static", name).read_bytes()


class DashboardApplication:
    """`authorize` is the administration's. A visitor that it rejects is redirected to `login_url`, if that is set.

    `gateway_path` is where the gateway itself is mounted; the page of a new key shows commands with that path.
    """

    def __init__(
        self,
        gateway: Gateway,
        authorize: Authorize,
        login_url: str | None = None,
        *,
        gateway_path: str = "/api/v1/ai",
    ) -> None:
        if not callable(authorize):
            raise TypeError(f"authorize must be a callable, got {type(authorize).__name__}")
        self.gateway = gateway
        self._authorize = authorize
        self._login_url = login_url
        self._gateway_path = gateway_path

    async def start(self) -> None:
        """Do nothing: the gateway is started by the application that serves it."""

    async def aclose(self) -> None:
        """Do nothing: the gateway is closed by the application that serves it."""

    @asynccontextmanager
    async def open(self, request: GatewayRequest) -> AsyncGenerator[Reply, None]:
        """Answer one request."""
        reply = await self._reply(request)
        if isinstance(reply.body, AsyncGenerator):
            async with aclosing(reply.body):
                yield reply
        else:
            yield reply

    async def _reply(self, request: GatewayRequest) -> Reply:
        view = _View(request, self._gateway_path)
        if request.path.startswith("/static/"):
            return _file(request)
        try:
            operator = await ask_host(self._authorize, request.host)
            if operator is None:
                return self._stranger(request, view)
            if not isinstance(operator, Operator):
                raise TypeError(f"authorize must return an Operator or None, got {type(operator).__name__}")
            view.operator = operator
            return await self._answer(request, Desk(self.gateway, operator), view)
        except ClientDisconnected:
            return Reply(499, [], b"")
        except Exception as error:
            return view.error(refused(error))

    def _stranger(self, request: GatewayRequest, view: "_View") -> Reply:
        asks_for_page = request.method == "GET" and any("text/html" in one for one in request.header("accept"))
        if self._login_url is not None and asks_for_page:
            return Reply(303, [("Location", self._login_url), ("Content-Length", "0"), *SAFE_HEADERS], b"")
        return view.error(Refused(LOGIN))

    async def _answer(self, request: GatewayRequest, desk: Desk, view: "_View") -> Reply:
        if request.method == "POST":
            return await self._act(request, desk, view)
        if request.method not in ("GET", "HEAD"):
            refusal = Refusal(ErrorCode.METHOD_NOT_ALLOWED, "This page only accepts GET and POST.")
            raise Refused(refusal)
        form = fields(request.query.encode("ascii", "replace"))
        match [unquote(part) for part in request.path.split("/")[1:]]:
            case [] | [""]:
                page = await pages.projects(desk, form)
            case ["projects", name]:
                page = await pages.project(desk, name, form)
            case ["projects", name, "usage"]:
                page = await pages.usage(desk, (await desk.project(name)).id, form, view.mount)
            case ["usage"]:
                page = await pages.usage(desk, None, form, view.mount)
            case ["projects", name, "usage", "export" | "tail" as what]:
                return await _raw(request, desk, what, {"p": name})
            case ["usage", "export" | "tail" as what]:
                return await _raw(request, desk, what, {})
            case ["requests"]:
                return view.redirect(f"/requests/{quote(form.get('id', '') or 'none', safe='')}")
            case ["requests", id]:
                page = await pages.request(desk, id)
            case ["health"]:
                page = await pages.health(desk)
            case ["audit"]:
                page = await pages.audit(desk, form)
            case _:
                raise Refused(NO_PAGE)
        return view.page(page)

    async def _act(self, request: GatewayRequest, desk: Desk, view: "_View") -> Reply:
        body = await read_body(request, cap_bytes=BODY_BYTES, limit_s=BODY_S)
        if isinstance(body, Refusal):
            raise Refused(body)
        form = fields(body)
        sent, kept = form.get("csrf", ""), view.token
        same = is_same_site(request, self.gateway.settings.admin.origins)
        if not same or kept is None or not hmac.compare_digest(sent.encode(), kept.encode()):
            raise Refused(CROSS_SITE)
        for path, action in ACTIONS.items():
            if found := re.fullmatch(path, request.path):
                about = unquote(found[1]) if found.groups() else ""
                went = await action(desk, about, form)
                return view.page(went) if isinstance(went, Page) else view.redirect(went[0], done=went[1])
        raise Refused(NO_PAGE)


async def _raw(request: GatewayRequest, desk: Desk, what: str, path: Mapping[str, str]) -> Reply:
    """Return an export as a file, or the tail as a stream of events."""
    call = handlers.Call(desk, path, Query(request.query, frozenset({*LOG, "format", "project"})))
    raw = await (handlers.tail(call) if what == "tail" else handlers.usage(call))
    if not isinstance(raw, handlers.Raw):
        raise AdminError("format must be csv or jsonl")
    name = () if what == "tail" else (("Content-Disposition", "attachment; filename=usage." + _ending(raw)),)
    return Reply(200, [("Content-Type", raw.content_type), *name, *SAFE_HEADERS], raw.chunks)


def _ending(raw: handlers.Raw) -> str:
    return "csv" if "csv" in raw.content_type else "jsonl"


def _file(request: GatewayRequest) -> Reply:
    name = request.path.removeprefix("/static/")
    if name not in STATIC or request.method not in ("GET", "HEAD"):
        return Reply(404, [("Content-Length", "0")], b"")
    body = _static(name)
    headers = [("Content-Type", STATIC[name]), ("Content-Length", str(len(body))), ("Cache-Control", "max-age=3600")]
    return Reply(200, [*headers, ("X-Content-Type-Options", "nosniff")], body)


class _View:
    """Renders the pages of one request; `operator` is None until the request is authorized."""

    def __init__(self, request: GatewayRequest, gateway_path: str) -> None:
        self.mount = mount_of(request)
        self.operator: Operator | None = None
        self._example_url = base_url(request) + gateway_path
        self._secure = is_https(request)
        self.token = _cookie(request, COOKIE)
        self._new_token = secrets.token_urlsafe(24) if self.token is None else None
        self._done = _cookie(request, NOTICE)

    def page(self, page: Page, *, error: str = "") -> Reply:
        """Return a page."""
        operator = self.operator
        values = {
            "mount": self.mount,
            "operator": "" if operator is None else operator.name,
            "sees_all": operator is not None and operator.projects is None,
            "may_write": operator is not None and operator.may_write,
            "csrf": self.token or self._new_token,
            "example_url": self._example_url,
            "hook_error": None,
            "done": unquote(self._done or "")[:MAX_NOTICE],
            "error": error,
            **page.values,
        }
        body = _templates().get_template(page.template).render(values).encode("utf-8", "replace")
        headers: Headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
        shown = () if self._done is None else self._set(NOTICE, "", "; Max-Age=0")
        return Reply(page.status, [*headers, *self._cookies(), *shown, *SAFE_HEADERS], body)

    def error(self, fault: Refused) -> Reply:
        """Return the page of an error."""
        return self.page(Page("error.html", {"status": fault.status, "message": fault.refusal.message}, fault.status))

    def redirect(self, path: str, *, done: str = "") -> Reply:
        """Send the browser to another page, with a notice to show there: in a cookie, as no other site can set one."""
        notice = self._set(NOTICE, quote(done, safe=""), f"; Max-Age={NOTICE_S}") if done else ()
        location = [("Location", self.mount + path), ("Content-Length", "0")]
        return Reply(303, [*location, *self._cookies(), *notice, *SAFE_HEADERS], b"")

    def _cookies(self) -> Headers:
        return () if self._new_token is None else self._set(COOKIE, self._new_token)

    def _set(self, name: str, value: str, age: str = "") -> Headers:
        secure = "; Secure" if self._secure else ""
        return (("Set-Cookie", f"{name}={value}; Path={self.mount}/; HttpOnly; SameSite=Strict{age}{secure}"),)


def _cookie(request: GatewayRequest, name: str) -> str | None:
    for value in request.header("cookie"):
        try:
            found = SimpleCookie(value).get(name)
        except CookieError:
            continue
        if found is not None and found.value:
            return found.value
    return None
