"""The books are right under 2 000 random schedules; the simulation is the same each time, and finds planted mistakes."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.simulation.__main__ import main
from tests.simulation.auditor import Violation
from tests.simulation.faults import FAULTS, Fault, find
from tests.simulation.report import broken, first_broken
from tests.simulation.schedule import Outage, Rotate, Schedule, Send, Wait, random_schedule
from tests.simulation.shrink import shrunk
from tests.simulation.world import run

SCHEDULES = 2_000
CHUNK = 100
"""A test each, so that pytest's workers share them."""
IN_FILES = 100
TRACE = "from tests.simulation.world import run; from tests.simulation.schedule import random_schedule as s; "


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_every_rule_holds_in_memory(first: int) -> None:
    found = first_broken(range(first, first + CHUNK))
    assert found is None, str(found)


@pytest.mark.parametrize("first", range(0, IN_FILES, 50))
def test_every_rule_holds_on_sqlite(first: int) -> None:
    found = first_broken(range(first, first + 50), sqlite=True)
    assert found is None, str(found)


def test_memory_and_sqlite_do_the_same() -> None:
    def told(seed: int, *, sqlite: bool) -> list[str]:
        """Leave out the holds, of which the stores keep different ones: memory has a mark for each refusal."""
        return [re.sub(r"\} \{.*", "}", line) for line in run(random_schedule(seed), sqlite=sqlite).trace]

    for seed in range(IN_FILES):
        assert told(seed, sqlite=False) == told(seed, sqlite=True)


def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    seeds = range(0, 60, 3)
    here = [run(random_schedule(seed)).trace for seed in seeds]
    code = TRACE + f"print([run(s(seed)).trace for seed in {seeds!r}])"
    environ = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    elsewhere = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == str(here)


def test_the_clock_of_the_simulation_is_not_that_of_the_machine() -> None:
    day = run(Schedule((Wait(86_400.0),)))
    assert day.violation is None
    assert day.trace[0].startswith("86400.000 ")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_mistake_is_found(fault: Fault) -> None:
    found = find(fault)
    assert found is not None, f"{fault.name} was not found by {fault.within} schedules"


def test_what_breaks_a_rule_is_told_with_its_seed_and_at_its_shortest(capsys: pytest.CaptureFixture[str]) -> None:
    fault = next(one for one in FAULTS if one.name == "who leaves pays nothing")
    found = find(fault)
    assert found is not None
    seed = found.schedules - 1
    with fault.plant():
        told = broken(seed)
        assert told is not None
        assert main(["--schedules", "1", "--seed", str(seed)]) == 1
    assert len(told.shortest.steps) < len(random_schedule(seed).steps)
    assert told.violation.rule == found.rule
    printed = capsys.readouterr().out
    assert f"--seed {seed}" in printed
    assert found.rule in printed
    assert main(["--schedules", "2", "--seed", str(seed)]) == 0


def test_a_schedule_is_shrunk_to_what_matters() -> None:
    matters = Send(3, stream=True, key=1)
    steps = (Wait(1.0), Send(0), Outage(1.0, "before"), matters, Rotate(0), Wait(2.0))

    def breaks(schedule: Schedule) -> bool:
        return any(isinstance(step, Send) and step.key is not None for step in schedule.steps)

    shortest = shrunk(Schedule(steps, to_midnight_s=3.0), breaks)
    assert shortest.steps == (replace(matters, stream=False),)
    assert shortest.to_midnight_s == 4_000.0


def test_a_violation_says_when_and_what() -> None:
    violation = Violation("available is never below zero", "-1")
    violation.step = 4
    assert str(violation) == "after step 4: available is never below zero: -1"
