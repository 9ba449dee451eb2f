"""A clock that stands still until it is told otherwise."""

__all__ = ["FakeClock"]


class FakeClock:
    """Give it wherever a `Clock` is taken.

    >>> clock = FakeClock(1_700_000_000.0)
    >>> clock.advance(60)
    >>> clock()
    1700000060.0
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Go on by `seconds`, or back where they are below 0."""
        self.now += seconds
