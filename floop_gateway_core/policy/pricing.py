"""What tokens cost: rates in micro-credits a token, charges in whole micro-credits.

A rate is a decimal with up to six places. It is kept as an integer of millionths, so every product is exact; the sum over
the kinds of tokens is rounded up once, to a whole micro-credit (contract: Billing).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from floop_gateway_core.money import format_credits, parse_credits, parse_rate
from floop_gateway_core.types import Microcredits, Usage

__all__ = ["CostLine", "Prices", "format_credits", "parse_credits", "parse_rate"]

RATE_SCALE = 10**6
"""A rate counts millionths of a micro-credit."""


@dataclass(frozen=True, slots=True)
class Prices:
    """A deployment's rates, each in millionths of a micro-credit a token."""

    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0
    cache_write: int | None = None
    """None is the input's rate."""

    @classmethod
    def flat(cls, rate: int) -> "Prices":
        """Return prices with one rate for every kind of token."""
        return cls(rate, rate, rate, rate, rate)

    def charge(self, usage: Usage) -> Microcredits:
        """Price an answer. Tokens read from or written to a cache are part of the input, reasoning tokens of the output.

        >>> Prices.flat(parse_rate(1250)).charge(Usage(123, 45))
        210000
        """
        cached = min(usage.cached_tokens, usage.input_tokens)
        written = min(usage.cache_written_tokens, usage.input_tokens - cached)
        reasoning = min(usage.reasoning_tokens, usage.output_tokens)
        total = (
            (usage.input_tokens - cached - written) * self.input
            + written * self._write
            + cached * self.cached_input
            + (usage.output_tokens - reasoning) * self.output
            + reasoning * self.reasoning
        )
        return Microcredits(-(-total // RATE_SCALE))

    @property
    def _write(self) -> int:
        return self.input if self.cache_write is None else self.cache_write

    def cost_line(self, input_tokens: int, thinking_tokens: int) -> "CostLine":
        """Return the most that an answer can cost, as a line over its granted output tokens."""
        dearest_output = max(self.output, self.reasoning)
        dearest_input = max(self.input, self.cached_input, self._write)
        return CostLine(input_tokens * dearest_input + thinking_tokens * dearest_output, dearest_output)


@dataclass(frozen=True, slots=True)
class CostLine:
    """`fixed + per_output * output`, in millionths of a micro-credit. The maximum over a route's lines is convex."""

    fixed: int
    per_output: int

    def cost(self, output_tokens: int) -> Microcredits:
        """Return the cost of this much output, rounded up to a whole micro-credit."""
        return Microcredits(-(-(self.fixed + self.per_output * output_tokens) // RATE_SCALE))

    def affordable(self, available: Microcredits, wanted: int) -> int:
        """Return the most output tokens, up to `wanted`, that cost at most `available`; negative if 0 cost more.

        >>> CostLine(parse_rate(10), parse_rate(2)).affordable(Microcredits(15), wanted=100)
        2
        """
        left = available * RATE_SCALE - self.fixed
        if left < 0:
            return -1
        return wanted if self.per_output == 0 else min(wanted, left // self.per_output)


def max_cost(lines: Iterable[CostLine], output_tokens: int) -> Microcredits:
    """Return the cost on the highest line at this output: what a hold sets aside for a whole route."""
    return max((line.cost(output_tokens) for line in lines), default=Microcredits(0))
