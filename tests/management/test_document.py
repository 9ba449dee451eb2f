"""The OpenAPI document is valid, and what the server does is what it says: schemathesis asks every operation."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from floop_gateway_core.management import models
from floop_gateway_core.management.openapi import document
from floop_gateway_core.management.routes import ROUTES
from floop_gateway_core.types import RECORD_FIELDS
from tests.hosts import ADMIN
from tests.management.conftest import Office

OURS = [route for route in ROUTES if not route.path.endswith("/tail")]


def test_the_document_is_valid_openapi_and_names_every_route() -> None:
    found = document(ROUTES)
    validate(found)
    assert found["openapi"].startswith("3.1")
    for route in ROUTES:
        assert route.method.lower() in found["paths"][route.path]
    assert {"/chat", "/generate", "/embed", "/healthz", "/readyz"} <= found["paths"].keys()
    ids = [
        operation["operationId"]
        for path in found["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(set(ids)) == len(ids)


def test_the_document_has_every_field_of_a_record() -> None:
    assert {*RECORD_FIELDS, "attempt_list"} == set(models.Record.model_fields)


def test_the_document_needs_a_login(asgi_office: Office) -> None:
    assert asgi_office.ask("GET", "/openapi.json", login=None).status_code == 401
    assert asgi_office.ask("GET", "/openapi.json").json() == document(ROUTES)


def test_schemathesis_finds_no_server_error_and_no_undocumented_answer(asgi_office: Office) -> None:
    raw: dict[str, Any] = asgi_office.ask("GET", "/openapi.json").json()
    raw["paths"] = {path: found for path, found in raw["paths"].items() if path in {route.path for route in OURS}}
    schema = schemathesis.openapi.from_dict(raw)
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    asked = 0

    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]

        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            headers = {"X-Login": "root", "Content-Type": "application/json"}
            case.call_and_validate(base_url=asgi_office.url + ADMIN, headers=headers, checks=checks)

        few = settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        few(given(case=operation.as_strategy())(ask))()
    assert asked > len(OURS) * 5


@pytest.mark.parametrize("login", ["olga", "reader", "nothing"])
def test_no_operator_of_some_projects_causes_a_server_error(asgi_office: Office, login: str) -> None:
    for route in OURS:
        path = route.path.format(p="q", o="quentin", id="req_x", deployment="echo")
        body: dict[str, str] | None = {} if route.method != "GET" else None
        answer = asgi_office.ask(route.method, path, body, login=login)
        assert answer.status_code < 500, (route.method, path, answer.text)
