"""Runs schedule after schedule, and says of the first that breaks a rule how it does so at the shortest."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.simulation.auditor import Violation
from tests.simulation.schedule import Schedule, random_schedule
from tests.simulation.shrink import shrunk
from tests.simulation.world import run

__all__ = ["Broken", "broken", "first_broken"]


@dataclass(frozen=True)
class Broken:
    """A schedule that breaks a rule, as it was found and as short as it became."""

    seed: int
    violation: Violation
    shortest: Schedule
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"seed {self.seed}: {self.violation}",
                f"run it again: python -m tests.simulation --schedules 1 --seed {self.seed}",
                "",
                f"the shortest schedule that breaks the same rule: {self.shortest}",
                "",
                *self.trace,
            ]
        )


def broken(seed: int, *, sqlite: bool = False) -> Broken | None:
    """Run the schedule of a seed; None if all rules hold."""
    schedule = random_schedule(seed)
    violation = run(schedule, sqlite=sqlite).violation
    if violation is None:
        return None
    rule = violation.rule

    def breaks(smaller: Schedule) -> bool:
        found = run(smaller, sqlite=sqlite).violation
        return found is not None and found.rule == rule

    shortest = shrunk(schedule, breaks)
    again = run(shortest, sqlite=sqlite)
    return Broken(seed, violation, shortest, (*again.trace, str(again.violation)))


def first_broken(seeds: Iterable[int], *, sqlite: bool = False) -> Broken | None:
    """Return the first of these schedules that breaks a rule."""
    return next((found for seed in seeds if (found := broken(seed, sqlite=sqlite)) is not None), None)
