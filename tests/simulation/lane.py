"""A lane: all that is done for one request, in whatever task. Its chances are its own, so that others do not change them."""

import random
from contextvars import ContextVar
from dataclasses import dataclass, field

from tests.simulation.schedule import Script

__all__ = ["LANE", "Attempt", "Lane"]


@dataclass(slots=True)
class Attempt:
    """What an upstream was asked, and what it did. `model` names the deployment and the settings whose prices apply."""

    model: str
    script: Script
    sent: bool = False
    texts: int = 0
    tokens: int = 0
    finished: bool = False


@dataclass(slots=True)
class Lane:
    """`name` is that of the step."""

    name: str
    chance: random.Random
    scripts: tuple[Script, ...] = ()
    attempts: list[Attempt] = field(default_factory=list)
    met_outage: bool = False
    holds: dict[str, tuple[float, int]] = field(default_factory=dict)
    """By the id of each request: the time on the wall clock of its admission, and the tokens that were granted."""

    def delay_s(self) -> float:
        """Return how long a message to or from the store is under way."""
        return self.chance.choice((0.0, 0.0, 0.0, 0.0, 0.003, 0.06, 0.6))

    def asked(self, model: str) -> Attempt:
        """Begin the next attempt; after those of the schedule, upstreams answer."""
        number = len(self.attempts)
        attempt = Attempt(model, self.scripts[number] if number < len(self.scripts) else Script())
        self.attempts.append(attempt)
        return attempt


LANE: ContextVar[Lane | None] = ContextVar("lane", default=None)
