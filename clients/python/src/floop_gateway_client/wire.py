"""Between calls and bytes: requests out, answers and frames in. No I/O."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from floop_gateway_client.errors import FloopError, StreamCut, from_response, of_code, retry_after_ms
from floop_gateway_client.values import Answer, Usage

__all__ = ["Frames", "answer", "headers", "loads", "refusal", "retry_delay_s", "without_none"]

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 8.0
LONGEST_WAIT_S = 60.0
"""If the server asks for a longer wait, the error is raised and the caller decides."""
MAY_HELP = frozenset({408, 409, 429, 502, 503, 504})


def headers(api_key: str) -> dict[str, str]:
    """Return the headers of one call, which all its tries share."""
    return {
        "Authorization": f"Bearer {api_key}",
        "Content-Type": "application/json",
        "Idempotency-Key": uuid.uuid4().hex,
    }


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are there."""
    return {name: value for name, value in fields.items() if value is not None}


def loads(data: str | bytes) -> Any:
    """Parse JSON with exact numbers."""
    return json.loads(data, parse_float=Decimal)


def answer(body: bytes, found: Mapping[str, str], status: int) -> Answer:
    """Return the answer of a 200."""
    try:
        value = loads(body)
        return Answer(
            value["content"], value["model"], Usage.of(value["usage"]), value["finishReason"], found.get("x-request-id")
        )
    except (ValueError, KeyError, TypeError, ArithmeticError):
        raise FloopError("the response is not from the gateway", "UNKNOWN", status, found.get("x-request-id")) from None


def refusal(status: int, found: Mapping[str, str], body: bytes) -> FloopError:
    """Return the error of an answer that is not a 200."""
    return from_response(status, found, body)


def retry_delay_s(status: int, found: Mapping[str, str], tries: int) -> float | None:
    """Return how long to wait before the next try, or None if another try cannot help."""
    says = found.get("x-should-retry", "").lower()
    if says == "false" or (says != "true" and status not in MAY_HELP):
        return None
    asked = retry_after_ms(found)
    if asked is not None:
        return asked / 1000 if asked <= LONGEST_WAIT_S * 1000 else None
    if status == 409:  # without a time to wait it will not change
        return None
    return backoff_s(tries)


def backoff_s(tries: int) -> float:
    """Return a delay that doubles with each try, with jitter."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**tries) * (0.5 + random.random() / 2)


class Frames:
    """Decodes a stream: feed it bytes, and it yields texts; `end` raises if the stream is incomplete."""

    def __init__(self, request_id: str | None) -> None:
        self.request_id = request_id
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self._rest = b""
        self._done = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the texts of the frames that are complete; raise `FloopError` for an error frame."""
        *events, self._rest = (self._rest + chunk).split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data:"):
                    text = self._frame(line[5:].strip())
                    if text is not None:
                        yield text

    def _frame(self, data: bytes) -> str | None:
        if data == b"[DONE]":
            self._done = True
            return None
        try:
            value = loads(data)
            if "text" in value:
                return str(value["text"])
            if "usage" in value:
                self.usage = Usage.of(value["usage"])
            self.finish_reason = value.get("finishReason")
            error = value.get("error")
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            raise StreamCut("a frame of the stream cannot be read", "STREAM_CUT", 200, self.request_id) from None
        if error is not None:
            raise of_code(str(value.get("code", "UNKNOWN")), str(error), 200, self.request_id)
        return None

    def end(self) -> None:
        """Raise `StreamCut` unless the stream has come to its end."""
        if not self._done:
            raise StreamCut("the stream ended before it was complete", "STREAM_CUT", 200, self.request_id)

    @property
    def done(self) -> bool:
        """Return whether the end has come."""
        return self._done
