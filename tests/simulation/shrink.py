"""Makes a schedule that breaks a rule as short as it can be: what can be left out, or be plain, is."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulation.schedule import Schedule, Script, Send, Step

__all__ = ["shrunk"]

PLAIN = {"over_http": True, "leave_after": None, "key": None, "old_key": False, "stream": False, "process": 0}


def shrunk(schedule: Schedule, breaks: Callable[[Schedule], bool]) -> Schedule:
    """Return the shortest schedule found for which `breaks` is still true."""
    again = True
    while again:
        again = False
        for smaller in (*_with_fewer_steps(schedule), *_with_plainer_steps(schedule)):
            if breaks(smaller):
                schedule, again = smaller, True
                break
    return schedule


def _with_fewer_steps(schedule: Schedule) -> Iterator[Schedule]:
    steps = schedule.steps
    size = len(steps) // 2
    while size:
        for start in range(0, len(steps), size):
            yield replace(schedule, steps=steps[:start] + steps[start + size :])
        size //= 2


def _with_plainer_steps(schedule: Schedule) -> Iterator[Schedule]:
    for place, step in enumerate(schedule.steps):
        for plainer in _plainer(step):
            yield replace(schedule, steps=(*schedule.steps[:place], plainer, *schedule.steps[place + 1 :]))
    if schedule.to_midnight_s < 4_000.0:
        yield replace(schedule, to_midnight_s=4_000.0)


def _plainer(step: Step) -> Iterator[Step]:
    if not isinstance(step, Send):
        return
    if step.attempts:
        yield replace(step, attempts=step.attempts[:-1])
    for name, value in PLAIN.items():
        if getattr(step, name) != value:
            yield replace(step, **{name: value})  # type: ignore[arg-type]
    for place, script in enumerate(step.attempts):
        if script != Script():
            yield replace(step, attempts=(*step.attempts[:place], Script(), *step.attempts[place + 1 :]))
