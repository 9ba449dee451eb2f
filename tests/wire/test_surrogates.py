"""Text that was cut within a character comes out whole, and always as valid UTF-8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.wire.surrogates import SurrogateJoiner, mend

ANY = st.text(st.sampled_from("ab é😀\ufffd\ud83d\ude00\udbff\udfff\ud800\udc00"), max_size=20)


def joined(texts: list[str]) -> list[str]:
    joiner = SurrogateJoiner()
    return [*map(joiner.feed, texts), joiner.flush()]


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("", ""),
        ("plain", "plain"),
        ("é😀", "é😀"),
        ("\ud83d\ude00", "😀"),
        ("\ud800\udc00\udbff\udfff", "\U00010000\U0010ffff"),
        ("\ud83d", "\ufffd"),
        ("\ude00", "\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
        ("a\ud83db", "a\ufffdb"),
    ],
)
def test_pairs_are_joined_and_halves_are_replaced(text: str, mended: str) -> None:
    assert mended == mend(text)


@pytest.mark.parametrize(
    ("texts", "out"),
    [
        (["a\ud83d", "\ude00b"], ["a", "😀b", ""]),
        (["\ud83d", "", "\ude00"], ["", "", "😀", ""]),
        (["\ud83d", "b"], ["", "\ufffdb", ""]),
        (["\ud83d", "\ud83d", "\ude00"], ["", "\ufffd", "😀", ""]),
        (["a\ud83d"], ["a", "\ufffd"]),
        (["\ude00"], ["\ufffd", ""]),
        ([], [""]),
    ],
)
def test_a_half_waits_for_the_next_text(texts: list[str], out: list[str]) -> None:
    assert out == joined(texts)


@given(ANY, st.lists(st.integers(0, 20), max_size=6))
def test_where_a_text_is_cut_does_not_matter(text: str, cuts: list[int]) -> None:
    at = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in zip(at, at[1:], strict=False)]
    assert mend(text) == "".join(joined(pieces))


@given(st.lists(ANY))
def test_every_piece_is_valid_utf_8(texts: list[str]) -> None:
    for text in joined(texts):
        text.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_that_is_whole_stays_as_it_is(text: str) -> None:
    assert text == mend(text)


def test_a_joiner_that_was_flushed_holds_nothing() -> None:
    joiner = SurrogateJoiner()
    joiner.feed("\ud83d")
    assert ["\ufffd", ""] == [joiner.flush(), joiner.flush()]
