"""Prometheus' metrics as its own parser reads them, on each host, in several processes, and as `deploy/` asks for them."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from floop_gateway_core import Settings
from floop_gateway_core.cli.serve import host_app
from floop_gateway_core.gateway import Gateway
from floop_gateway_core.management import Authorize
from floop_gateway_core.observability import Admitted, AttemptStarted, HedgeLost, PendingSettlements, prometheus
from floop_gateway_core.observability.prometheus import Prometheus
from floop_gateway_core.types import Microcredits, RequestId, Usage
from tests.hosts import ADMIN, ADMIN_HOSTS
from tests.management.conftest import authorize
from tests.observability.load import World, run_load, tokens, world
from tests.serving import MOUNT, gateway_of, post, records, served, until
from tests.test_processes import Machine

DEPLOY = Path(__file__).parents[2] / "deploy"
PUBLIC = {"metrics": {"public": True}}
LABELS = {"code", "deployment", "dialect", "ending", "endpoint", "fault", "le", "outcome", "type"}


def nobody(_: Any) -> None:
    return None


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in parse(text)}


def total(found: dict[str, Metric], sample: str, **labels: str) -> float:
    samples = [one for family in found.values() for one in family.samples if one.name == f"floop_gateway_{sample}"]
    assert samples, sample
    return sum(one.value for one in samples if labels.items() <= one.labels.items())


@pytest.mark.parametrize("host", ADMIN_HOSTS.values(), ids=ADMIN_HOSTS)
def test_a_loads_sums_are_the_usage_logs(host: Callable[[Gateway, Authorize], AbstractContextManager[str]]) -> None:
    w = world([Prometheus()], **PUBLIC)
    with host(w.gateway, nobody) as address:
        run_load(w, address)
        answer = httpx.get(f"{address}{ADMIN}/metrics")
    assert (200, "text/plain") == (answer.status_code, answer.headers["content-type"].partition(";")[0])
    check_sums(w, families(answer.text))


def check_sums(w: World, found: dict[str, Metric]) -> None:
    log = w.log
    for kind, count in tokens(log).items():
        assert count == total(found, "tokens_total", type=kind)
    assert sum(one.microcredits for one in log) == total(found, "microcredits_total")
    assert sum(one.attempts for one in log) == total(found, "attempts_total")
    assert sum(one.attempts for one in log) == total(found, "attempt_duration_seconds_count")
    own_records = [one for one in log if one.repeats == 1]
    assert len(own_records) == total(found, "requests_total")
    for ending, count in Counter(one.ending for one in own_records).items():
        assert count == total(found, "requests_total", ending=str(ending))
    refused: Counter[str] = Counter()
    for one in log:
        if one.code is not None:
            refused[one.code.value] += one.repeats
    for code, count in {**refused, "UNAUTHORIZED": 1}.items():
        assert count == total(found, "refusals_total", code=code)
    assert (0, 0, 0) == tuple(total(found, name) for name in ("holds", "held_microcredits", "pending_settlements"))
    opened = {name: total(found, "breaker_open", deployment=name) for name in ("flaky", "echo", "slow")}
    assert {"flaky": 1, "echo": 0, "slow": 0} == opened
    for family in found.values():
        for sample in family.samples:
            assert set(sample.labels) <= LABELS
            assert {"p", "a name of the client's own"}.isdisjoint(sample.labels.values())


@pytest.mark.parametrize("host", ADMIN_HOSTS.values(), ids=ADMIN_HOSTS)
def test_metrics_need_an_operator_of_all_projects(
    host: Callable[[Gateway, Authorize], AbstractContextManager[str]],
) -> None:
    w = world([Prometheus()])
    with host(w.gateway, authorize) as address:
        url = f"{address}{ADMIN}/metrics"
        logins = (None, "olga", "reader", "root")
        found = [httpx.get(url, headers={} if one is None else {"X-Login": one}).status_code for one in logins]
        assert [401, 403, 200, 200] == found
        refused = httpx.post(url, headers={"X-Login": "root", "Content-Type": "application/json"})
        assert (405, "GET") == (refused.status_code, refused.headers["allow"])


def test_a_gateway_without_exporter_says_so() -> None:
    gateway, _ = gateway_of(metrics={"public": True})
    with ADMIN_HOSTS["asgi"](gateway, nobody) as address:
        answer = httpx.get(f"{address}{ADMIN}/metrics")
    assert (404, True) == (answer.status_code, "Prometheus()" in answer.json()["error"]["message"])


def test_serve_has_public_metrics_at_its_root() -> None:
    w = world([Prometheus()], **PUBLIC)
    with served(host_app(w.gateway, MOUNT)) as address:
        post(f"{address}{MOUNT}/generate", w.key, {"prompt": "one two"})
        answer = httpx.get(f"{address}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    openmetrics = parse_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    assert "floop_gateway_tokens" in {family.name for family in openmetrics}
    hidden = world([Prometheus()])
    with served(host_app(hidden.gateway, MOUNT)) as address:
        assert 404 == httpx.get(f"{address}/metrics").status_code


def test_the_command_counts_if_its_configuration_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    hidden = machine.config.read_text()
    key = json.loads(machine.run("project", "create", "p", "--credits", "10", "--json"))["key"]
    with machine.serving() as (url, _):
        assert 404 == httpx.get(f"{url.removesuffix(MOUNT)}/metrics").status_code
    machine.config.write_text(f"{hidden}\n[metrics]\npublic = true\n")
    with machine.serving() as (url, _):
        assert 200 == post(f"{url}/generate", key, {"prompt": "one two"}).status_code
        page = httpx.get(f"{url.removesuffix(MOUNT)}/metrics").text
    assert 2 == total(families(page), "tokens_total", type="output")


def test_a_hosts_registry_has_ours_and_the_page_has_ours_alone() -> None:
    registry = CollectorRegistry()
    PrometheusCounter("host_orders", "The host's own.", registry=registry).inc()
    exporter = Prometheus(registry)
    assert 0 == registry.get_sample_value("floop_gateway_holds")
    _, page = exporter.page()
    assert b"floop_gateway_holds" in page
    assert b"host_orders" not in page


def test_holds_are_known_by_their_requests_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_OPEN", 2)
    registry = CollectorRegistry()
    exporter = Prometheus(registry)
    for number in range(3):
        exporter(Admitted(RequestId(f"req_{number}"), "p", ("echo",), 10, Microcredits(5)))
    held = [registry.get_sample_value(f"floop_gateway_{name}") for name in ("holds", "held_microcredits")]
    assert [2, 10] == held


# -- several processes -------------------------------------------------------------------------------------------------

HOST = """
    import os

    from flask import Flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    from floop_gateway_core import Gateway, Settings
    from floop_gateway_core.observability.prometheus import Prometheus
    from floop_gateway_flask import FloopAdmin, FloopGateway

    slow = {"provider": "echo", "microcredits_per_token": 1250, "words_per_second": 2.0}
    settings = {
        "store": "sqlite:///" + os.environ["STORE"],
        "metrics": {"public": True},
        "plans": {"default": {"requests_per_minute": 1000, "daily_tokens": 100_000}},
        "deployments": {"echo": {"provider": "echo", "microcredits_per_token": 1250}, "slow": slow},
        "routes": {alias: ["echo"] for alias in ("fast", "smart", "reason")},
    }
    gateway = Gateway(Settings.read(settings, source="test"), listeners=[Prometheus()])
    app = Flask("host")
    FloopGateway(app, gateway)
    app.add_url_rule("/pid", view_func=lambda: str(os.getpid()))
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/admin/ai": FloopAdmin(gateway, lambda environ: None)})
"""


@contextmanager
def gunicorn(folder: Path, *more: str) -> Iterator[str]:
    """Serve `HOST` with three workers, each of which writes into files of its own."""
    (folder / "metrics").mkdir()
    (folder / "host.py").write_text(textwrap.dedent(HOST))
    root = Path(__file__).parents[2]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'adapters'}",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        "STORE": str(folder / "gateway.db"),
    }
    log = folder / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "4", "-w", "3", "-b", "127.0.0.1:0"]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *more, "host:app"], cwd=folder, env=environment, stderr=out)
    try:
        until(lambda: log.read_text().count("Booting worker") == 3, most_s=30)
        found = re.search(r"Listening at: (http://[\d.:]+)", log.read_text())
        assert found is not None
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("loading", [(), ("--preload",)], ids=["after the fork", "before the fork"])
def test_every_worker_serves_the_sums_of_all(tmp_path: Path, loading: tuple[str, ...]) -> None:
    gateway = Gateway(Settings(store=f"sqlite:///{tmp_path / 'gateway.db'}"))
    key = anyio.run(lambda: _made(gateway))
    with gunicorn(tmp_path, *loading) as address:
        workers = set[int]()

        def all_have_served() -> bool:
            workers.add(int(httpx.get(f"{address}/pid").text))  # a connection each, so that each worker gets some
            assert 200 == post(f"{address}{MOUNT}/generate", key, {"prompt": "one two three"}).status_code
            return len(workers & _writers(tmp_path)) == 3

        until(all_have_served, most_s=30)
        log = records(gateway)
        for _ in range(6):
            found = families(httpx.get(f"{address}{ADMIN}/metrics").text)
            assert len(log) == total(found, "requests_total")
            assert sum(one.output_tokens for one in log) == total(found, "tokens_total", type="output")
        _kill_all_with_an_open_request(workers, address, key)
    anyio.run(gateway.aclose)


async def _made(gateway: Gateway) -> str:
    new = await gateway.admin.create_project("p", credits="1000")
    return new.key


def _writers(folder: Path) -> set[int]:
    return {int(one.stem.rpartition("_")[2]) for one in (folder / "metrics").glob("counter_*.db")}


def _kill_all_with_an_open_request(workers: set[int], address: str, key: str) -> None:
    """What killed workers had under way must not stay on the page; what they have counted must."""

    def holds() -> float:
        return total(families(httpx.get(f"{address}{ADMIN}/metrics").text), "holds")

    before = httpx.get(f"{address}{ADMIN}/metrics").text
    body = {"prompt": "word " * 100, "model": "slow", "stream": True}
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", f"{address}{MOUNT}/generate", json=body, headers={"Authorization": f"Bearer {key}"}),
    ):
        assert 1 == holds()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        until(lambda: _answers(address) and holds() == 0, most_s=30)
    after = httpx.get(f"{address}{ADMIN}/metrics").text
    assert total(families(before), "requests_total") == total(families(after), "requests_total")


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}{ADMIN}/metrics").is_success
    except httpx.HTTPError:
        return False


def test_what_a_dead_process_had_under_way_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait(30)
    key = mmap_key("floop_gateway_holds", "floop_gateway_holds", [], [], "help")
    for pid in (dead.pid, os.getpid()):
        values = MmapedDict(str(tmp_path / f"gauge_livesum_{pid}.db"))  # type: ignore[no-untyped-call]
        values.write_value(key, 2.0, 0.0)  # type: ignore[no-untyped-call]
        values.close()  # type: ignore[no-untyped-call]
    assert 2 == total(families(Prometheus().page()[1].decode()), "holds")
    assert [f"gauge_livesum_{os.getpid()}.db"] == [one.name for one in tmp_path.iterdir()]


# -- deploy/ -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The names of samples, each with its labels, after a load with everything that is counted."""
    exporter = Prometheus()
    w = world([exporter], **PUBLIC)
    with ADMIN_HOSTS["asgi"](w.gateway, nobody) as address:
        run_load(w, address)
    request = RequestId("req_1")
    exporter(AttemptStarted(request, "echo", 1, "echo", "echo-1"))
    exporter(HedgeLost(request, "echo", Usage(1, 1), Microcredits(1)))
    exporter(PendingSettlements(1, request))
    found: dict[str, set[str]] = {}
    for family in parse(exporter.page()[1].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Give each metric that an expression reads, with the labels that it matches; raise for what is not PromQL."""
    plain = expression.replace("$__rate_interval", "5m").replace("$job", ".*")
    yield from _selectors(promql_parser.parse(plain))


def _selectors(node: Any) -> Iterator[tuple[str, set[str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name or "", {matcher.name for matcher in node.matchers.matchers}
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs"):
        if (inner := getattr(node, name, None)) is not None and not isinstance(inner, str):
            yield from _selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from _selectors(inner)


def check(expression: str, exported: dict[str, set[str]]) -> None:
    read = list(selectors(expression))
    assert read, expression
    grouped = {label.strip() for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(",")}
    for name, labels in read:
        assert name in exported, name
        assert (labels | grouped) - {"job", "instance"} <= exported[name], expression


def test_every_panel_of_the_dashboard_reads_what_is_exported(exported: dict[str, set[str]]) -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    assert {"uid", "title", "schemaVersion", "templating", "panels", "time"} <= dashboard.keys()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 12
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in panel["targets"]:
            check(target["expr"], exported)
            legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert legend <= set().union(*(exported[name] for name, _ in selectors(target["expr"])))


def test_every_alert_reads_what_is_exported(exported: dict[str, set[str]]) -> None:
    (group,) = yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) > 5
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert {"severity"} == rule["labels"].keys()
        assert {"summary", "description"} == rule["annotations"].keys()
        check(rule["expr"], exported)


def test_a_file_that_a_worker_is_just_creating_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Prometheus(registry=CollectorRegistry())
    reads: list[int] = []

    def source() -> Any:
        reads.append(len(reads))
        if len(reads) < 3:
            raise struct.error("unpack_from requires a buffer of at least 4 bytes")
        return exporter._registry

    monkeypatch.setattr(exporter, "_source", source)
    assert b"floop_gateway_holds" in exporter.page()[1]
    assert [0, 1, 2] == reads
