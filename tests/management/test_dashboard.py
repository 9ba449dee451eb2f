"""The dashboard on every host: pages, forms, who may see what, and what another site cannot do."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from aiohttp import web
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import floop_gateway_aiohttp
import floop_gateway_asgi
import floop_gateway_flask
from floop_gateway_core import Gateway
from tests.adapters import test_aiohttp, test_flask
from tests.management.conftest import authorize
from tests.serving import MOUNT, gateway_of, served

DASHBOARD = "/settings/ai"
LOGIN = "/login"


def _asgi(gateway: Gateway) -> Any:
    ours, pages = floop_gateway_asgi.FloopGateway(gateway), floop_gateway_asgi.FloopDashboard(gateway, authorize, LOGIN)
    return served(Starlette(routes=[Mount(MOUNT, ours), Mount(DASHBOARD, pages)]))


def _flask(gateway: Gateway) -> Any:
    app = Flask("host")
    floop_gateway_flask.FloopGateway(app, gateway)
    pages = floop_gateway_flask.FloopDashboard(gateway, authorize, LOGIN)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {DASHBOARD: pages})  # type: ignore[method-assign]
    return test_flask.served(app)


def _aiohttp(gateway: Gateway) -> Any:
    app = web.Application()
    app.add_subapp(DASHBOARD, floop_gateway_aiohttp.FloopDashboard(gateway, authorize, LOGIN))
    floop_gateway_aiohttp.setup(app, gateway)
    return test_aiohttp.served(app)


class Browser:
    """What a browser without scripts does: it keeps cookies, follows redirects and fills in forms."""

    def __init__(self, url: str, login: str | None) -> None:
        headers = {"X-Login": login} if login else {}
        self.client = httpx.Client(
            base_url=url + DASHBOARD, headers={**headers, "Accept": "text/html"}, timeout=30, follow_redirects=False
        )

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def submit(self, page: str, action: str, **fields: str) -> httpx.Response:
        """Send a form of a page, with its hidden fields."""
        text = self.get(page).text
        form = next(one for one in re.findall(r"<form.*?</form>", text, re.S) if f'action="{DASHBOARD}{action}"' in one)
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        return self.client.post(action, data={**hidden, **fields})


class Site:
    """A host with the gateway and its dashboard, and the key of the project `p`."""

    def __init__(self, url: str, key: str, stack: ExitStack) -> None:
        self.url = url
        self.key = key
        self._stack = stack

    def browser(self, login: str | None) -> Browser:
        browser = Browser(self.url, login)
        self._stack.enter_context(browser.client)
        return browser


@pytest.fixture(params=[_asgi, _flask, _aiohttp], ids=["asgi", "flask", "aiohttp"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    gateway, key = gateway_of()
    with request.param(gateway) as url, ExitStack() as stack:
        yield Site(url, key, stack)


def chat(site: Site, key: str | None = None) -> httpx.Response:
    return httpx.post(
        site.url + MOUNT + "/generate",
        json={"prompt": "one two"},
        headers={"Authorization": f"Bearer {key or site.key}"},
    )


def test_a_newcomer_creates_a_project_and_sees_its_requests(site: Site) -> None:
    browser = site.browser("root")
    page = browser.submit("/", "/projects", name="shop", plan="default", credits="3.5", owner="")
    assert page.status_code == 201
    key = re.search(r"flp_sk_\w{33}", page.text)
    assert key is not None
    assert f"curl {site.url}{MOUNT}/chat" in page.text
    assert "shop" in browser.get("/").text
    answer = chat(site, key[0])
    assert answer.status_code == 200
    usage = browser.get("/projects/shop/usage")
    assert answer.headers["x-request-id"] in usage.text
    assert "<svg" in usage.text
    shown = browser.get(f"/requests/{answer.headers['x-request-id']}")
    assert "echo" in shown.text
    assert key[0] not in browser.get("/projects/shop").text + usage.text + shown.text


def test_the_forms_do_what_they_say(site: Site) -> None:
    browser = site.browser("root")
    project = "/projects/p"
    id = re.search(r"prj_\w+", browser.get(project).text)
    assert id is not None
    project = f"/projects/{id[0]}"

    def submit(action: str, **fields: str) -> httpx.Response:
        return browser.submit(project, project + action, **fields)

    saved = submit("/settings", requests_per_minute="7", daily_tokens="", plan="default")
    assert saved.status_code == 303
    assert saved.headers["location"].startswith(DASHBOARD + project)
    assert "7 requests per minute" in browser.get(project).text
    assert submit("/suspend").status_code == 303
    assert chat(site).status_code == 403
    assert submit("/resume").status_code == 303
    answer = chat(site)
    assert answer.status_code == 200
    assert submit("/money", kind="grant", credits="2.5", note="hello").status_code == 303
    assert "hello" in browser.get(project).text
    refused = submit("/money", kind="debit", credits="99999999", note="")
    assert refused.status_code == 409
    assert "credits are available" in refused.text
    request = f"/requests/{answer.headers['x-request-id']}"
    assert browser.submit(request, request + "/refund", credits="", note="").status_code == 303
    prefix = re.search(r'name="current" value="([^"]+)"', browser.get(project).text)
    assert prefix is not None
    rotated = submit("/rotate-key", grace_s="0", current=prefix[1])
    assert re.search(r"flp_sk_\w{33}", rotated.text)
    assert chat(site).status_code == 401
    assert submit("/rotate-key", grace_s="0", current=prefix[1]).status_code == 409  # the page was loaded again
    assert browser.submit("/health", "/health/echo/test").headers["location"] == DASHBOARD + "/health"
    assert "it answered." in browser.get("/health").text
    assert "it answered." not in browser.get("/health").text
    assert "EVIL" not in browser.get("/health?done=EVIL").text
    assert "rotate-key" in browser.get("/audit").text
    assert submit("/delete", confirm="wrong").status_code == 400
    assert submit("/delete", confirm="p").status_code == 303
    assert browser.get(project).status_code == 404


def test_an_owner_sees_only_what_is_theirs(site: Site) -> None:
    root = site.browser("root")
    root.submit("/", "/projects", name="other", plan="default", credits="0", owner="")
    olga = site.browser("olga")
    assert "other" not in olga.get("/").text
    assert olga.get("/projects/p").status_code == 200
    for path in ("/projects/other", "/projects/other/usage", "/health"):
        assert olga.get(path).status_code in (403, 404)
    page = olga.get("/projects/p").text
    assert "Rotate key" in page
    for operators_only in ("Grant", "Delete project", "Create a project"):
        assert operators_only not in page
    reader = site.browser("reader").get("/projects/p").text
    assert "Rotate key" not in reader


def test_a_statement_has_a_period_and_its_balances(site: Site) -> None:
    browser = site.browser("root")
    id = re.search(r"prj_\w+", browser.get("/projects/p").text)
    assert id is not None
    browser.submit("/projects/p", f"/projects/{id[0]}/money", kind="grant", credits="2.5", note="hello")
    assert "hello" in browser.get("/projects/p").text
    earlier = browser.get("/projects/p?first=2020-01-01&last=2020-01-31").text
    assert "hello" not in earlier
    assert "Opening balance 0 credits, closing balance 0 credits" in earlier
    assert browser.get("/projects/p?first=2020-02-01&last=2020-01-01").status_code == 400
    assert browser.get("/projects/p?first=soon").status_code == 400


def test_live_rows_follow_the_filters_of_the_page(site: Site) -> None:
    page = site.browser("root").get("/usage?alias=smart&status=200").text
    assert f'data-tail="{DASHBOARD}/usage/tail?status=200&amp;alias=smart"' in page


def test_the_default_plan_is_preselected(site: Site) -> None:
    assert "<option selected>default</option>" in site.browser("root").get("/").text


def test_who_is_not_logged_in_goes_to_the_login(site: Site) -> None:
    nobody = site.browser(None)
    assert (nobody.get("/").status_code, nobody.get("/").headers["location"]) == (303, LOGIN)
    assert nobody.client.get("/", headers={"Accept": "application/json"}).status_code == 401
    assert nobody.client.post("/projects", data={"name": "x"}).status_code == 401


def test_a_form_of_another_page_or_site_changes_nothing(site: Site) -> None:
    browser = site.browser("root")
    assert browser.client.post("/projects/p/suspend", data={}).status_code == 403
    browser.get("/")
    for fields, headers in (
        ({}, {}),
        ({"csrf": "guess"}, {}),
        ({"csrf": browser.client.cookies["floop_csrf"]}, {"Sec-Fetch-Site": "cross-site"}),
        ({"csrf": browser.client.cookies["floop_csrf"]}, {"Origin": "https://evil.example"}),
    ):
        answer = browser.client.post("/projects/p/suspend", data=fields, headers=headers)
        assert answer.status_code == 403
    assert chat(site).status_code == 200


def test_pages_are_safe_and_whole(site: Site) -> None:
    browser = site.browser("root")
    page = browser.get("/?q=%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script>alert" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert "HttpOnly; SameSite=Strict" in page.headers["set-cookie"]
    for asset in re.findall(r'(?:src|href)="([^"]+/static/[^"]+)"', page.text):
        found = httpx.get(site.url + asset)
        assert (found.status_code, found.headers["x-content-type-options"]) == (200, "nosniff")
    assert browser.get("/static/../application.py").status_code == 404
    assert browser.get("/nope").status_code == 404
    chat(site)
    exported = browser.get("/usage/export?format=csv")
    assert exported.headers["content-disposition"] == "attachment; filename=usage.csv"
    assert len(exported.text.splitlines()) == 2
