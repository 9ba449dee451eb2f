"""Real processes on one SQLite file: two at once, and one that is killed in the middle of a stream."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.serving import MOUNT, post, until

CONFIG = """
store = "sqlite:///{store}"

[plans.default]
requests_per_minute = {rpm}
daily_tokens = 1_000_000

[deployments.echo]
provider = "echo"
microcredits_per_token = 1250
words_per_second = {speed}

[routes]
fast = ["echo"]
smart = ["echo"]
reason = ["echo"]

[upstream]
total_s = {total_s}
"""


class Machine:
    def __init__(self, folder: Path, *, rpm: int = 10, speed: int = 0, total_s: float = 300.0) -> None:
        self.config = folder / "gateway.toml"
        self.log = folder / "serve.log"
        self.config.write_text(CONFIG.format(store=folder / "shared.db", rpm=rpm, speed=speed, total_s=total_s))

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [*COMMAND, *words, "--config", str(self.config)], env=ENV, capture_output=True, text=True, timeout=60
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, "serve", "--port", str(port), "--config", str(self.config)], env=ENV, stderr=log
            )
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: _answers(address), most_s=30)
            yield address + MOUNT, process
        finally:
            process.terminate()
            process.wait(20)

    def usage(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.run("usage", "--json").splitlines()]


COMMAND = [sys.executable, "-m", "floop_gateway_core"]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 404
    except httpx.TransportError:
        return False


def test_two_processes_on_one_file_admit_exactly_ten_of_200_in_a_minute(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    key = json.loads(machine.run("project", "create", "p", "--credits", "1000", "--json"))["key"]
    answers: list[httpx.Response] = []
    with machine.serving() as (one, _), machine.serving() as (other, _):
        ask = {"prompt": "one two three"}
        threads = [
            threading.Thread(target=lambda url=url: answers.append(post(f"{url}/generate", key, ask)))
            for url in [one, other] * 100
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 10 == sum(answer.status_code == 200 for answer in answers), [answer.text for answer in answers[:3]]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {429} == {answer.status_code for answer in refused}
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    records = machine.usage()
    assert 10 == len([record for record in records if record["ending"] == "complete"])
    assert 190 == sum(int(str(record["repeats"])) for record in records if record["ending"] == "refused")
    account = json.loads(machine.run("account", "show", "project:p", "--json"))
    assert (1000 - 10 * 6 * 0.00125, 0) == (account["posted"], account["held"])


def test_a_change_made_by_another_process_holds_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, rpm=1000)
    key = json.loads(machine.run("project", "create", "p", "--credits", "1000", "--json"))["key"]
    with machine.serving() as (url, _):
        assert "1000" == post(f"{url}/generate", key, {"prompt": "hi"}).headers["x-ratelimit-limit"]
        machine.run("project", "settings", "p", "--rpm", "500")
        assert "500" == post(f"{url}/generate", key, {"prompt": "hi"}).headers["x-ratelimit-limit"]
        new = json.loads(machine.run("project", "rotate-key", "p", "--json"))["key"]
        assert 401 == post(f"{url}/generate", key, {"prompt": "hi"}).status_code
        answer = post(f"{url}/generate", new, {"prompt": "hi"})
        assert (200, "497") == (answer.status_code, answer.headers["x-ratelimit-remaining"])


def test_a_process_killed_in_mid_stream_costs_nothing_and_its_record_ends_as_lost(tmp_path: Path) -> None:
    machine = Machine(tmp_path, speed=20, total_s=5.0)
    key = json.loads(machine.run("project", "create", "p", "--credits", "1000", "--json"))["key"]
    with ExitStack() as stack:
        url, process = stack.enter_context(machine.serving())
        client = stack.enter_context(httpx.Client())
        answer = stack.enter_context(
            client.stream(
                "POST",
                f"{url}/generate",
                json={"prompt": "word " * 200, "stream": True},
                headers={"Authorization": f"Bearer {key}"},
            )
        )
        chunks = answer.iter_raw()  # kept: a reader that is dropped would close the connection first
        next(chunks)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        account = json.loads(machine.run("account", "show", "project:p", "--json"))
        assert 1000 == account["posted"]
        assert account["held"] > 0
    # The hold outlives the longest request by the settlement's limits, and then it is void.
    until(machine.usage, most_s=60)
    (record,) = machine.usage()
    assert ("lost", 0, None) == (record["ending"], record["microcredits"], record["status"])
    account = json.loads(machine.run("account", "show", "project:p", "--json"))
    assert (1000, 0) == (account["posted"], account["held"])
    assert 1 == len(machine.usage())


def test_open_streams_are_finished_before_a_server_stops(tmp_path: Path) -> None:
    machine = Machine(tmp_path, speed=50)
    key = json.loads(machine.run("project", "create", "p", "--credits", "1000", "--json"))["key"]
    with machine.serving() as (url, process), httpx.Client() as client:
        ask = {"prompt": "word " * 25, "stream": True}
        with client.stream("POST", f"{url}/generate", json=ask, headers={"Authorization": f"Bearer {key}"}) as answer:
            chunks = answer.iter_raw()
            next(chunks)
            process.terminate()
            assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
    assert ["complete"] == [record["ending"] for record in machine.usage()]


def test_serve_shows_a_line_for_each_request(tmp_path: Path) -> None:
    machine = Machine(tmp_path, rpm=100)
    key = machine.run("project", "create", "p", "--credits", "1").strip().splitlines()[-1].split()[-1]
    for form in ("text", "json"):
        machine.config.write_text(
            machine.config.read_text() + (f'\n[log]\nformat = "{form}"\n' if form == "json" else "")
        )
        with machine.serving() as (address, _):
            request_id = post(address + "/generate", key, {"prompt": "a secret prompt"}).headers["x-request-id"]
            post(address + "/generate", key, {})
        shown = machine.log.read_text()
        machine.log.unlink()
        lines = [line for line in shown.splitlines() if "request " in line]
        assert len(lines) == 2
        assert "secret" not in shown
        assert key not in shown
        if form == "text":
            assert lines[0].startswith(
                f"INFO:     request {request_id}: project=p alias=auto deployment=echo status=200"
            )
        else:
            served, refused = map(json.loads, lines)
            assert (served["level"], served["request_id"], served["ending"]) == ("INFO", request_id, "complete")
            assert (refused["code"], refused["status"]) == ("VALIDATION_ERROR", 400)
