"""What an image costs in tokens, by each vendor's formula for its size, which is read from the image's first bytes.

Sources: OpenAI, "Images and vision" (tiles of 512 pixels, 85 + 170 a tile); Anthropic, "Vision" (width × height / 750,
longest edge 1568, at most about 1600); Google, "Image understanding" (258 tokens up to 384 pixels, else 258 a tile of 768).
An image that is only named by a URL, or whose size cannot be read, counts as the largest that the vendor's formula gives.
"""

import base64
import math
import struct

from floop_gateway_core.types import ImagePart

__all__ = ["image_size", "image_tokens"]

HEAD_BYTES = 64 * 1024
"""How much of an image is read: in a JPEG, the size may come after a thumbnail."""
LARGEST = {"claude": 1_600, "gemini": 258 * 12}
LARGEST_IN_TILES = 85 + 170 * 16
"""OpenAI scales to 768 pixels on the short side and 2048 on the long one: at most two by four tiles; twice that is held."""


def image_tokens(part: ImagePart, vocabulary: str) -> int:
    """Return the tokens of an image for the models of a vocabulary."""
    if part.detail == "low" and vocabulary not in LARGEST:
        return 85
    size = image_size(part)
    if size is None:
        return LARGEST.get(vocabulary, LARGEST_IN_TILES)
    width, height = size
    if vocabulary == "claude":
        scale = min(1.0, 1568 / max(width, height))
        return min(LARGEST["claude"], math.ceil(width * scale * height * scale / 750))
    if vocabulary == "gemini":
        if width <= 384 and height <= 384:
            return 258
        return min(LARGEST["gemini"], 258 * math.ceil(width / 768) * math.ceil(height / 768))
    scale = min(1.0, 2048 / max(width, height))
    width, height = width * scale, height * scale
    scale = min(1.0, 768 / min(width, height))
    return 85 + 170 * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


def image_size(part: ImagePart) -> tuple[float, float] | None:
    """Return the width and the height in pixels of a PNG, JPEG, GIF or WebP; None if they cannot be read."""
    if part.url is not None:
        return None
    try:
        head = base64.b64decode(part.data[: HEAD_BYTES // 3 * 4], validate=True)
        size = _png(head) or _gif(head) or _webp(head) or _jpeg(head)
    except (ValueError, struct.error):
        return None
    return size if size is not None and size[0] > 0 and size[1] > 0 else None


def _png(head: bytes) -> tuple[int, int] | None:
    return struct.unpack(">II", head[16:24]) if head.startswith(b"\x89PNG\r\n\x1a\n") else None


def _gif(head: bytes) -> tuple[int, int] | None:
    return struct.unpack("<HH", head[6:10]) if head[:6] in (b"GIF87a", b"GIF89a") else None


def _webp(head: bytes) -> tuple[int, int] | None:
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    if head[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:
            at += 2
        else:
            at += 2 + int(struct.unpack(">H", head[at + 2 : at + 4])[0])
    return None
