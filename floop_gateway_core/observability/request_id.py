"""The id of the current request, for a host's own log lines.

It is set where a request begins: for whatever the gateway calls (`authenticate`, listeners, hooks, a classifier,
providers), and for the code that serves or makes the call. It stays set until its context ends or makes another call.
"""

import logging
from contextvars import ContextVar

from floop_gateway_core.types import RequestId

__all__ = ["RequestIdFilter", "request_id"]

request_id: ContextVar[RequestId | None] = ContextVar("floop_gateway_request_id", default=None)


class RequestIdFilter(logging.Filter):
    """Gives each line of a handler a `request_id`, which is "-" outside of requests.

    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(levelname)s %(request_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id; pass every line."""
        record.request_id = request_id.get() or "-"
        return True
