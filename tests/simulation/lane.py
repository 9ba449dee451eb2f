"""A lane: all that is done for one request, in whatever task. Its chances are its own, whatever others do."""

import random
from contextvars import ContextVar
from dataclasses import dataclass, field

from tests.simulation.schedule import Script

__all__ = ["LANE", "Admission", "Attempt", "Lane"]


@dataclass(slots=True)
class Attempt:
    """What an upstream was asked, and what it did. `model` names the deployment and the settings whose prices apply."""

    model: str
    script: Script
    sent: bool = False
    texts: int = 0
    tokens: int = 0
    finished: bool = False
    failed: bool = False


@dataclass(slots=True)
class Admission:
    """When a request was admitted, by the wall clock and by time that has gone by, and the tokens that were set aside."""

    wall: float
    elapsed: float
    granted: int = 0


@dataclass(slots=True)
class Lane:
    """`name` is that of the step."""

    name: str
    chance: random.Random
    scripts: tuple[Script, ...] = ()
    attempts: list[Attempt] = field(default_factory=list)
    met_outage: bool = False
    unheard: bool = False
    """Whether the store has settled and could not say so."""
    holds: "dict[str, Admission]" = field(default_factory=dict)
    """By the id of the request."""

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
