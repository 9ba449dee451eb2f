"""The gateway's own error envelope: `{"error": {"code": …, "message": …}}` (contract: Errors)."""

import json

from floop_gateway_core.errors import Refusal

__all__ = ["envelope"]


def envelope(refusal: Refusal) -> bytes:
    """Return the JSON body of a refusal.

    >>> from floop_gateway_core.errors import ErrorCode
    >>> envelope(Refusal(ErrorCode.RATE_LIMITED, "Too many."))
    b'{"error": {"code": "RATE_LIMITED", "message": "Too many."}}'
    """
    error: dict[str, object] = {"code": refusal.code.value, "message": refusal.message}
    if refusal.fields:
        error["fields"] = [{"path": field.path, "message": field.message} for field in refusal.fields]
    return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")
