"""What images cost, and their size from the first bytes of each format; what cannot be read counts as the largest."""

import base64
import struct

import pytest

from floop_gateway_core.policy.tokens.images import image_size, image_tokens
from floop_gateway_core.types import ImagePart


def image(data: bytes, media_type: str = "image/png") -> ImagePart:
    return ImagePart(None, media_type, base64.b64encode(data).decode())


def png(width: int, height: int) -> ImagePart:
    return image(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", width, height) + b"\x08\x02"
    )


JPEG = (
    b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + bytes(9)
    + b"\xff\xc0" + struct.pack(">HBHH", 17, 8, 480, 640) + bytes(10)
)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (JPEG, (640, 480)),
        (b"GIF89a" + struct.pack("<HH", 30, 20) + bytes(10), (30, 20)),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 100, 50), (100, 50)),
        (b"RIFF\0\0\0\0WEBPVP8L" + bytes(5) + struct.pack("<I", 99 | 49 << 14), (100, 50)),
        (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (99).to_bytes(3, "little") + (49).to_bytes(3, "little"), (100, 50)),
        (b"RIFF\0\0\0\0WEBPXXXX" + bytes(20), None),
        (b"\xff\xd8\xff\xff\xd0" + JPEG[2:], (640, 480)),
        (b"\xff\xd8\x00" + bytes(30), None),
        (b"\xff\xd8\xff\xe0\xff\xff", None),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"GIF89a" + bytes(4), None),
        (b"", None),
    ],
)
def test_the_size_is_read_from_the_first_bytes(data: bytes, size: tuple[int, int] | None) -> None:
    assert size == image_size(image(data))


def test_what_is_no_base64_or_a_url_has_no_size() -> None:
    assert image_size(ImagePart(None, "image/png", "!!!")) is None
    assert image_size(ImagePart("https://x/y.png")) is None


@pytest.mark.parametrize(
    ("part", "vocabulary", "tokens"),
    [
        (png(512, 512), "o200k", 85 + 170),
        (png(1024, 1024), "o200k", 85 + 170 * 4),
        (png(4096, 8192), "o200k", 85 + 170 * 2 * 3),
        (ImagePart("https://x/y.png"), "o200k", 85 + 170 * 16),
        (ImagePart("https://x/y.png", detail="low"), "o200k", 85),
        (png(200, 200), "claude", 54),
        (png(1092, 1092), "claude", 1590),
        (png(8000, 8000), "claude", 1600),
        (ImagePart("https://x/y.png"), "claude", 1600),
        (png(384, 384), "gemini", 258),
        (png(960, 540), "gemini", 516),
        (png(50_000, 50_000), "gemini", 258 * 12),
    ],
)
def test_an_image_costs_what_its_vendor_says(part: ImagePart, vocabulary: str, tokens: int) -> None:
    assert tokens == image_tokens(part, vocabulary)
