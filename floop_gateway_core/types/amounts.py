"""Identifiers and amounts that must not be mixed up with other strings and integers."""

from typing import NewType

__all__ = ["OWN_ACCOUNT", "ZERO_CREDITS", "Microcredits", "ProjectId", "RequestId"]

ProjectId = NewType("ProjectId", str)
RequestId = NewType("RequestId", str)


class Microcredits(int):
    """A millionth of a credit. Money is only ever this integer; decimals exist at the edges (`money.parse_credits`).

    >>> Microcredits(5)
    5
    >>> Microcredits(1.0)
    Traceback (most recent call last):
    TypeError: an amount of micro-credits must be an int, got float
    """

    __slots__ = ()

    def __new__(cls, amount: int) -> "Microcredits":
        """Return the amount; raise TypeError for anything but an int."""
        if type(amount) is not int and (isinstance(amount, bool) or not isinstance(amount, int)):
            raise TypeError(f"an amount of micro-credits must be an int, got {type(amount).__name__}")
        return super().__new__(cls, amount)


ZERO_CREDITS = Microcredits(0)
OWN_ACCOUNT = "project:"
"""How the owner of a project's own account begins; the project's name follows, or its id once it is deleted."""
