"""Settlements in a file: on the disk before `add` returns, shared by processes, whole or not there, and bounded."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy.idempotency import Claim
from floop_gateway_core.stores.base import Settlement
from floop_gateway_core.stores.spool import SettlementSpool
from floop_gateway_core.testing.suites.facts import hold_request, settlement
from floop_gateway_core.types import AttemptRecord


def made(number: int = 0) -> Settlement:
    one = settlement(hold_request(f"req_{number}"), 5, tokens=3)
    record = replace(
        one.record,
        auto_reasons=(("in.code", 1.5),),
        tags=(("user", "Olga ☃"),),
        code=ErrorCode.SERVICE_UNAVAILABLE,
        attempt_list=(AttemptRecord("mini", "timeout", "no event", 12),),
    )
    return replace(one, record=record, answer=b"\x00\xff\n", claim=Claim("key", "digest"))


def read(spool: SettlementSpool) -> list[Settlement]:
    return [one for taken in spool.taken() for one in spool.read(taken)]


def test_what_is_added_is_read_as_it_was(tmp_path: Path) -> None:
    spool = SettlementSpool(tmp_path / "a.spool")
    assert spool.is_empty
    for number in range(3):
        spool.add(made(number))
    assert not spool.is_empty
    assert [made(number) for number in range(3)] == read(spool)
    assert [made(number) for number in range(3)] == read(spool)  # it is there until its file is deleted
    for taken in spool.taken():
        taken.unlink()
    assert spool.is_empty


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    spool = SettlementSpool(tmp_path / "a.spool")
    spool.add(made())
    assert 0o600 == spool.path.stat().st_mode & 0o777


def test_a_full_spool_takes_no_more_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = SettlementSpool(tmp_path / "a.spool", max_bytes=2000)
    with pytest.raises(OSError, match="the spool is full"):
        for number in range(100):
            spool.add(made(number))
    found = read(spool)
    assert 0 < len(found) < 100
    assert [made(number) for number in range(len(found))] == found


def test_a_line_that_was_cut_short_is_passed_over_and_spoils_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = SettlementSpool(tmp_path / "a.spool")
    spool.add(made(1))
    with spool.path.open("r+b") as file:
        file.truncate(spool.path.stat().st_size - 20)
    spool.add(made(2))
    assert [made(2)] == read(spool)
    assert "skipping a settlement that cannot be read" in caplog.text


def test_processes_share_a_spool_while_another_takes_it(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from tests.stores.test_spool import made
from floop_gateway_core.stores.spool import SettlementSpool
spool = SettlementSpool(Path(sys.argv[1]))
for number in range(100):
    spool.add(made(int(sys.argv[2]) + number))
"""
    path = tmp_path / "a.spool"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(first)],
            env=environment,
        )
        for first in (0, 1000, 2000)
    ]
    spool, found = SettlementSpool(path), list[Settlement]()
    while True:
        running = any(writer.poll() is None for writer in writers)
        for taken in spool.taken():
            found += spool.read(taken)
            taken.unlink()
        if not running:
            break
    assert [0] * 3 == [writer.returncode for writer in writers]
    wanted = {made(first + number).record.request_id for first in (0, 1000, 2000) for number in range(100)}
    assert 300 == len(found)
    assert wanted == {one.record.request_id for one in found}
