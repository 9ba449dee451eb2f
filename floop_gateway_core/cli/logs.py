"""What `serve` and `demo` show of the log `floop_gateway`: lines for people, or one JSON object a line."""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

from floop_gateway_core.observability.request_id import request_id
from floop_gateway_core.types import UsageRecord

__all__ = ["show_log"]


def show_log(form: Literal["text", "json"]) -> None:
    """Write the log to standard error, from INFO on; as JSON, the server's own lines too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else logging.Formatter("%(levelname)s:     %(message)s"))
    for name in ("floop_gateway", "uvicorn") if form == "json" else ("floop_gateway",):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)


class _Json(logging.Formatter):
    """`time`, `level`, `message` and, if there is one, `request_id`; the line of a request has the fields of its record."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, object] = {"time": time, "level": record.levelname, "message": record.getMessage()}
        if (id := request_id.get()) is not None:
            line["request_id"] = id
        usage = getattr(record, "usage", None)
        if isinstance(usage, UsageRecord):
            line |= usage.as_json()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
