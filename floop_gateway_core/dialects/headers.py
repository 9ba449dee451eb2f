"""The headers of answers and errors, which are the same in every dialect."""

from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call, Started
from floop_gateway_core.wire.messages import Headers
from floop_gateway_core.wire.sse import STREAM_HEADERS

__all__ = ["JSON", "answer_headers", "error_headers"]

JSON = (("Content-Type", "application/json"),)


def answer_headers(call: Call, started: Started | None) -> Headers:
    """Return the content type, the deployment that serves, and the fields that were ignored."""
    kind = STREAM_HEADERS if call.stream else JSON
    served = () if started is None else (("X-Gateway-Model", started.deployment),)
    ignored = (("X-Gateway-Ignored", ", ".join(call.ignored)),) if call.ignored else ()
    return (*kind, *served, *ignored)


def error_headers(refusal: Refusal, body: bytes) -> Headers:
    """Return the headers of a refusal whose envelope is `body`."""
    return (*JSON, ("Content-Length", str(len(body))), *refusal.headers)
