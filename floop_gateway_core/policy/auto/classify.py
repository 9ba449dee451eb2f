"""Decides which of `fast`, `smart` and `reason` a request gets when the client asks for `auto`, and says why.

It classifies the task that is asked for, not the topic of its text. It must never raise, never keep or
return any of the text, and never take longer for a longer text (it reads a bounded window).

Theory. Two questions, two tables. *Which kind of task*: every feature has three fitted weights, and the kind with the
greatest sum wins (`tables/classify.json`, in hundredths, made by `tools/fit_classify.py`). *How hard within its kind*:
length, numbers, clauses, technical terms and the like, with weights set by hand (`DIFFICULTY`, a test for each). The
score combines both: each kind has a third of [0, 1], and the difficulty, together with how close the other kinds came,
positions a request within its third. Two thresholds turn the score into an alias, and a host that raises `reason_from`
sends the easiest `reason` requests to `smart` first.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from floop_gateway_core.policy.auto.features import features
from floop_gateway_core.types import Message

__all__ = ["DEFAULT", "Alias", "Classification", "Thresholds", "classify"]

Alias: TypeAlias = Literal["fast", "smart", "reason"]
KINDS: tuple[Alias, Alias, Alias] = ("fast", "smart", "reason")

REASONS = 5
"""The most features that are named as reasons."""

DIFFICULTY = {
    "length": 1.3,
    "numbers": 0.9,
    "numbers_body": 0.15,
    "clauses": 0.6,
    "in.math": 0.5,
    "body.math": 0.15,
    "in.solve": 0.4,
    "body.solve": 0.4,
    "in.prove": 0.3,
    "in.expertise": 0.4,
    "body.expertise": 0.3,
    "in.constraint": 0.2,
    "in.negation": 0.1,
    "in.deep": 0.3,
    "in.logic": 0.15,
    "in.make": 0.2,
    "listed": 0.15,
    "in.define": -0.3,
    "lead.explain": -0.2,
    "in.short_answer": -0.2,
    "in.chitchat": -0.4,
}
"""What raises a request within its kind, and how much. Set by hand, with an eye on outcomes of weak and strong models."""

_EVEN = 2.5
"""The difficulty in the middle of a band: about fifty words with a number or two."""

_LEAN = 0.1
"""The weight of how close the neighbouring kind came, next to difficulty."""

_CLEAR = 3.0
"""The margin of a clear decision: a `fast` or `reason` request decided by less is placed nearer to `smart`."""


@dataclass(frozen=True, slots=True)
class Classification:
    """`score` is in [0, 1], harder is higher; `reasons` are features and their weights for the kind, strongest first."""

    alias: Alias
    score: float
    reasons: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A score of `smart_from` or more is `smart`, of `reason_from` or more `reason`. Both in [0, 1], in this order.

    The defaults are the edges of the bands, so that the alias is the most likely kind.
    """

    smart_from: float = 1 / 3
    reason_from: float = 2 / 3

    def __post_init__(self) -> None:
        if not 0.0 <= self.smart_from <= self.reason_from <= 1.0:
            raise ValueError(
                f"0 <= smart_from <= reason_from <= 1 must hold, got {self.smart_from} and {self.reason_from}"
            )


DEFAULT = Thresholds()


@cache
def _weights() -> dict[str, tuple[float, float, float]]:
    from importlib import resources  # slow to import, and needed once

    source = resources.files(__package__).joinpath("tables/classify.json").read_text(encoding="utf-8")
    return {name: (row[0] / 100, row[1] / 100, row[2] / 100) for name, row in json.loads(source).items()}


def classify(
    messages: Sequence[Message], system: str | None = None, *, thresholds: Thresholds = DEFAULT
) -> Classification:
    """Classify a conversation by its last user turn, plus the system prompt and previous turn if that says little.

    >>> proof = Message.of("user", "Translate into French: Prove that there are infinitely many primes.")
    >>> classify([proof]).alias
    'fast'
    """
    seen = features(messages, system)
    table = _weights()
    fast, smart, reason = table["bias"]
    known: list[tuple[str, float, tuple[float, float, float]]] = []
    for name, value in seen.items():
        row = table.get(name)
        if row is not None and value:
            fast += row[0] * value
            smart += row[1] * value
            reason += row[2] * value
            known.append((name, value, row))
    sums = (fast, smart, reason)
    kind = 1 if smart >= fast and smart >= reason else 0 if fast >= reason else 2
    score = (kind + _place(kind, sums, seen)) / 3
    alias: Alias = (
        "reason" if score >= thresholds.reason_from else "smart" if score >= thresholds.smart_from else "fast"
    )
    return Classification(alias, score, _reasons(kind, known))


def _place(kind: int, sums: tuple[float, float, float], seen: dict[str, float]) -> float:
    """Return the position of a request in its band, above 0 and below 1."""
    fast, smart, reason = sums
    lean = (max(smart, reason) - fast + _CLEAR, reason - fast, reason - max(fast, smart) - _CLEAR)[kind]
    pull = _LEAN * lean - _EVEN
    for name, weight in DIFFICULTY.items():
        if name in seen:
            pull += weight * seen[name]
    place = 0.5 + 0.5 * pull / (1.0 + abs(pull))
    return min(max(place, 0.001), 0.999)


def _reasons(kind: int, known: list[tuple[str, float, tuple[float, float, float]]]) -> tuple[tuple[str, float], ...]:
    """Name the features that spoke most for and against the kind, each weight relative to the mean of the three kinds."""
    found: list[tuple[float, str, float]] = []
    for name, value, row in known:
        weight = (row[kind] - (row[0] + row[1] + row[2]) / 3) * value
        found.append((-abs(weight), name, weight))
    found.sort()
    return tuple((name, round(weight, 2)) for _, name, weight in found[:REASONS])
