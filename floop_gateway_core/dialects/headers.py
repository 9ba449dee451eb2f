"""The headers of an answer, which are the same in every dialect."""

from floop_gateway_core.types import Call, Started
from floop_gateway_core.wire.messages import Headers
from floop_gateway_core.wire.sse import STREAM_HEADERS

__all__ = ["answer_headers"]


def answer_headers(call: Call, started: Started | None) -> Headers:
    """Return the content type, the deployment that serves, and the fields that were ignored."""
    kind = STREAM_HEADERS if call.stream else (("Content-Type", "application/json"),)
    served = () if started is None else (("X-Gateway-Model", started.deployment),)
    ignored = (("X-Gateway-Ignored", ", ".join(call.ignored)),) if call.ignored else ()
    return (*kind, *served, *ignored)
