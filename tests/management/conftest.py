"""An administration over real servers, on each host: an operator of all projects, an owner of one, a reader, and nobody."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
from aiohttp import web

from floop_gateway_core import Gateway, Operator
from tests.hosts import ADMIN, ADMIN_HOSTS
from tests.serving import MOUNT, gateway_of

OPERATORS = {
    "root": Operator("root", origin="10.0.0.1"),
    "olga": Operator("olga", projects=["p"]),
    "reader": Operator("reader", may_write=False),
    "nothing": Operator("nothing", projects=[]),
}


def name_in(request: Any) -> str | None:
    """Return the header that stands for a login, from the host's own request of each kind."""
    if isinstance(request, web.Request):
        return request.headers.get("X-Login")
    if "headers" in request:  # an ASGI scope
        found = dict(request["headers"]).get(b"x-login")
        return None if found is None else str(found.decode())
    found = request.get("HTTP_X_LOGIN")
    return None if found is None else str(found)


def authorize(request: Any) -> Operator | None:
    return OPERATORS.get(name_in(request) or "")


@dataclass(frozen=True)
class Office:
    """A server with a gateway and its administration; `key` opens the project `p`."""

    gateway: Gateway
    key: str
    url: str

    def ask(
        self, method: str, path: str, body: Any = None, *, login: str | None = "root", **headers: str
    ) -> httpx.Response:
        sent = {"X-Login": login} if login else {}
        if method != "GET":
            sent["Content-Type"] = "application/json"
        options: dict[str, Any] = {} if body is None else {"json": body}
        with httpx.Client(timeout=30) as client:
            return client.request(method, self.url + ADMIN + path, headers={**sent, **headers}, **options)

    def data(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        answer = self.ask(method, path, body, **options)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def chat(self, text: str = "one two", key: str | None = None) -> httpx.Response:
        return httpx.post(
            self.url + MOUNT + "/generate",
            json={"prompt": text},
            headers={"Authorization": f"Bearer {key or self.key}"},
        )


@pytest.fixture(params=ADMIN_HOSTS.values(), ids=list(ADMIN_HOSTS))
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    """An office on each host."""
    gateway, key = gateway_of()
    anyio.run(lambda: gateway.admin.create_project("q", owner="quentin", credits="5"))
    with request.param(gateway, authorize) as url:
        yield Office(gateway, key, url)


@pytest.fixture
def asgi_office() -> Iterator[Office]:
    """An office on one host, for what does not depend on the host."""
    gateway, key = gateway_of()
    anyio.run(lambda: gateway.admin.create_project("q", owner="quentin", credits="5"))
    with ADMIN_HOSTS["asgi"](gateway, authorize) as url:
        yield Office(gateway, key, url)
