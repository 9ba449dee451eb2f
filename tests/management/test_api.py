"""The administration over HTTP, as an operator, an owner of one project, a reader, a stranger, and from another site."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.hosts import ADMIN
from tests.management.conftest import Office


def test_a_customer_from_creation_to_deletion(office: Office) -> None:
    created = office.ask("POST", "/projects", {"name": "shop", "credits": 3.5, "daily_tokens": 5000})
    assert created.status_code == 201
    new = created.json()["data"]
    assert new["key"].startswith("flp_sk_")
    assert new["project"]["account"] == {"posted": 3.5, "held": 0, "available": 3.5}
    assert new["project"]["limits"]["daily_tokens"] == {"value": 5000, "plan": 1000000000}
    assert office.chat(key=new["key"]).status_code == 200

    changed = office.data("PATCH", "/projects/shop", {"daily_tokens": None, "requests_per_minute": 7})
    assert changed["limits"]["daily_tokens"]["value"] == 1000000000
    assert changed["limits"]["requests_per_minute"]["value"] == 7

    assert office.data("POST", "/projects/shop/suspend", {})["suspended"] is True
    refused = office.chat(key=new["key"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "PROJECT_SUSPENDED")
    assert "x-ratelimit-limit" not in refused.headers
    assert office.data("POST", "/projects/shop/resume")["suspended"] is False
    assert office.chat(key=new["key"]).status_code == 200

    rotated = office.data("POST", "/projects/shop/rotate-key", {"grace_s": 60})
    assert {office.chat(key=key).status_code for key in (new["key"], rotated["key"])} == {200}
    office.data("POST", "/projects/shop/rotate-key")
    assert {office.chat(key=key).status_code for key in (new["key"], rotated["key"])} == {401}

    deleted = office.ask("DELETE", "/projects/shop")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert office.ask("GET", "/projects/shop").status_code == 404
    again = office.data("POST", "/projects", {"name": "shop"})["project"]
    assert again["account"]["posted"] == 0
    assert again["id"] != new["project"]["id"]
    assert office.data("GET", "/projects/shop/usage") == []
    what = [(line["what"], line["by"], line["origin"]) for line in office.data("GET", "/audit?limit=9")]
    assert what[0] == ("create", "root", "10.0.0.1")
    assert [one for one, *_ in what] == [
        "create", "delete", "rotate-key", "rotate-key", "resume", "suspend", "settings", "create", "create",
    ]  # fmt: skip


def test_money_and_its_statement(office: Office) -> None:
    granted = office.data("POST", "/accounts/quentin/grants", {"credits": 2.5, "id": "inv-1", "note": "March"})
    assert granted["account"] == {"owner": "quentin", "posted": 7.5, "held": 0, "available": 7.5}
    assert office.data("POST", "/accounts/quentin/grants", {"credits": 2.5, "id": "inv-1"}) == granted
    other = office.ask("POST", "/accounts/quentin/grants", {"credits": 2.6, "id": "inv-1"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "CONFLICT")
    assert office.data("POST", "/accounts/quentin/debits", {"credits": 0.000001})["entry"]["credits"] == -0.000001
    assert office.ask("POST", "/accounts/quentin/debits", {"credits": 100}).status_code == 409
    statement = office.data("GET", "/accounts/quentin/statement")
    assert (statement["opening"], statement["closing"]) == (0, 7.499999)
    assert [entry["kind"] for entry in statement["entries"]] == ["grant", "grant", "debit"]
    assert statement["entries"][1]["by"] == "root"


def test_a_request_with_its_attempts_and_its_refund(office: Office) -> None:
    answer = office.chat()
    id, used = answer.headers["x-request-id"], answer.json()["usage"]["credits_used"]
    shown = office.data("GET", f"/requests/{id}")
    assert shown["attempt_list"] == [
        {"deployment": "echo", "fault": None, "reason": None, "ms": shown["attempt_list"][0]["ms"]}
    ]
    refunded = office.data("POST", f"/requests/{id}/refund", {"note": "sorry"})
    assert refunded["entry"]["credits"] == used
    assert refunded["entry"]["request_id"] == id
    assert office.ask("POST", f"/requests/{id}/refund", {}).status_code == 409
    assert office.ask("GET", "/requests/req_none").status_code == 404


def test_a_refund_without_an_amount_takes_what_is_left(office: Office) -> None:
    answer = office.chat()
    id, used = answer.headers["x-request-id"], answer.json()["usage"]["credits_used"]
    office.data("POST", f"/requests/{id}/refund", {"credits": 0.001})
    rest = office.data("POST", f"/requests/{id}/refund", {"id": "rest"})
    assert rest["entry"]["credits"] == pytest.approx(used - 0.001)
    assert office.data("POST", f"/requests/{id}/refund", {"id": "rest"}) == rest
    assert office.ask("POST", f"/requests/{id}/refund", {}).status_code == 409


def test_the_log_in_pages_filters_and_exports(office: Office) -> None:
    for number in range(5):
        office.chat(f"text {number}")
    assert office.chat("").status_code == 400
    first = office.ask("GET", "/usage?limit=4").json()
    rest = office.ask("GET", f"/usage?limit=4&cursor={first['next']}").json()
    assert (len(first["data"]), len(rest["data"]), rest["next"]) == (4, 2, None)
    ids = [record["request_id"] for record in first["data"] + rest["data"]]
    assert len(set(ids)) == 6
    assert [one["status"] for one in office.data("GET", "/usage?status=400")] == [400]
    assert office.data("GET", "/usage?until=2000-01-01") == []
    lines = office.ask("GET", "/usage?format=jsonl&order=settled").text.splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ids[::-1]
    rows = list(csv.DictReader(io.StringIO(office.ask("GET", "/projects/p/usage?format=csv").text)))
    assert [row["request_id"] for row in rows] == ids
    polled = office.ask("GET", "/usage?order=settled").json()
    assert polled["next"] is not None
    later = office.ask("GET", f"/usage?order=settled&cursor={polled['next']}").json()
    assert (later["data"], later["next"]) == ([], polled["next"])
    assert office.ask("GET", "/usage?colour=red").status_code == 400
    assert office.ask("GET", "/usage?cursor=nonsense").status_code == 400


def test_sums_by_one_and_two_dimensions(office: Office) -> None:
    for _ in range(3):
        office.chat()
    office.chat("")
    (row,) = office.data("GET", "/projects/p/summary?by=project")
    assert (row["project"], row["requests"], row["errors"]) == ("p", 4, 1)
    assert row["credits"] > 0
    assert row["latency_p95_ms"] >= row["latency_p50_ms"] >= 0
    by_two = office.data("GET", "/summary?by=day,status")
    assert [(one["status"], one["requests"]) for one in by_two] == [(200, 3), (400, 1)]
    assert office.ask("GET", "/summary?by=colour").status_code == 400
    assert office.ask("GET", "/summary?tag=user").status_code == 400


def test_a_namesake_does_not_inherit_the_sums_of_a_deleted_project(office: Office) -> None:
    first = office.data("POST", "/projects", {"name": "run", "credits": 1})
    office.chat(key=first["key"])
    assert office.ask("DELETE", "/projects/run").status_code == 204
    before = {row["project"]: row["requests"] for row in office.data("GET", "/summary?by=project")}
    assert before == {"run": 1}
    second = office.data("POST", "/projects", {"name": "run", "credits": 1})
    office.chat(key=second["key"])
    office.chat(key=second["key"])
    after = {row["project"]: row["requests"] for row in office.data("GET", "/summary?by=project,day")}
    assert after == {"run": 2, first["project"]["id"]: 1}


def test_the_records_of_a_deleted_project_are_found_by_its_id(office: Office) -> None:
    gone = office.data("POST", "/projects", {"name": "run", "credits": 1})
    office.chat(key=gone["key"])
    id = gone["project"]["id"]
    assert office.ask("DELETE", "/projects/run").status_code == 204
    for path in (f"/usage?project={id}", f"/projects/{id}/usage", f"/projects/{id}/summary", f"/audit?project={id}"):
        assert office.data("GET", path), path
        assert office.ask("GET", path, login="olga").status_code == 404
    assert office.ask("GET", f"/projects/{id}").status_code == 404
    assert office.ask("GET", "/usage?project=run").status_code == 404
    (closed,) = [one for one in office.data("GET", f"/accounts/project:{id}/entries") if one["kind"] == "closed"]
    assert (closed["by"], closed["note"]) == ("root", "the project was deleted")


def test_a_period_must_end_after_it_begins(office: Office) -> None:
    for path in ("/usage", "/summary", "/accounts/quentin/statement", "/accounts/quentin/entries"):
        answer = office.ask("GET", f"{path}?since=2026-02-01&until=2026-01-01")
        assert (answer.status_code, "later than since" in answer.text) == (400, True), path
    assert office.ask("GET", "/usage?format=csv&limit=2").status_code == 400


def test_a_grant_to_a_projects_own_account_is_in_its_audit_lines(office: Office) -> None:
    office.data("POST", "/projects", {"name": "own"})
    office.data("POST", "/accounts/project:own/grants", {"credits": 1})
    assert ["grant", "create"] == [line["what"] for line in office.data("GET", "/audit?project=own")]


def test_the_tail_shows_what_is_settled_from_now_on(office: Office) -> None:
    office.chat("before")
    with (
        httpx.Client(timeout=30) as client,
        client.stream("GET", office.url + ADMIN + "/usage/tail", headers={"X-Login": "root"}) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == ": tail"
        id = office.chat("after").headers["x-request-id"]
        data = next(line for line in lines if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["request_id"] == id


def test_an_owner_of_one_project_sees_and_changes_only_that(office: Office) -> None:
    office.chat()

    def ask(method: str, path: str, body: Any = None) -> httpx.Response:
        return office.ask(method, path, body, login="olga")

    assert [one["name"] for one in ask("GET", "/projects").json()["data"]] == ["p"]
    assert [one["owner"] for one in ask("GET", "/accounts").json()["data"]] == ["project:p"]
    assert {one["project"] for one in ask("GET", "/usage").json()["data"]} == {"p"}
    for path in ("/projects/q", "/projects/q/usage", "/accounts/quentin", "/usage?project=q", "/audit?project=q"):
        assert ask("GET", path).status_code == 404, path
    assert ask("PATCH", "/projects/q", {"requests_per_minute": 1}).status_code == 404
    assert ask("PATCH", "/projects/p", {"requests_per_minute": 5}).status_code == 200
    assert ask("PATCH", "/projects/p", {"requests_per_minute": 10_001}).status_code == 403
    assert ask("PATCH", "/projects/p", {"plan": "default"}).status_code == 403
    assert ask("POST", "/projects", {"name": "new"}).status_code == 403
    assert ask("POST", "/accounts/project:p/grants", {"credits": 1}).status_code == 403
    assert ask("DELETE", "/projects/p").status_code == 403
    assert ask("GET", "/health").status_code == 403
    assert ask("POST", "/projects/p/suspend").status_code == 200
    assert ask("POST", "/projects/p/resume").status_code == 200
    office.data("POST", "/projects/p/suspend")
    assert ask("POST", "/projects/p/resume").status_code == 403
    assert office.data("GET", "/projects", login="nothing") == []


def test_nobody_gets_in_and_a_reader_changes_nothing(office: Office) -> None:
    for login in (None, "stranger"):
        answer = office.ask("GET", "/projects", login=login)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    assert office.ask("GET", "/projects", login="reader").status_code == 200
    for method, path in (
        ("POST", "/projects/p/rotate-key"),
        ("POST", "/projects/p/suspend"),
        ("DELETE", "/projects/p"),
    ):
        assert office.ask(method, path, login="reader").status_code == 403
    assert office.ask("GET", "/healthz", login=None).status_code == 200
    assert office.ask("GET", "/readyz", login=None).json()["data"]["status"] == "ready"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_changes_nothing(office: Office, headers: dict[str, str]) -> None:
    answer = office.ask("POST", "/projects/p/suspend", {}, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert office.data("GET", "/projects/p", **headers)["suspended"] is False


def test_a_browser_on_our_own_site_may_write(office: Office) -> None:
    ours = {"Origin": office.url, "Sec-Fetch-Site": "same-origin"}
    assert office.ask("POST", "/projects/p/suspend", {}, **ours).status_code == 200
    assert office.ask("POST", "/projects/p/resume", {}, Origin=office.url).status_code == 200


def test_bad_requests_get_our_envelope(office: Office) -> None:
    for method, path, body, status, code in (
        ("GET", "/nope", None, 404, "NOT_FOUND"),
        ("PUT", "/projects", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/projects", {}, 400, "VALIDATION_ERROR"),
        ("POST", "/projects", {"name": "a b"}, 400, "VALIDATION_ERROR"),
        ("POST", "/projects", {"name": ".hidden"}, 400, "VALIDATION_ERROR"),
        ("POST", "/projects", {"name": "x", "colour": 1}, 400, "VALIDATION_ERROR"),
        ("POST", "/projects", {"name": "x", "credits": "5"}, 400, "VALIDATION_ERROR"),
        ("POST", "/projects", {"name": "x", "credits": 0.0000001}, 400, "VALIDATION_ERROR"),
        ("POST", "/projects", {"name": "x", "plan": "gold"}, 400, "VALIDATION_ERROR"),
        ("POST", "/projects", {"name": "p"}, 409, "CONFLICT"),
        ("POST", "/projects", ["x"], 400, "INVALID_BODY"),
        ("POST", "/projects/p/rotate-key", {"grace_s": 86_401}, 400, "VALIDATION_ERROR"),
        ("POST", "/accounts/quentin/grants", {"credits": 0}, 400, "VALIDATION_ERROR"),
        ("POST", "/accounts/nobody/grants", {"credits": 1}, 404, "NOT_FOUND"),
        ("POST", "/health/nope/test", {}, 404, "NOT_FOUND"),
    ):
        answer = office.ask(method, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (path, body, answer.text)
        assert answer.headers["cache-control"] == "no-store"
    plain = office.ask("POST", "/projects", {"name": "x"}, **{"Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()["error"]["code"]) == (415, "VALIDATION_ERROR")


def test_the_health_and_a_test_of_a_deployment(office: Office) -> None:
    health = office.data("GET", "/health")
    assert health["store"] == "ok"
    assert health["deployments"] == [
        {"deployment": "echo", "provider": "echo", "model": "", "breaker": "closed", "transitions": []}
    ]
    assert office.data("POST", "/health/echo/test") == {"ok": True, "reason": None}
    again = office.ask("POST", "/health/echo/test")
    assert (again.status_code, again.headers["retry-after"]) == (429, "5")
    assert office.data("GET", "/usage") == []


def test_a_grant_repeated_by_64_clients_counts_once(asgi_office: Office) -> None:
    with ThreadPoolExecutor(64) as threads:
        answers = list(
            threads.map(
                lambda _: asgi_office.data("POST", "/accounts/quentin/grants", {"credits": 1, "id": "x"}), range(64)
            )
        )
    assert {answer["account"]["posted"] for answer in answers} == {6}
    assert asgi_office.data("GET", "/accounts/quentin")["posted"] == 6
