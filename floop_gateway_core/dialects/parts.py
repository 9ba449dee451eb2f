"""What both vendors' messages may contain besides text: images, tools, schemas. Each error names its path."""

import json
import re
from collections.abc import Mapping

from floop_gateway_core.dialects.compatible import CompatibleFields
from floop_gateway_core.types import Capability, ImagePart, Wish

__all__ = ["MEDIA_TYPES", "PartFields"]

MEDIA_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MAX_TOOLS = 1024
_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,(.*)", re.DOTALL | re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]+={0,2}\s*")
TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class PartFields(CompatibleFields):
    """Fields of a body that may ask for more than text; `needs` collects what the deployment must be able to do."""

    def __init__(self, value: Mapping[str, object]) -> None:
        super().__init__(value)
        self.needs: dict[Capability, str] = {}
        self.wishes: list[tuple[Wish, str]] = []

    def need(self, capability: Capability, path: str) -> None:
        """Note that a deployment must be able to do something; the first field that asks for it is named."""
        self.needs.setdefault(capability, path)

    def wish(self, wish: Wish, *names: str) -> None:
        """Record which of these members the body contains; a deployment may not support them."""
        self.wishes += [(wish, name) for name in names if self.value.get(name) is not None]

    def image(self, path: str, media_type: object, data: object, detail: str | None = None) -> ImagePart | None:
        """Return an image of base64."""
        self.need("images", path)
        if media_type not in MEDIA_TYPES:
            self.fault(path, f"must be one of {', '.join(MEDIA_TYPES)}")
        elif not isinstance(data, str) or not _BASE64.fullmatch(data):
            self.fault(path, "must be an image in base64")
        else:
            return ImagePart(None, str(media_type), "".join(data.split()), detail)
        return None

    def image_url(self, path: str, url: object, detail: object = None) -> ImagePart | None:
        """Return the image of a `data:` or `https` URL."""
        self.need("images", path)
        wanted = detail if detail in ("low", "high", "auto") else None
        if isinstance(url, str) and (found := _DATA_URL.fullmatch(url)):
            media_type = found[1].lower()
            return self.image(path, "image/jpeg" if media_type == "image/jpg" else media_type, found[2], wanted)
        if not isinstance(url, str) or not url.startswith("https://") or not url.isprintable() or " " in url:
            self.fault(path, "must be a base64 data: URL or an https URL")
            return None
        return ImagePart(url, detail=wanted)

    def tool_name(self, path: str, value: object) -> str:
        """Return the name of a tool."""
        if not isinstance(value, str) or not TOOL_NAME.fullmatch(value):
            self.fault(path, "must be 1 to 128 letters, digits, _, ., : or -")
            return ""
        return value

    def schema(self, path: str, value: object) -> str | None:
        """Return a JSON schema as text."""
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fault(path, "must be a JSON schema object")
            return None
        return json.dumps(value, ensure_ascii=False)

    def text_member(self, path: str, value: object) -> str | None:
        """Return an optional string of an object within the body."""
        if value is None or isinstance(value, str):
            return value
        self.fault(path, "must be a string")
        return None

    def flag_member(self, path: str, value: object) -> bool | None:
        """Return an optional boolean of an object within the body."""
        if value is None or isinstance(value, bool):
            return value
        self.fault(path, "must be true or false")
        return None

    def objects(self, name: str, most: int = MAX_TOOLS) -> list[Mapping[str, object]]:
        """Return an array of objects; absent, null and empty are the same."""
        value = self.value.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            self.fault(name, f"must be an array of at most {most} objects")
            return []
        for index, one in enumerate(value):
            if not isinstance(one, dict):
                self.fault(f"{name}[{index}]", "must be an object")
                return []
        return value
