"""Keys: which header carries one, what is kept of it, and what is shown."""

import hashlib

import pytest

from floop_gateway_core.wire.keys import KEY_ALPHABET, KEY_LENGTH, digest, from_header, short

KEY = "flp_sk_" + (KEY_ALPHABET * 2)[:KEY_LENGTH]


def test_a_key_has_at_least_190_random_bits() -> None:
    assert len(set(KEY_ALPHABET)) ** KEY_LENGTH >= 2**190


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_case_insensitive(scheme: str) -> None:
    assert KEY == from_header([f"{scheme} {KEY}"])


@pytest.mark.parametrize("value", [f" Bearer {KEY}\t", f"Bearer   {KEY} "])
def test_white_space_around_the_parts_is_no_part_of_them(value: str) -> None:
    assert KEY == from_header([value])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [KEY],
        [f"Basic {KEY}"],
        [f"Bearer{KEY}"],
        [f"Bearer {KEY}x"],
        [f"Bearer {KEY[:-1]}"],
        [f"Bearer {KEY} {KEY}"],
        [f"Bearer {KEY},"],
        [f"Bearer {KEY}\n"],
        [f"Bearer {KEY[:-1]}-"],
        [f"Bearer {KEY[:-1]}é"],
        [f"Bearer {KEY[:-1]}٣"],
        [f"Bearer FLP_SK_{KEY[7:]}"],
        [f"Bearer sk-{KEY[3:]}"],
        [f"Bearer {KEY}", f"Bearer {KEY}"],
        [f"Bearer {KEY}", "Basic x"],
    ],
)
def test_every_other_form_is_no_key(values: list[str]) -> None:
    assert from_header(values) is None


def test_the_digest_is_sha_256() -> None:
    assert hashlib.sha256(KEY.encode()).hexdigest() == digest(KEY)


def test_the_short_form_shows_four_characters_of_the_secret() -> None:
    assert "flp_sk_0123…" == short(KEY)
