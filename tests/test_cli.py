"""The command as people and programs use it: a real process, real files, exit codes, and what is printed where."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from floop_gateway_core import Gateway, Settings, StoreUnavailable
from floop_gateway_core.cli import main
from floop_gateway_core.wire import keys
from tests.postgres import new_database
from tests.serving import post, until

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "FLOOP_GATEWAY_CONFIG"}
Run = subprocess.CompletedProcess[str]

HOOK = """
from pathlib import Path

def redeploy(event):
    Path("rotated").write_text(f"{event.project} {event.owner} {event.key_prefix} {event.key}")

async def fail(event):
    raise RuntimeError(event.key)
"""


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Run:
        return subprocess.run(
            [sys.executable, "-m", "floop_gateway_core", *words],
            cwd=self.folder,
            env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([*sys.path, str(self.folder)]), **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def json(self, *words: str) -> Any:
        done = self(*words, "--json")
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_project_is_created_with_its_key_and_credits(shell: Shell) -> None:
    created = shell.json("project", "create", "blog", "--owner", "ann", "--credits", "4838.5", "--rpm", "3")
    assert ["project", "owner", "key"] == list(created)
    assert keys.from_header(["Bearer " + created["key"]])
    assert {"owner": "ann", "posted": 4838.5, "held": 0, "available": 4838.5} == shell.json("account", "show", "ann")
    shown = shell.json("project", "show", "blog")
    assert (3, 10_000, 10_000) == (
        shown["requests_per_minute"],
        shown["daily_tokens"],
        shown["tokens_left_today"],
    )
    assert keys.short(created["key"]) == shown["key_prefix"]
    assert created["key"] not in shell("project", "show", "blog").stdout


def test_a_name_that_exists_is_an_error_and_changes_nothing(shell: Shell) -> None:
    shell.json("project", "create", "blog", "--credits", "1")
    again = shell("project", "create", "blog", "--credits", "5", "--rpm", "9")
    assert (1, "") == (again.returncode, again.stdout)
    assert "project 'blog' already exists" in again.stderr
    assert 1 == shell.json("account", "show", "project:blog")["posted"]


def test_credits_are_exact_to_the_last_millionth(shell: Shell) -> None:
    shell.json("project", "create", "blog", "--credits", "123456789012.000001")
    shell("account", "grant", "project:blog", "0.000001")
    assert '"posted": 123456789012.000002' in shell("account", "show", "project:blog", "--json").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("account", "grant", "nobody", "1"),
        ("account", "show", "nobody"),
        ("project", "show", "nobody"),
        ("project", "rotate-key", "nobody"),
        ("project", "settings", "nobody", "--rpm", "1"),
        ("project", "create", "p", "--owner", "project:q"),
        ("project", "create", "two words"),
        ("project", "create", "p", "--plan", "gold"),
        ("usage", "nobody"),
        ("check", "--config", "missing.toml"),
        ("auto", "--explain", "missing.jsonl"),
    ],
)
def test_what_cannot_be_done_exits_1_with_one_clear_line(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell(*words)
    assert (1, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    assert done.stderr.startswith("floop-gateway: ")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nope",),
        ("project",),
        ("project", "create"),
        ("project", "create", "p", "--credits", "1e-7"),
        ("project", "create", "p", "--credits", "-1"),
        ("project", "create", "p", "--credits", "NaN"),
        ("project", "create", "p", "--rpm", "0"),
        ("usage", "--since", "yesterday"),
        ("serve", "--port", "99999"),
    ],
)
def test_wrong_use_exits_2(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell(*words)
    assert (2, "") == (done.returncode, done.stdout)


def test_settings_change_only_what_was_named(shell: Shell) -> None:
    shell.json("project", "create", "blog", "--rpm", "3")
    changed = shell.json("project", "settings", "blog", "--daily-tokens", "77")
    assert (3, 77) == (changed["requests_per_minute"], changed["daily_tokens"])


def test_a_rotation_gives_a_new_key_and_tells_the_hook(shell: Shell) -> None:
    (shell.folder / "hook_module.py").write_text(HOOK)
    (shell.folder / "gateway.toml").write_text('[hooks]\nkey_rotated = "hook_module:redeploy"\n')
    created = shell.json("project", "create", "blog")
    rotated = shell.json("project", "rotate-key", "blog")
    assert created["key"] != rotated["key"]
    told = (shell.folder / "rotated").read_text().split()
    assert ["blog", "project:blog", keys.short(rotated["key"]), rotated["key"]] == told


def test_the_installed_command_finds_hooks_in_the_working_folder_and_says_why_it_does_not(shell: Shell) -> None:
    def rotate() -> Run:
        # The script that pip installs, which unlike `python -m` starts without the working folder on its path.
        script = Path(sysconfig.get_path("scripts")) / "floop-gateway"
        command = [str(script), "project", "rotate-key", "blog"]
        environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
        return subprocess.run(command, cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=60)

    shell("project", "create", "blog")
    before = shell.json("project", "show", "blog")
    (shell.folder / "gateway.toml").write_text('[hooks]\nkey_rotated = "hook_module:redeploy"\n')
    failed = rotate()
    assert (1, "") == (failed.returncode, failed.stdout)
    assert "hooks.key_rotated = 'hook_module:redeploy': No module named 'hook_module'" in failed.stderr
    assert before == shell.json("project", "show", "blog")
    (shell.folder / "hook_module.py").write_text(HOOK)
    assert 0 == rotate().returncode
    assert before != shell.json("project", "show", "blog")


def test_a_hook_that_fails_does_not_hide_the_key(shell: Shell) -> None:
    (shell.folder / "hook_module.py").write_text(HOOK)
    (shell.folder / "gateway.toml").write_text('[hooks]\nkey_rotated = "hook_module:fail"\n')
    shell("project", "create", "blog")
    done = shell("project", "rotate-key", "blog", "--json")
    key = json.loads(done.stdout)["key"]
    assert 1 == done.returncode
    assert "hook key_rotated failed" in done.stderr
    assert key not in done.stderr


def test_lists_print_a_table_for_people_and_a_line_each_for_programs(shell: Shell) -> None:
    assert "No projects yet.\n" == shell("project", "list").stdout
    assert "" == shell("project", "list", "--json").stdout
    for name in ("b", "a"):
        shell("project", "create", name)
    head, first, second = shell("project", "list").stdout.splitlines()
    assert head.startswith("PROJECT")
    assert ["a", "b"] == [first.split()[0], second.split()[0]]
    lines = shell("project", "list", "--json").stdout.splitlines()
    assert ["a", "b"] == [json.loads(line)["project"] for line in lines]


def test_check_names_file_key_value_and_what_is_allowed(shell: Shell) -> None:
    (shell.folder / "gateway.toml").write_text('[upstream]\nattempts = "three"\nretries = 1\n')
    done = shell("check")
    assert 1 == done.returncode
    first, second = done.stderr.splitlines()
    assert "gateway.toml: upstream.attempts = 'three': " in first
    assert "gateway.toml: upstream.retries = 1: unknown key; allowed keys: attempts, connect_s" in second


def test_check_finds_a_missing_secret_without_printing_any(shell: Shell) -> None:
    (shell.folder / "gateway.toml").write_text(
        '[deployments.mini]\nprovider = "openai"\nmodel = "m"\napi_key_env = "SOME_KEY"\nmicrocredits_per_token = 1\n'
        '[routes]\nfast = ["mini"]\nsmart = ["mini"]\nreason = ["mini"]\n'
    )
    done = shell("check")
    assert 1 == done.returncode
    assert "gateway.toml: deployments.mini.api_key_env = 'SOME_KEY'" in done.stderr
    fine = shell("check", "--json", env={"SOME_KEY": "sk-very-secret"})
    assert (0, True) == (fine.returncode, json.loads(fine.stdout)["ok"])
    assert "sk-very-secret" not in fine.stdout + fine.stderr


def test_the_configuration_may_be_named_by_the_environment(shell: Shell) -> None:
    (shell.folder / "elsewhere.toml").write_text('store = "sqlite:///other.db"\n')
    done = shell("check", "--json", env={"FLOOP_GATEWAY_CONFIG": "elsewhere.toml"})
    assert ("elsewhere.toml", "sqlite:///other.db") == (
        json.loads(done.stdout)["configuration"],
        json.loads(done.stdout)["store"],
    )


def test_a_store_that_does_not_answer_fails_in_one_line(shell: Shell) -> None:
    (shell.folder / "floop-gateway.db").write_bytes(b"this is no database, but it is long enough to look like one" * 99)
    done = shell("project", "list")
    assert 1 == done.returncode
    assert "the store is unavailable" in done.stderr


def test_auto_explains_each_line_of_a_file(shell: Shell) -> None:
    lines = ['{"prompt": "Translate to French: good morning"}', "Prove that there are infinitely many primes."]
    done = shell("auto", "--explain", "-", "--json", stdin="\n".join(lines))
    judged = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["fast", "reason"] == [one["alias"] for one in judged]
    assert all(0 <= one["score"] <= 1 for one in judged)


def test_a_port_that_is_taken_is_one_line_and_changes_nothing(shell: Shell) -> None:
    key = shell.json("project", "create", "demo")["key"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words in (("demo", "--port", port), ("serve", "--port", port)):
            done = shell(*words)
            assert (1, "") == (done.returncode, done.stdout)
            assert (
                f"floop-gateway: cannot listen on 127.0.0.1:{port}: Address already in use; use another --port"
                == done.stderr.splitlines()[-1]
            )
    assert keys.short(key) == shell.json("project", "show", "demo")["key_prefix"]


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_store_that_cannot_be_opened_fails_with_1(shell: Shell, command: str) -> None:
    (shell.folder / "gateway.toml").write_text('store = "sqlite:///nowhere/at/all.db"\n')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    assert 1 == shell(command, "--port", port).returncode


def test_the_demo_tells_the_hook_of_its_rotation_and_its_mount_has_no_other_path(shell: Shell) -> None:
    (shell.folder / "myhooks.py").write_text(HOOK)
    (shell.folder / "gateway.toml").write_text('[hooks]\nkey_rotated = "myhooks:redeploy"\n')
    shell("project", "create", "demo", "--credits", "1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    command = [sys.executable, "-m", "floop_gateway_core", "demo", "--port", port]
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([*sys.path, str(shell.folder)])}
    with subprocess.Popen(
        command, cwd=shell.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            key = next(line.strip() for line in process.stdout if "KEY=" in line).removeprefix("KEY=")
            url = f"http://127.0.0.1:{port}/api/v1/ai"
            until(lambda: answers(url), most_s=30)
            assert 404 == httpx.post(url, content=b"{}").status_code == httpx.post(f"{url}/").status_code
            assert 200 == post(f"{url}/generate", key, {"prompt": "hi"}).status_code
        finally:
            process.kill()
    assert (shell.folder / "rotated").read_text().endswith(key)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 404
    except httpx.TransportError:
        return False


def test_amounts_and_names_beyond_their_bounds_are_one_line(shell: Shell) -> None:
    shell("project", "create", "v", "--credits", "1000000000000")
    for _ in range(3):
        shell("account", "grant", "project:v", "1000000000000")
    over = shell("account", "grant", "project:v", "1000000000000")
    assert (1, 1) == (over.returncode, over.stderr.count("\n"))
    assert "the balance would exceed" in over.stderr
    assert 4_000_000_000_000 == shell.json("account", "show", "project:v")["posted"]
    too_many = shell("project", "create", "x", "--rpm", "1999999999999")
    assert (2, True) == (too_many.returncode, "a whole number from 1 to 1000000000000" in too_many.stderr)
    for words in (["create", "bad\udcff"], ["show", "bad\udcff"]):
        done = shell("project", *words)
        assert (2, True) == (done.returncode, done.stderr.endswith("error: an argument is not UTF-8\n"))


def test_check_looks_at_the_hooks_too(shell: Shell) -> None:
    for hook in ("key_rotated", "lifecycle"):
        (shell.folder / "gateway.toml").write_text(f'[hooks]\n{hook} = "nowhere:hook"\n')
        done = shell("check")
        assert 1 == done.returncode
        assert f"hooks.{hook} = 'nowhere:hook'" in done.stderr


def test_check_changes_nothing(shell: Shell) -> None:
    assert "will be created" in shell("check").stdout
    assert [] == sorted(path.name for path in shell.folder.iterdir())
    shell("project", "create", "blog")
    before = (shell.folder / "floop-gateway.db").read_bytes()
    found = shell.json("check")
    assert ("ready", 1) == (found["state"], found["projects"])
    assert before == (shell.folder / "floop-gateway.db").read_bytes()
    database = sqlite3.connect(shell.folder / "floop-gateway.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    done = shell("check")
    assert (1, True) == (done.returncode, "the file has 99" in done.stderr)


def test_check_does_not_take_a_file_of_another_application(shell: Shell) -> None:
    database = sqlite3.connect(shell.folder / "floop-gateway.db")
    database.execute("CREATE TABLE projects (x)")
    database.close()
    done = shell("check")
    assert (1, True) == (done.returncode, "belongs to another application" in done.stderr)


def test_prune_deletes_what_is_older_than_the_configuration_allows(shell: Shell) -> None:
    (shell.folder / "gateway.toml").write_text("[retention]\nusage_days = 30\n")
    shell("project", "create", "blog")
    database = sqlite3.connect(shell.folder / "floop-gateway.db")
    now = time.time()
    for number in range(2_500):
        at = now - (31 if number % 5 else 29) * 86_400
        database.execute(
            "INSERT INTO usage (request_id, project_id, project, key_prefix, endpoint, input_tokens, output_tokens,"
            " cached_tokens, reasoning_tokens, estimated, microcredits, attempts, streamed, ending, started_at, settled_at)"
            " VALUES (?, 'prj_1', 'blog', '…', 'chat', 0, 0, 0, 0, 0, 0, 0, 0, 'complete', ?, ?)",
            (f"req_{number}", at, at),
        )
    database.commit()
    assert {"deleted": 2_000} == shell.json("prune")
    assert [(500,)] == database.execute("SELECT count(*) FROM usage").fetchall()
    assert {"deleted": 0} == shell.json("prune")
    database.close()


def test_prune_carries_old_entries_as_one_sum(shell: Shell) -> None:
    (shell.folder / "gateway.toml").write_text("[retention]\nentries_days = 30\n")
    shell("project", "create", "blog", "--owner", "olga", "--credits", "5")
    shell("account", "grant", "olga", "2.5", "--id", "invoice-1")
    shell("account", "debit", "olga", "1")
    database = sqlite3.connect(shell.folder / "floop-gateway.db")
    database.execute("UPDATE entries SET at = at - 31 * 86400 WHERE kind = 'grant'")
    database.commit()
    database.close()
    assert {"deleted": 2} == shell.json("prune")
    statement = shell.json("account", "statement", "olga")
    assert [("carried", 7.5), ("debit", -1)] == [(one["kind"], one["credits"]) for one in statement["entries"]]
    assert (0, 6.5) == (statement["opening"], statement["closing"])
    again = shell.json("account", "grant", "olga", "2.5", "--id", "invoice-1")
    assert 7.5 == again["posted"], "an id gets its first answer"
    assert 6.5 == shell.json("account", "show", "olga")["posted"]


def test_usage_prints_a_table_for_people(shell: Shell) -> None:
    assert "No finished requests, or none that match.\n" == shell("usage").stdout
    key = shell.json("project", "create", "blog", "--credits", "1")["key"]

    async def ask() -> None:
        settings = Settings.read({"store": f"sqlite:///{shell.folder}/floop-gateway.db"}, source="test")
        async with Gateway(settings) as gateway:
            await gateway.generate(key, "one two", model="fast")

    anyio.run(ask)
    head, line = shell("usage", "blog").stdout.splitlines()
    assert ["STARTED", "PROJECT", "ENDPOINT", "MODEL"] == head.split()[:4]
    assert ["blog", "generate", "fast", "echo", "200", "complete", "2", "2"] == line.split()[1:9]
    record = json.loads(shell("usage", "--json").stdout)
    assert ("in_process", {}, 1, None) == tuple(record[name] for name in ("dialect", "tags", "repeats", "replay_of"))
    assert record["settled_at"].endswith("Z")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "--port", "70000"), "port must be 0 to 65535, got '70000'"),
        (("serve", "--mount", "api"), "a mount starts with a slash"),
        (("project", "create", "a", "--rpm", "0"), "a whole number from 1"),
        (("project", "create", "a", "--credits", "1.0000001"), "at most six decimal places"),
        (("usage", "--since", "yesterday"), "a time is written 2026-01-31T08:00:00Z"),
        (("usage", "--since", "nan"), "a time is written 2026-01-31T08:00:00Z"),
    ],
)
def test_wrong_use_is_told_with_what_is_allowed(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert 2 == left.value.code
    assert said in capsys.readouterr().err


def test_auto_explains_texts_and_bodies_and_says_which_file_it_cannot_read(shell: Shell) -> None:
    (shell.folder / "requests.txt").write_text(
        'What is 2 + 2?\n{"prompt": "Prove it.", "model": "auto"}\n{"messages": 1}\n'
    )
    assert [1, 2, 3] == [
        json.loads(line)["line"] for line in shell("auto", "--explain", "requests.txt", "--json").stdout.splitlines()
    ]
    assert "SCORE" in shell("auto", "--explain", "-", stdin="Hi\n").stdout
    failed = shell("auto", "--explain", "nothing.txt")
    assert (1, True) == (failed.returncode, "nothing.txt: cannot be read" in failed.stderr)


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (StoreUnavailable("gone"), 1)])
def test_an_interrupt_and_a_store_that_is_down_have_codes(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(args: object) -> int:
        raise raised

    monkeypatch.setattr("floop_gateway_core.cli.auto.auto", interrupted)
    assert code == main(["auto", "--explain", "-"])


def test_migrations_of_postgresql_can_be_printed_and_the_store_is_shown_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    monkeypatch.setenv("URL", url.replace("postgres:@", "postgres:secret-word@"))
    (tmp_path / "gateway.toml").write_text('store_env = "URL"\n')
    command = ["--config", str(tmp_path / "gateway.toml")]
    assert 0 == main(["migrate", "--sql", *command])
    assert "CREATE TABLE floop_gateway.accounts" in capsys.readouterr().out
    assert 0 == main(["migrate", "--json", *command])
    printed = json.loads(capsys.readouterr().out)
    assert ("will be created", "ready", 0) == (printed["before"], printed["state"], printed["projects"])
    assert "secret-word" not in str(printed)
    assert 0 == main(["migrate", "--sql", *command])
    assert "-- the schema is up to date" in capsys.readouterr().out
    assert 0 == main(["project", "create", "shop", "--credits", "5", *command])
    assert 0 == main(["check", "--json", *command])
    assert '"projects": 1' in capsys.readouterr().out
    assert 1 == main(["backup", str(tmp_path / "copy"), *command])
    assert "secret-word" not in capsys.readouterr().err
    (tmp_path / "gateway.toml").write_text(f'store = "sqlite:///{tmp_path}/a.db"\n')
    assert 1 == main(["migrate", "--sql", *command])
    assert "--sql is for PostgreSQL" in capsys.readouterr().err
