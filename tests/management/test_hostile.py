"""Bad input to the administration and the dashboard: each is refused by name, none is a server error."""

import base64
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import floop_gateway_asgi
from floop_gateway_core import AdminError, Conflict, Gateway, NoSuchAccount, NoSuchRequest
from tests.hosts import ADMIN
from tests.management.conftest import Office
from tests.management.test_dashboard import Browser, Site, chat
from tests.management.test_dashboard import site as site  # a fixture
from tests.serving import gateway_of, served


def cursor(place: object) -> str:
    """Return a cursor of our form with a place of the caller's own."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("colour=red", "unknown parameter 'colour'"),
        ("limit=5&limit=6", "limit must be given once"),
        ("limit=0", "limit must be a whole number from 1"),
        ("limit=-1", "limit must be"),
        ("limit=1e3", "limit must be"),
        ("limit=%D9%A3", "limit must be"),  # an Arabic digit
        ("status=99", "status must be"),
        ("since=yesterday", "since must be an RFC 3339 time"),
        ("since=1e400", "since must be"),
        ("until=99999999999999", "until must be"),
        ("since=2026-13-01", "since must be"),
        ("cursor=x", "cursor must be the `next`"),
        ("cursor=%FF", "the query is not valid"),
        ("cursor=" + cursor([1]), "cursor must be"),
        ("cursor=" + cursor(["a", "b"]), "cursor must be"),
        ("cursor=" + cursor([True, "b"]), "cursor must be"),
        ("cursor=" + cursor({}), "cursor must be"),
        ("cursor=" + cursor([2**63, "b"]), "cursor must be"),
        ("cursor=" + cursor([1.0, "\ud800"]), "cursor must be"),
        ("cursor=" + cursor([1.0, "\0"]), "cursor must be"),
        ("format=xml", "format must be one of"),
        ("&".join(f"a{n}=1" for n in range(60)), "the query is not valid"),
    ],
)
def test_a_bad_query_is_named(asgi_office: Office, query: str, message: str) -> None:
    answer = asgi_office.ask("GET", "/usage?" + query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR"), answer.text
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/accounts/quentin/grants", {"credits": 1, "id": "with space"}),
        ("/accounts/quentin/grants", {"credits": 1, "id": ""}),
        ("/accounts/quentin/grants", {"credits": 1, "id": "x" * 300}),
        ("/accounts/quentin/grants", {"credits": 1, "note": "x" * 2000}),
        ("/accounts/quentin/grants", {"credits": 1, "note": "a\x00b"}),
        ("/accounts/quentin/grants", {"credits": -1}),
        ("/accounts/quentin/grants", {"credits": 1e30}),
        ("/accounts/quentin/grants", {"credits": True}),
        ("/projects/p/suspend", {"reason": 3}),
        ("/projects/p/rotate-key", {"grace_s": "soon"}),
    ],
)
def test_a_bad_posting_changes_nothing(asgi_office: Office, path: str, body: dict[str, Any]) -> None:
    answer = asgi_office.ask("POST", path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR"), answer.text
    assert asgi_office.data("GET", "/accounts/quentin")["posted"] == 5


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"credits": NaN}', b'{"credits": Infinity}', b"7"])
def test_a_body_that_is_no_object_is_refused(asgi_office: Office, body: bytes) -> None:
    answer = httpx.post(
        asgi_office.url + ADMIN + "/accounts/quentin/grants",
        content=body,
        headers={"X-Login": "root", "Content-Type": "application/json"},
    )
    code = "INPUT_TOO_LARGE" if len(body) > 65_536 else "INVALID_BODY"
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text


@pytest.mark.parametrize(("method", "path"), [("POST", "/healthz"), ("DELETE", "/readyz"), ("PATCH", "/openapi.json")])
def test_a_probe_takes_no_other_method(asgi_office: Office, method: str, path: str) -> None:
    answer = asgi_office.ask(method, path, {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"].startswith("GET")


def test_a_client_that_leaves_in_mid_body_is_no_fault(asgi_office: Office, caplog: pytest.LogCaptureFixture) -> None:
    address = urlsplit(asgi_office.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port)
    connection.putrequest("POST", ADMIN + "/accounts/quentin/grants")
    for name, value in (("X-Login", "root"), ("Content-Type", "application/json"), ("Content-Length", "50")):
        connection.putheader(name, value)
    connection.endheaders(b'{"credits": 1')
    connection.close()
    assert asgi_office.data("GET", "/accounts/quentin")["posted"] == 5
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def _on_asgi(authorize: Any) -> Any:
    """Serve an administration and a dashboard with an `authorize` of the test's own."""
    gateway, _ = gateway_of()
    routes = [
        Mount("/admin", floop_gateway_asgi.FloopAdmin(gateway, authorize)),
        Mount("/pages", floop_gateway_asgi.FloopDashboard(gateway, authorize)),
    ]
    return served(Starlette(routes=routes))


def _fail(request: object) -> None:
    raise RuntimeError("the host's session store is down")


@pytest.mark.parametrize("authorize", [_fail, lambda _: "root", lambda _: True], ids=["raises", "a name", "a bool"])
def test_an_authorize_that_fails_lets_nobody_in(authorize: Any) -> None:
    with _on_asgi(authorize) as url:
        answer = httpx.get(url + "/admin/projects")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
        assert "session store" not in answer.text
        page = httpx.get(url + "/pages/")
        assert page.status_code == 500
        assert "session store" not in page.text


@pytest.mark.parametrize("kind", [floop_gateway_asgi.FloopAdmin, floop_gateway_asgi.FloopDashboard])
def test_authorize_must_be_given(kind: Any) -> None:
    gateway, _ = gateway_of()
    with pytest.raises(TypeError, match="authorize must be a callable, got NoneType"):
        kind(gateway, None)


# -- the dashboard -------------------------------------------------------------------------------------------------


def submitted(browser: Browser, **fields: str) -> httpx.Response:
    """Create a project by the form."""
    return browser.submit("/", "/projects", **fields)


def test_bad_forms_say_what_is_wrong(site: Site) -> None:
    browser = site.browser("root")
    for fields, message in (
        ({"name": "a b"}, "name"),
        ({"name": "shop", "credits": "much"}, "credits must be a number of credits"),
        ({"name": "shop", "credits": "NaN"}, "credits"),
        ({"name": "p"}, "exists"),
    ):
        answer = submitted(browser, **fields)
        assert answer.status_code in (400, 409), (fields, answer.status_code)
        assert message in answer.text, fields
    assert "/projects/shop" not in browser.get("/").text


def test_bad_addresses_are_refused(site: Site) -> None:
    browser = site.browser("root")
    for method, path, status in (
        ("PUT", "/", 405),
        ("GET", "/projects/nobody", 404),
        ("GET", "/requests/req_none", 404),
        ("GET", "/usage?cursor=x", 400),
        ("GET", "/usage/export?format=json", 400),
        ("GET", "/usage/export?colour=1", 400),
        ("GET", "/?q=%FF%FE", 400),
        ("GET", "/static/nothing.js", 404),
        ("POST", "/static/app.js", 404),
    ):
        answer = browser.client.request(method, path)
        assert answer.status_code == status, (method, path, answer.status_code)
    token = browser.client.cookies["floop_csrf"]
    action = re.findall(r'action="[^"]*(/projects/[^"]*/settings)"', browser.get("/projects/p").text)[0]
    settings = browser.submit("/projects/p", action, requests_per_minute="-3")
    assert (settings.status_code, "requests_per_minute must be a whole number" in settings.text) == (400, True)
    assert browser.client.post("/nope", data={"csrf": token}).status_code == 404
    assert browser.client.post("/projects", content=b"\xff\xfe").status_code == 400
    assert browser.client.post("/projects", content=b"a" * 70_000).status_code == 400


def test_a_request_is_found_by_its_id_and_cookies_of_others_do_no_harm(site: Site) -> None:
    browser = site.browser("root")
    request_id = chat(site).headers["x-request-id"]
    found = browser.get(f"/requests?id={request_id}")
    assert (found.status_code, found.headers["location"].endswith(f"/requests/{request_id}")) == (303, True)
    assert request_id in browser.get(f"/requests/{request_id}").text
    odd = browser.client.get("/", headers={"Cookie": 'a="b; =; floop_csrf='})
    assert odd.status_code == 200
    assert "floop_csrf=" in odd.headers["set-cookie"]


# -- the administration in Python ----------------------------------------------------------------------------------


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway, _ = gateway_of()
    anyio.run(lambda: gateway.admin.create_project("q", owner="quentin", credits="5"))
    yield gateway
    anyio.run(gateway.aclose)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"credits": "a lot"}, "a lot"),
        ({"credits": "0"}, "more than 0"),
        ({"credits": "1", "id": "a b"}, "id must be"),
        ({"credits": "1", "note": "\n"}, "note must be"),
    ],
)
def test_a_grant_in_python_names_what_is_wrong(gateway: Gateway, wrong: Any, message: str) -> None:
    with pytest.raises(AdminError, match=message):
        anyio.run(lambda: gateway.admin.grant("quentin", **wrong))


def test_what_is_not_there_is_told_in_python(gateway: Gateway) -> None:
    with pytest.raises(NoSuchAccount):
        anyio.run(gateway.admin.statement, "nobody")
    with pytest.raises(NoSuchRequest):
        anyio.run(gateway.admin.refund, "req_none")
    with pytest.raises(Conflict, match="5 credits"):
        anyio.run(gateway.admin.debit, "quentin", "6")


def test_a_request_is_refunded_to_who_paid_though_its_project_is_deleted(gateway: Gateway) -> None:
    async def main() -> None:
        answer = await gateway.as_project("q").generate("one two")
        paid = (await gateway.admin.account("quentin")).posted
        await gateway.admin.delete_project("q")
        posted = await gateway.admin.refund(answer.request_id)
        assert posted.account.posted == paid + posted.entry.amount
        assert posted.entry.owner == "quentin"
        with pytest.raises(Conflict):
            await gateway.admin.refund(answer.request_id)

    anyio.run(main)
