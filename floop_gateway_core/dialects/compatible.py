"""What the two compatible dialects share: the key, ids, tags, and the list of models that both vendors' SDKs read."""

import json
from collections.abc import Mapping, Sequence

from floop_gateway_core.dialects.fields import MAX_MESSAGES, MAX_PARTS, Fields
from floop_gateway_core.dialects.headers import JSON
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.types import RequestId, TextPart
from floop_gateway_core.wire import keys
from floop_gateway_core.wire.messages import GatewayRequest, Headers

__all__ = ["CompatibleFields", "created_at", "id_part", "key_of", "model_list"]

LIST = "/v1/models"
MAX_TAGS = 16
MAX_TAG_NAME = 64
MAX_TAG_VALUE = 512
MAX_STOPS = 16
_BASE32 = {digit: value for value, digit in enumerate("0123456789abcdefghjkmnpqrstvwxyz")}


def key_of(request: GatewayRequest) -> str | None:
    """Return the key of `Authorization: Bearer`, else of `x-api-key`."""
    key = keys.from_header(request.header("authorization"))
    if key is not None:
        return key
    values = request.header("x-api-key")
    return values[0] if len(values) == 1 and keys.well_formed(values[0]) else None


def id_part(request_id: RequestId) -> str:
    """Return what is unique in a request's id."""
    return request_id.removeprefix("req_")


def created_at(request_id: RequestId) -> int:
    """Return the time at which a request arrived, in epoch seconds, as encoded in its id.

    >>> created_at(RequestId("req_01m8f1bednp6fsks21g1wxy3wb"))
    1795801070
    """
    ms = 0
    for digit in id_part(request_id)[:10]:
        ms = ms << 5 | _BASE32[digit]
    return ms // 1000


def model_list(path: str, names: Sequence[str]) -> tuple[Headers, bytes] | Refusal:
    """Answer `/v1/models` and `/v1/models/{id}` in one body that both vendors' SDKs read."""
    models = [_model(name) for name in dict.fromkeys(names)]
    if path == LIST:
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
        value: object = {"object": "list", "data": models, "has_more": False, **ends}
    else:
        wanted = path.rpartition("/")[2]
        found = next((model for model in models if model["id"] == wanted), None)
        if found is None:
            return Refusal(ErrorCode.NOT_FOUND, "Unknown model. GET /v1/models lists the models that this key may use.")
        value = found
    body = json.dumps(value).encode()
    return JSON, body


def _model(name: str) -> dict[str, object]:
    return {
        "id": name, "object": "model", "type": "model", "created": 0, "owned_by": "floop-gateway", "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }  # fmt: skip


class CompatibleFields(Fields):
    """Fields as both vendors write them. Unsupported fields are refused by name, never silently dropped."""

    def refuse_unless(self, name: str, *defaults: object) -> None:
        """Refuse a member that is neither absent, null, empty, nor one of its vendor's defaults."""
        if not self._is_default(name, defaults):
            self.fault(name, "is not supported by this gateway")

    def ignore_unless(self, name: str, *defaults: object) -> None:
        """Name a member among the ignored ones unless `refuse_unless` would let it pass."""
        if not self._is_default(name, defaults):
            self._unread.add(name)

    def _is_default(self, name: str, defaults: tuple[object, ...]) -> bool:
        value = self.value.get(name)
        return value is None or value in ([], {}) or any(value is one or value == one for one in defaults)

    def strings(self, name: str, most: int = MAX_STOPS) -> tuple[str, ...]:
        """Return a string, or an array of non-empty strings, as a tuple."""
        value = self.value.get(name)
        if value is None:
            return ()
        found = [value] if isinstance(value, str) else value
        if (
            not isinstance(found, list)
            or len(found) > most
            or not all(isinstance(one, str) and 0 < len(one) <= MAX_TAG_VALUE for one in found)
        ):
            self.fault(
                name, f"must be a string or an array of at most {most} strings of 1 to {MAX_TAG_VALUE} characters"
            )
            return ()
        return tuple(str(one) for one in found)

    def turns(self) -> list[Mapping[str, object]]:
        """Return the messages as objects with a role and a content, of any kind."""
        value = self.value.get("messages")
        if not isinstance(value, list):
            self.fault("messages", "is required" if value is None else "must be an array")
            return []
        if not 1 <= len(value) <= MAX_MESSAGES:
            self.fault(
                "messages",
                "must hold at least one message" if not value else f"must hold at most {MAX_MESSAGES} messages",
            )
            return []
        parts = sum(
            len(one["content"]) for one in value if isinstance(one, dict) and isinstance(one.get("content"), list)
        )
        if parts > MAX_PARTS:
            self.fault("messages", f"must hold at most {MAX_PARTS} parts in all")
            return []
        for index, one in enumerate(value):
            if not isinstance(one, dict):
                self.fault(f"messages[{index}]", "must be an object with role and content")
                return []
        return value

    def texts(self, path: str, content: object, kinds: Mapping[str, str | None]) -> tuple[TextPart, ...]:
        """Return a string, or the text of an array of parts.

        `kinds` has the member that holds the text of each kind of part; None: the kind is left out.
        """
        if isinstance(content, str):
            return (TextPart(content),)
        if not isinstance(content, list):
            self.fault(path, "is required" if content is None else "must be a string or an array of parts")
            return ()
        found = []
        for index, part in enumerate(content):
            place = f"{path}[{index}]"
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(part, dict) or not isinstance(kind, str):
                self.fault(place, "must be an object with a type")
                return ()
            if kind not in kinds:
                self.fault(
                    f"{place}.type", f"must be {' or '.join(kinds)}; no other parts are supported by this gateway"
                )
                return ()
            member = kinds[kind]
            if member is None:
                continue
            text = part.get(member)
            if not isinstance(text, str):
                self.fault(f"{place}.{member}", "must be a string")
                return ()
            found.append(TextPart(text))
        return tuple(found)

    def tags(self, user: object, metadata: object = None) -> tuple[tuple[str, str], ...]:
        """Return the client's own names for a request: its user, and other strings."""
        found: dict[str, object] = dict(metadata) if isinstance(metadata, dict) else {}
        if metadata is not None and not isinstance(metadata, dict):
            self.fault("metadata", "must be an object of strings")
        if user is not None:
            found["user"] = user
        if len(found) > MAX_TAGS:
            self.fault("metadata", f"must hold at most {MAX_TAGS} strings")
            return ()
        for name, value in found.items():
            if not isinstance(value, str) or len(name) > MAX_TAG_NAME or len(value) > MAX_TAG_VALUE:
                self.fault(
                    "user" if name == "user" else "metadata", f"must be strings of at most {MAX_TAG_VALUE} characters"
                )
                return ()
        return tuple((name, str(value)) for name, value in found.items())
