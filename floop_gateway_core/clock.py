"""The two clocks and the one source of ids; everything above takes them as arguments.

Wall time (`now`, seconds since the epoch) is what several processes share: windows, days, holds and records are kept
in it. Elapsed time is measured with `anyio.current_time` in the engine, so a wall clock that jumps cuts no stream.
"""

import os
import time
from collections.abc import Callable

from floop_gateway_core.types import ProjectId, RequestId

Clock = Callable[[], float]
"""Seconds since the epoch, UTC."""

system_clock: Clock = time.time

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]


def new_request_id(now_s: float) -> RequestId:
    """Return a new id: `req_` and 26 characters, 48 bits of milliseconds and 80 random bits, so ids sort by time.

    >>> len(new_request_id(0.0))
    30
    >>> new_request_id(1.0) < new_request_id(2.0)
    True
    """
    return RequestId("req_" + _sortable(now_s))


def new_project_id(now_s: float) -> ProjectId:
    """Return a new id: `prj_` and 26 characters, as for requests."""
    return ProjectId("prj_" + _sortable(now_s))


def _sortable(now_s: float) -> str:
    bits = (int(now_s * 1000) & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(120, -10, -10)])
