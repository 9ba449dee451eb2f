"""The rate headers of an answer, for the windows that its request was counted in.

The `X-RateLimit-*` headers describe the most restrictive window: the one that refuses longest, else the one with the
least left. The structured fields (`RateLimit-Policy` and `RateLimit`, as in the IETF draft) list every window.
"""

from collections.abc import Sequence
from typing import TypeAlias

from floop_gateway_core.policy.rate_window import RateDecision

__all__ = ["Header", "most_restrictive", "rate_headers"]

Header: TypeAlias = tuple[str, str]


def most_restrictive(decisions: Sequence[RateDecision]) -> RateDecision:
    """Return the decision that is closest to refusing, which the headers report."""
    return max(decisions, key=lambda one: (not one.allowed, one.retry_after_s, -one.remaining))


def rate_headers(windows: Sequence[tuple[str, RateDecision]]) -> tuple[Header, ...]:
    """Return the headers for one or more named windows; `reset` is seconds until the oldest counted request leaves.

    >>> rate_headers([("rpm", RateDecision(True, limit=10, remaining=7, retry_after_s=0, reset_s=30))])[-2:]
    (('RateLimit-Policy', '"rpm";q=10;w=60'), ('RateLimit', '"rpm";r=7;t=30'))
    """
    first = most_restrictive([decision for _, decision in windows])
    return (
        ("X-RateLimit-Limit", str(first.limit)),
        ("X-RateLimit-Remaining", str(first.remaining)),
        ("X-RateLimit-Reset", str(first.reset_s)),
        ("RateLimit-Policy", ", ".join(f'"{name}";q={one.limit};w={one.window_s:.0f}' for name, one in windows)),
        ("RateLimit", ", ".join(f'"{name}";r={one.remaining};t={one.reset_s}' for name, one in windows)),
    )
