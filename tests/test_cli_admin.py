"""The commands of an operator's day: customers, money, the log, audit lines, backup and restore."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from floop_gateway_core import Gateway, Settings
from floop_gateway_core.cli import main
from tests.test_cli import Shell, shell

__all__ = ["shell"]


def ask(folder: Path, key: str, text: str = "one two") -> Any:
    """Ask the gateway of a folder once, in this process."""

    async def asked() -> Any:
        settings = Settings.read({"store": f"sqlite:///{folder}/floop-gateway.db"}, source="test")
        async with Gateway(settings) as gateway:
            return await gateway.generate(key, text)

    return anyio.run(asked)


@pytest.fixture
def customer(shell: Shell) -> str:
    """A project `shop` with five credits; return its key."""
    return str(shell.json("project", "create", "shop", "--credits", "5", "--by", "ann")["key"])


def test_a_project_is_suspended_resumed_and_deleted(shell: Shell, customer: str) -> None:
    assert shell.json("project", "suspend", "shop")["suspended"] is True
    assert shell.json("project", "resume", "shop")["suspended"] is False
    assert shell.json("project", "delete", "shop") == {"project": "shop", "deleted": True}
    assert shell("project", "show", "shop").returncode == 1
    assert shell.json("project", "create", "shop")["project"] == "shop"
    assert shell.json("project", "show", "shop")["posted"] == 0


def test_limits_are_set_and_taken_back(shell: Shell, customer: str) -> None:
    own = shell.json("project", "settings", "shop", "--rpm", "7", "--daily-tokens", "9")
    assert (own["requests_per_minute"], own["daily_tokens"]) == (7, 9)
    back = shell.json("project", "settings", "shop", "--rpm", "plan")
    assert (back["requests_per_minute"], back["daily_tokens"]) == (10, 9)
    assert "requests_per_minute=plan" in shell("audit").stdout
    audited = len(shell("audit", "--json").stdout.splitlines())
    assert shell("project", "settings", "shop").returncode == 0
    assert len(shell("audit", "--json").stdout.splitlines()) == audited
    assert shell("project", "settings", "shop", "--rpm", "nonsense").returncode == 2


def test_the_old_key_lives_on_for_its_grace(shell: Shell, customer: str) -> None:
    new = shell.json("project", "rotate-key", "shop", "--grace-s", "60")["key"]
    assert ask(shell.folder, customer).content == ask(shell.folder, new).content
    assert shell("project", "rotate-key", "shop", "--grace-s", "-1").returncode == 2


def test_money_is_granted_debited_refunded_and_stated(shell: Shell, customer: str) -> None:
    account = "project:shop"
    for _ in range(2):
        granted = shell.json("account", "grant", account, "2.5", "--id", "inv-1", "--note", "March", "--by", "ann")
        assert granted["posted"] == 7.5
    assert shell("account", "grant", account, "2", "--id", "inv-1").returncode == 1
    assert shell.json("account", "debit", account, "0.5")["posted"] == 7
    assert "only 7 credits" in shell("account", "debit", account, "100").stderr
    answer = ask(shell.folder, customer)
    refunded = shell.json("account", "refund", answer.request_id)
    assert refunded["posted"] == 7
    assert shell("account", "refund", answer.request_id).returncode == 1
    statement = shell.json("account", "statement", account)
    assert (statement["opening"], statement["closing"]) == (0, 7)
    kinds = [entry["kind"] for entry in statement["entries"]]
    assert kinds == ["grant", "grant", "debit", "capture", "refund"]
    assert statement["entries"][1]["by"] == "ann"
    later = shell.json("account", "statement", account, "--since", "2100-01-01")
    assert (later["opening"], later["entries"], later["closing"]) == (7, [], 7)
    assert "closing balance: 7" in shell("account", "statement", account).stdout
    assert "March" in shell("account", "entries", account).stdout
    listed = [json.loads(line) for line in shell("account", "list", "--json").stdout.splitlines()]
    assert [one["owner"] for one in listed] == [account]


def test_the_log_is_filtered_exported_and_summed(shell: Shell, customer: str) -> None:
    ids = [ask(shell.folder, customer).request_id for _ in range(3)]
    rows = list(csv.DictReader(io.StringIO(shell("usage", "--format", "csv").stdout)))
    assert [row["request_id"] for row in rows] == ids
    lines = shell("usage", "--format", "jsonl", "--owner", "project:shop", "--status", "200").stdout.splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ids
    assert shell("usage", "--until", "2000-01-01", "--json").stdout == ""
    (totals,) = [json.loads(line) for line in shell("usage", "--totals", "--json").stdout.splitlines()]
    assert (totals["project"], totals["requests"], totals["errors"]) == ("shop", 3, 0)
    assert shell("usage", "--owner", "nobody").returncode == 1
    shown = shell.json("request", "show", ids[0])
    assert [one["deployment"] for one in shown["attempt_list"]] == ["echo"]
    assert "DEPLOYMENT" in shell("request", "show", ids[0]).stdout
    assert shell("request", "show", "req_none").returncode == 1


def test_changes_leave_audit_lines(shell: Shell, customer: str) -> None:
    shell.json("account", "grant", "project:shop", "1", "--by", "bob")
    lines = [json.loads(line) for line in shell("audit", "--json").stdout.splitlines()]
    assert [(line["what"], line["by"]) for line in lines] == [("grant", "bob"), ("create", "ann")]
    assert "credits=1" in shell("audit").stdout
    of_project = [json.loads(line)["what"] for line in shell("audit", "shop", "--json").stdout.splitlines()]
    assert ["grant", "create"] == of_project


def test_a_backup_is_a_working_store(shell: Shell, customer: str, tmp_path: Path) -> None:
    ask(shell.folder, customer)
    assert shell.json("backup", "copy.db")["bytes"] > 0
    assert oct((shell.folder / "copy.db").stat().st_mode & 0o777) == "0o600"
    again = shell("backup", "copy.db")
    assert again.returncode == 1
    assert "a backup goes into a new file" in again.stderr
    restored = tmp_path / "restored"
    restored.mkdir()
    (shell.folder / "copy.db").rename(restored / "floop-gateway.db")
    assert ask(restored, customer).content
    assert len(Shell(restored)("usage", "--json").stdout.splitlines()) == 2


def test_check_asks_the_providers(shell: Shell) -> None:
    assert shell.json("check", "--providers")["providers"] == {"echo": "ok"}
    (shell.folder / "gateway.toml").write_text(
        '[deployments.gone]\nprovider = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:9"\n'
        "microcredits_per_token = 1\n"
        '[routes]\nfast = ["gone"]\nsmart = ["gone"]\nreason = ["gone"]\n'
    )
    done = shell("check", "--providers", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["ok"] is False
    assert "connecting failed" in told["providers"]["gone"]


def test_the_version_is_told(shell: Shell) -> None:
    assert shell("--version").stdout.startswith("floop-gateway ")


def test_a_store_is_created_and_brought_up_to_date(shell: Shell) -> None:
    first = json.loads(shell("migrate", "--json").stdout)
    assert (first["before"], first["state"], first["projects"]) == ("will be created", "ready", 0)
    assert json.loads(shell("migrate", "--json").stdout)["before"] == "ready"


def test_amounts_are_numbers_at_any_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text(f'store = "sqlite:///{tmp_path}/a.db"\n')
    common = ["--config", str(tmp_path / "gateway.toml"), "--json"]
    assert 0 == main(["project", "create", "shop", "--owner", "olga", "--credits", "2.5", *common])
    capsys.readouterr()
    assert 0 == main(["account", "statement", "olga", *common])
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert (2.5, 2.5) == (entry["credits"], entry["posted_after"])


def test_the_log_of_an_owner_and_of_a_name_has_deleted_projects_too(shell: Shell) -> None:
    key = str(shell.json("project", "create", "blog", "--owner", "olga", "--credits", "5")["key"])
    ask(shell.folder, key)
    shell("project", "delete", "blog")
    for words in (("--owner", "olga"), ("blog",)):
        lines = shell("usage", *words, "--format", "jsonl").stdout.splitlines()
        assert ["blog"] == [json.loads(line)["project"] for line in lines]
    assert 1 == shell("usage", "never").returncode
    rows = list(csv.reader(io.StringIO(shell("usage", "--owner", "olga", "--totals", "--format", "csv").stdout)))
    assert [["project", "requests"], ["blog", "1"]] == [row[:2] for row in rows]


def test_a_spreadsheet_reads_no_total_as_a_formula(shell: Shell) -> None:
    ask(shell.folder, str(shell.json("project", "create", "+1+1", "--credits", "5")["key"]))
    rows = list(csv.reader(io.StringIO(shell("usage", "--totals", "--format", "csv").stdout)))
    assert "'+1+1" == rows[1][0]


def test_a_backup_needs_a_folder(shell: Shell, customer: str) -> None:
    done = shell("backup", str(shell.folder / "nowhere" / "copy.db"))
    assert (1, True) == (done.returncode, "must exist and be writable" in done.stderr)


def test_a_store_in_memory_cannot_be_administered_from_outside(shell: Shell) -> None:
    (shell.folder / "gateway.toml").write_text('store = "memory://"\n')
    done = shell("project", "create", "shop")
    assert (1, True) == (done.returncode, "memory://" in done.stderr)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('rate_store = "redis://127.0.0.1:1/0"\n', "unavailable"),
        ('store_spool = "/nowhere/x.spool"\n', "/nowhere must exist and be writable"),
        ('[hooks]\nkey_rotated = "nomod:f"\n', "gateway.toml: hooks.key_rotated"),
    ],
)
def test_check_fails_for_what_serve_would_stumble_over(shell: Shell, line: str, said: str) -> None:
    (shell.folder / "gateway.toml").write_text(line)
    done = shell("check")
    assert (1, True) == (min(done.returncode, 1), said in done.stderr), done
