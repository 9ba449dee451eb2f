"""How much a call may think at a deployment: the client's wish, brought into what the deployment and its vendor take."""

from collections.abc import Mapping
from dataclasses import dataclass

from floop_gateway_core.types import Shape

__all__ = ["ANY_THINKING", "NO_THINKING", "Thinking", "ThinkingRange", "allowance_of"]

ALLOWANCES: Mapping[str, int] = {
    "none": 0,
    "minimal": 2_048,
    "low": 4_096,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 65_536,
}
"""Thinking tokens by effort, in ascending order: the most that models use in practice, rounded up."""
DEFAULT_ALLOWANCE = 16_384
"""For an effort that is not in the table."""


def allowance_of(effort: str) -> int:
    """Return the tokens to set aside for an effort."""
    return ALLOWANCES.get(effort, DEFAULT_ALLOWANCE)


@dataclass(frozen=True, slots=True)
class Thinking:
    """The effort or the budget to send, if either, and the tokens that the call may spend on top of its `max_tokens`."""

    effort: str | None = None
    budget_tokens: int | None = None
    allowance_tokens: int = 0


NO_THINKING = Thinking()


@dataclass(frozen=True, slots=True)
class ThinkingRange:
    """What a vendor takes: `efforts` in ascending order; `can_be_off` is whether a request can turn thinking off."""

    efforts: tuple[str, ...] = tuple(ALLOWANCES)
    can_be_off: bool = False

    def of(self, own: Thinking, shape: Shape) -> Thinking:
        """Return how much a call thinks; `own` is the deployment's setting, which a call can lower and not exceed.

        Only an effort may be higher than the deployment's: it is held with its own allowance.
        """
        wanted, effort = shape.thinking, shape.effort
        if own.effort is None and own.budget_tokens is None:
            return own
        if self.can_be_off and (effort == "none" or (wanted is not None and wanted.kind == "disabled")):
            return NO_THINKING
        if own.budget_tokens is not None:
            asked = own.budget_tokens if wanted is None or wanted.budget_tokens is None else wanted.budget_tokens
            budget = min(own.budget_tokens, asked)
            return Thinking(budget_tokens=budget, allowance_tokens=budget)
        nearest = own.effort if effort is None else self._nearest(effort)
        if nearest is None or nearest == own.effort:
            return own
        return Thinking(effort=nearest, allowance_tokens=allowance_of(nearest))

    def _nearest(self, effort: str) -> str | None:
        """Return the vendor's effort that is closest to one of the scale; None for one that is not in it."""
        scale = [*ALLOWANCES]
        if effort not in scale:
            return None
        place = scale.index(effort)
        return min(self.efforts, key=lambda one: abs(scale.index(one) - place))


ANY_THINKING = ThinkingRange()
