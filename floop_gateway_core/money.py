"""Amounts as people write them: credits and rates as decimals, parsed and formatted exactly.

Internally money is whole micro-credits and a rate is whole millionths of a micro-credit per token; neither is ever a float.
"""

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TypeAlias

from floop_gateway_core.types import Microcredits

__all__ = ["CREDIT", "MAX_RATE", "Credits", "format_credits", "parse_credits", "parse_rate", "to_microcredits"]

Credits: TypeAlias = Microcredits | Decimal | str
"""An amount as a host's code may write it: whole micro-credits, or a decimal of credits."""

CREDIT = 10**6
"""Micro-credits in a credit."""

MAX_RATE = 10**9


def _scaled(value: Decimal | int | str, what: str, most: int) -> int:
    with suppress(InvalidOperation):
        number = Decimal(value)
        # Checked on the digits, because arithmetic on decimals rounds to 28 of them.
        if number.is_finite() and 0 <= number <= most and (number == 0 or number.adjusted() >= -6):
            millionths, rest = divmod(Fraction(number) * 10**6, 1)
            if not rest:
                return millionths
    raise ValueError(f"{what} must be a number from 0 to {most} with at most six decimal places, got {value!s:.50}")


def parse_rate(value: Decimal | int | str) -> int:
    """Parse micro-credits per token into millionths. Raises ValueError for more than six places, below 0, or out of range.

    >>> parse_rate("0.25"), parse_rate(1250)
    (250000, 1250000000)
    """
    return _scaled(value, "rate", MAX_RATE)


def parse_credits(value: Decimal | int | str) -> Microcredits:
    """Parse an amount of credits exactly. Raises ValueError.

    >>> parse_credits("4838.5")
    4838500000
    """
    return Microcredits(_scaled(value, "credits", 10**12))


def to_microcredits(value: Credits) -> Microcredits:
    """Return an amount in micro-credits; raise TypeError for a float or a bool, ValueError for an amount out of range.

    >>> to_microcredits("3.50"), to_microcredits(Microcredits(7))
    (3500000, 7)
    """
    return parse_credits(value) if isinstance(value, Decimal | str) else Microcredits(value)


def format_credits(amount: Microcredits) -> str:
    """Format micro-credits as a decimal of credits: exact, valid JSON, without an exponent or trailing zeros.

    >>> format_credits(Microcredits(210_000)), format_credits(Microcredits(1)), format_credits(Microcredits(5_000_000))
    ('0.21', '0.000001', '5')
    """
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), CREDIT)
    return f"{sign}{whole}.{part:06}".rstrip("0").rstrip(".")
