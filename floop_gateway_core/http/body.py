"""Reads a request's body, within a size and a time; and drops what a refused client still sends.

The body is read only after key and rate are settled, so the body of an unknown caller is never kept.
"""

import anyio

from floop_gateway_core.concurrency.wait import block_limit
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.wire.messages import BodyReader, ClientDisconnected, GatewayRequest, MalformedBody

__all__ = ["drain", "may_have_body", "read_body"]

DRAIN_BYTES = 64 * 1024 * 1024
"""The maximum number of bytes to read and discard from a refused body."""
DRAIN_TIMEOUT_S = 5.0
"""How long a refused client may keep sending."""


async def read_body(request: GatewayRequest, *, cap_bytes: int, limit_s: float) -> bytes | Refusal:
    """Return the whole body, or the refusal of one that is too long or too slow. Raises `ClientDisconnected`."""
    if any(coding not in ("", "identity") for coding in _codings(request)):
        return Refusal(
            ErrorCode.INVALID_BODY, "The body must not be compressed. Send it without a Content-Encoding header."
        )
    if _declared(request) > cap_bytes:
        return _too_long(cap_bytes)
    if isinstance(request.body, bytes):
        return request.body if len(request.body) <= cap_bytes else _too_long(cap_bytes)
    body = bytearray()
    try:
        with block_limit(limit_s):
            while chunk := await request.body.read():
                body += chunk
                if len(body) > cap_bytes:
                    return _too_long(cap_bytes)
            return bytes(body)
    except MalformedBody:
        return Refusal(ErrorCode.INVALID_BODY, "The request body's chunked encoding is malformed.")
    return Refusal(ErrorCode.INVALID_BODY, f"The request body was not received within {limit_s:g} s.")


def _codings(request: GatewayRequest) -> list[str]:
    return [one.strip().lower() for value in request.header("content-encoding") for one in value.split(",")]


def _declared(request: GatewayRequest) -> int:
    lengths = request.header("content-length")
    return int(lengths[0]) if lengths and lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) < 19 else 0


def _too_long(cap_bytes: int) -> Refusal:
    return Refusal(ErrorCode.INPUT_TOO_LARGE, f"The body is longer than {cap_bytes} bytes. Send a shorter input.")


def may_have_body(request: GatewayRequest) -> bool:
    """Return whether a client may still be sending. HTTP/1 says so in a header, HTTP/2 need not."""
    return not isinstance(request.body, bytes) and request.header("content-length") != ["0"]


async def drain(body: bytes | BodyReader) -> None:
    """Read and drop the rest, so that the client sees the answer and not a reset connection."""
    if isinstance(body, bytes):
        return
    left = DRAIN_BYTES
    try:
        with anyio.move_on_after(DRAIN_TIMEOUT_S):
            while left > 0 and (chunk := await body.read()):
                left -= len(chunk)
    except (ClientDisconnected, MalformedBody):
        pass
