"""The harness measures real processes, checks what they answer, and reports what it found."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from floop_gateway_core.bench import report
from floop_gateway_core.bench.run import Cell, measure
from floop_gateway_core.bench.settings import turned_to
from floop_gateway_core.cli import main
from floop_gateway_core.config import Settings

FEW = (
    Cell("plain", 25, False, 2, 6),
    Cell("streams", 20, True, 3, 6),
    Cell("paced", 3, True, 2, 2, every_ms=5),
)


@pytest.mark.parametrize(("host", "store"), [("asgi", "sqlite"), ("aiohttp", "memory://"), ("flask", "memory://")])
def test_every_answer_of_every_target_is_good(host: str, store: str, tmp_path: Path) -> None:
    targets = measure({}, folder=tmp_path, hosts=[{"host": host, "store": store}], cells=FEW, rounds=1)
    found = report.rows(FEW, targets)
    assert {row["target"].split(",")[0] for row in found if isinstance(row["target"], str)} == {
        host, "floor: parsing", "floor: passing",
    }  # fmt: skip
    for row in found:
        assert row["errors"] == 0
        assert row["per_s"] != 0
        assert row["rss_mb"] != 0
    assert len(report.table(found).splitlines()) == len(found) + 1
    report.json_lines(found, tmp_path / "found.jsonl")
    assert [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()] == found
    report.picture(found, tmp_path / "found.svg")
    bars = [one for one in ElementTree.parse(tmp_path / "found.svg").iter() if one.tag.endswith("rect")]
    assert len(bars) == 1 + len(FEW)  # the background, and the gateway's bars


def test_a_wrong_answer_is_an_error_and_not_a_figure(tmp_path: Path) -> None:
    refusing = {"plans": {"default": {"input_tokens": 1}}}
    (target, *_) = measure(
        refusing, folder=tmp_path, hosts=[{"host": "asgi", "store": "memory://"}], cells=FEW[:1], rounds=1
    )
    (measured,) = target.rounds["plain"]
    assert (measured.result.good, measured.result.errors) == (0, 6)


def test_the_users_own_configuration_is_turned_to_the_mock() -> None:
    own = {
        "store": "sqlite:///precious.db",
        "plans": {"gold": {"input_tokens": 5_000}},
        "deployments": {
            "big": {"provider": "anthropic", "model": "m", "api_key_env": "KEY", "microcredits_per_token": 7}
        },
        "routes": {"fast": ["big"], "smart": ["big"], "reason": ["big"]},
    }
    settings = Settings.read(turned_to(own, 8099, "memory://"), source="test")
    assert settings.store == "memory://"
    assert settings.plans["gold"].input_tokens == 5_000
    deployment = settings.deployments["big"]
    assert (deployment.provider, deployment.base_url) == ("openai", "http://127.0.0.1:8099/v1")
    assert deployment.microcredits_per_token == 7_000_000  # as rates are kept


def test_the_command_says_which_cells_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--cell", "nope"]) == 2
    assert "plain, 64 connections" in capsys.readouterr().err


def test_the_command_prints_the_table_and_writes_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("floop_gateway_core.bench.run.CELLS", FEW)
    config = tmp_path / "gateway.toml"
    config.write_text('store = "memory://"\n[deployments.mine]\nprovider = "echo"\n[routes]\n')
    config.write_text(config.read_text() + "".join(f'{alias} = ["mine"]\n' for alias in ("fast", "smart", "reason")))
    files = {kind: str(tmp_path / f"found.{kind}") for kind in ("json", "svg")}
    wanted = ["--config", str(config), "--cell", "plain", "--connections", "2", "--rounds", "1"]
    assert main(["bench", *wanted, "--json", files["json"], "--svg", files["svg"]]) == 0
    assert "floor: parsing" in capsys.readouterr().out
    assert [json.loads(line)["cell"] for line in Path(files["json"]).read_text().splitlines()] == ["plain", "plain"]
    assert Path(files["svg"]).read_text().startswith("<svg")


@pytest.mark.parametrize("line", ['store = "postgresql://127.0.0.1:1/x"', 'store_env = "DATABASE_URL"'])
def test_the_configured_server_is_not_written_to(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(line)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/x")
    assert main(["bench", "--config", str(config), "--cell", "1 stream"]) != 0
    assert "would be written to" in capsys.readouterr().err


def test_no_other_store_of_the_configuration_is_written_to() -> None:
    others = {"store_env": "A", "rate_store": "redis://r", "store_spool": "/x"}
    assert not others.keys() & turned_to(others, 1, "memory://").keys()
