"""A clock that moves only when a test moves it."""

__all__ = ["FakeClock"]


class FakeClock:
    """Pass it wherever a `Clock` is taken.

    >>> clock = FakeClock(1_700_000_000.0)
    >>> clock.advance(60)
    >>> clock()
    1700000060.0
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move by `seconds`, backwards if they are negative."""
        self.now += seconds
