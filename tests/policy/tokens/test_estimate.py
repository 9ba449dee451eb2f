"""The estimator's promises: bounds, order, steadiness. How near it comes is the benchmark's to measure."""

import io
import json
import os
import random
import subprocess
import sys
import unicodedata
import zipfile
from importlib.resources import files
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floop_gateway_core.policy.tokens import tables as _tokens
from floop_gateway_core.policy.tokens.estimate import (
    EXACT_CHARACTERS,
    VOCABULARIES,
    TokenEstimate,
    UnknownVocabulary,
    _windows,
    estimate_messages,
    estimate_tokens,
    fits,
)
from floop_gateway_core.types import Message

any_text = st.text(st.characters(), max_size=300)  # lone surrogates and NUL among them
likely_text = st.text(st.sampled_from("aeth AZ09\n\t.,{}-é中文字ひらカナ한국Яшعربहिन😀\u0301\ud800\x00"), max_size=400)
texts = st.one_of(any_text, likely_text)
vocabularies = st.sampled_from(VOCABULARIES)

HOSTILE = {
    "letters": "a" * 3000,
    "spaces": " " * 3000,
    "newlines": "\n" * 3000,
    "digits": "7" * 3000,
    "dashes": "-" * 3000,
    "alternating": "a1" * 1500,
    "marks": "e" + "\u0301\u0316" * 1500,
    "private": "\ue123\uf456" * 1500,
    "astral": "\U000f1234" * 2000,
    "surrogates": "\ud800" * 2000,
    "nul": "\0" * 2000,
    "one-letter-words": "q " * 1500,
}


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many cells each look-up in a table had."""
    counts: list[int] = []
    real = _tokens._cells

    def count(low: bytes, high: bytes) -> memoryview:
        counts.append(len(low))
        return real(low, high)

    monkeypatch.setattr(_tokens, "_cells", count)
    return counts


def byte_length(text: str, vocabulary: str) -> int:
    if vocabulary == "claude":
        text = unicodedata.normalize("NFKC", text)
    return len(text.encode("utf-8", "surrogatepass"))


@given(texts, vocabularies)
def test_any_text_has_an_estimate_between_zero_and_its_bytes(text: str, vocabulary: str) -> None:
    estimate = estimate_tokens(text, vocabulary)
    assert 0 <= estimate.expected <= estimate.upper <= byte_length(text, vocabulary)


@given(texts, texts, vocabularies)
def test_appending_never_lowers_upper(text: str, more: str, vocabulary: str) -> None:
    assert estimate_tokens(text, vocabulary).upper <= estimate_tokens(text + more, vocabulary).upper


@settings(max_examples=25, deadline=None)
@given(texts, texts, vocabularies)
def test_appending_to_a_long_text_never_lowers_upper(text: str, more: str, vocabulary: str) -> None:
    long = ((text or "x") * EXACT_CHARACTERS)[: EXACT_CHARACTERS - len(more)]
    assert estimate_tokens(long, vocabulary).upper <= estimate_tokens(long + more, vocabulary).upper


@settings(max_examples=25, deadline=None)
@given(texts, vocabularies, st.integers(1, 80_000))
def test_no_long_text_has_less_upper_than_its_beginning(text: str, vocabulary: str, extra: int) -> None:
    unit = text or "word "
    head = (unit * EXACT_CHARACTERS)[:EXACT_CHARACTERS]
    whole = head + " " * extra
    assert estimate_tokens(whole, vocabulary).upper >= estimate_tokens(head, vocabulary).upper


@given(texts, vocabularies)
def test_the_same_text_has_the_same_estimate(text: str, vocabulary: str) -> None:
    first = estimate_tokens(text, vocabulary)
    estimate_tokens("something else entirely", vocabulary)
    assert first == estimate_tokens(text, vocabulary)


def test_another_process_with_another_hash_seed_gives_the_same_estimates() -> None:
    program = (
        "from floop_gateway_core.policy.tokens.estimate import VOCABULARIES, estimate_tokens as e;"
        "print([e('Grüße 世界 {\"a\": 1}\\n' * n, v) for v in VOCABULARIES for n in (1, 50, 4000)])"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_ten_million_characters_are_no_trouble(vocabulary: str) -> None:
    estimate = estimate_tokens("plain words " * 833_334, vocabulary)
    assert 1_000_000 < estimate.expected <= estimate.upper < 5_000_000


@pytest.mark.parametrize("name", HOSTILE)
def test_doubling_hostile_text_doubles_the_cells_looked_up(name: str, looked_up: list[int]) -> None:
    text = HOSTILE[name]
    estimate_tokens(text)
    once = sum(looked_up)
    looked_up.clear()
    estimate_tokens(text * 2)
    assert sum(looked_up) == 2 * once
    looked_up.clear()
    estimate_tokens(text * 200)
    assert sum(looked_up) <= 4 * 2 * EXACT_CHARACTERS + 4 * 4000


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", ["private", "astral", "surrogates", "marks"])
def test_what_looks_like_nothing_known_goes_near_its_bytes(name: str, vocabulary: str) -> None:
    text = HOSTILE[name]
    assert estimate_tokens(text, vocabulary).upper >= 0.5 * byte_length(text, vocabulary)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_dense_block_hidden_in_cheap_text_is_seen(vocabulary: str) -> None:
    cheap = "the cat sat on the mat. " * 10_000
    dense = "".join(chr(0xE000 + i * 7919 % 6000) for i in range(20_000))
    hidden = estimate_tokens(cheap + dense + cheap, vocabulary)
    plain = estimate_tokens(cheap + cheap, vocabulary)
    assert hidden.upper >= plain.expected + 1.5 * len(dense)


def test_a_long_text_is_estimated_like_its_parts() -> None:
    parts = [
        "def f(x):\n    return x + 1\n" * 900,
        "Le chat est sur la table. " * 900,
        '{"id": 12345, "ok": true}\n' * 900,
    ]
    separate = sum(estimate_tokens(part).expected for part in parts)
    joined = estimate_tokens("".join(parts)).expected
    assert joined == pytest.approx(separate, rel=0.15)


def test_an_empty_text_has_no_tokens() -> None:
    assert estimate_tokens("") == TokenEstimate(0, 0)


@pytest.mark.parametrize("text", ["", "Hello, world!", "x" * 50_000])
def test_an_unknown_vocabulary_is_an_error_that_lists_the_known(text: str) -> None:
    for call in (
        lambda: estimate_tokens(text, "o2000k"),
        lambda: estimate_messages([], None, "o2000k"),
        lambda: fits(text, 10, "o2000k"),
    ):
        with pytest.raises(UnknownVocabulary) as caught:
            call()
        assert isinstance(caught.value, ValueError)
        assert all(name in str(caught.value) for name in ("o2000k", *VOCABULARIES))


@given(st.lists(st.builds(Message.of, st.sampled_from(["user", "assistant"]), texts), max_size=5), vocabularies)
def test_each_message_adds_the_chat_formats_own_tokens(messages: list[Message], vocabulary: str) -> None:
    chat = estimate_messages(messages, None, vocabulary)
    plain = sum(estimate_tokens(message.text, vocabulary).expected for message in messages)
    assert plain + 2 * len(messages) <= chat.expected <= chat.upper
    with_system = estimate_messages(messages, "Be brief.", vocabulary)
    assert with_system.expected > chat.expected
    assert with_system.upper > chat.upper


def test_many_long_messages_are_sampled_as_one() -> None:
    messages = [Message.of("user", "some words to read " * 1000)] * 20
    one = estimate_tokens("some words to read " * 20_000)
    chat = estimate_messages(messages)
    assert chat.expected == pytest.approx(one.expected, rel=0.02)


@given(texts, st.integers(0, 1000), vocabularies)
def test_fits_agrees_with_expected(text: str, limit: int, vocabulary: str) -> None:
    assert fits(text, limit, vocabulary) == (estimate_tokens(text, vocabulary).expected <= limit)


@pytest.mark.parametrize(("text", "answer"), [("abc" * 100, True), ("a" * 10_300_000, False)])
def test_fits_does_not_estimate_where_the_length_decides(
    text: str, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floop_gateway_core.policy.tokens.estimate.add_up", None)
    assert fits(text, 10_000) is answer


@pytest.mark.parametrize(
    ("text", "vocabulary", "low", "high"),
    [
        ("The quick brown fox jumps over the lazy dog. " * 20, "o200k", 160, 240),
        ("1234567890" * 30, "o200k", 90, 115),
        ("1234567890" * 30, "qwen3", 280, 310),
        ("我们今天去公园散步，然后一起吃午饭。" * 20, "o200k", 200, 360),
    ],
)
def test_familiar_texts_have_about_their_tokens(text: str, vocabulary: str, low: int, high: int) -> None:
    assert low <= estimate_tokens(text, vocabulary).expected <= high


def test_every_cost_is_at_least_zero_and_every_class_is_known() -> None:
    for vocabulary in VOCABULARIES:
        costs = _tokens.load_costs(vocabulary)
        sizes = [(costs.pairs, 65536), (costs.triples, 32768), (costs.places, 16384), (costs.hashes, 65536)]
        for table, size in sizes:
            assert len(table) == size
            assert min(table) >= 0
        assert costs.margin[0] >= 1
    assert len(_tokens.load_classes().of_character) == 0x110000


def test_the_table_is_small_and_readable() -> None:
    raw = files("floop_gateway_core.policy.tokens").joinpath("tables/estimate.zip").read_bytes()
    assert len(raw) <= 150_000
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("about.json"))["vocabularies"] == list(VOCABULARIES)


def test_runs_are_placed_by_their_length() -> None:
    codes = b"abccc" + b" " * 70
    kinds = codes.translate(_tokens.load_classes().kind)
    places = [place & 15 for place in _tokens._places(codes, kinds)]
    assert places[:5] == [0, 1, 2, 3, 4]
    spaces = places[5:]
    expected = [min(i, 12) + (i >= 16) + (i >= 32) + (i >= 64) for i in range(70)]
    assert spaces == expected


# True counts by the real tokenizers, taken once; a run of one sign is the cheapest way to look cheap.
RUNS = {
    ("7", "o200k"): 1667, ("t", "o200k"): 2500, ("J", "o200k"): 2500, ("{", "o200k"): 2500, ("Z", "o200k"): 2500,
    ("好", "o200k"): 5000, ("7", "qwen3"): 5000, ("q", "cl100k"): 2500, ("._", "o200k"): 2500, (" \t", "o200k"): 2499,
    ("é7", "o200k"): 5000,
}  # fmt: skip


@pytest.mark.parametrize(("sign", "vocabulary"), list(RUNS))
def test_a_long_run_is_never_held_too_cheap(sign: str, vocabulary: str) -> None:
    text = (sign * 5000)[:5000]
    assert estimate_tokens(text, vocabulary).upper >= RUNS[sign, vocabulary]
    assert estimate_tokens("The report says that " + text[:500], vocabulary).upper >= RUNS[sign, vocabulary] / 10


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_no_run_of_a_printable_sign_is_free(vocabulary: str) -> None:
    """The most that a vocabulary puts into one token of a run is a few hundred signs."""
    for code in range(33, 127):
        short, long = (estimate_tokens(chr(code) * length, vocabulary).upper for length in (500, 5000))
        assert long > short + 8


def test_what_takes_turns_counts_only_behind_a_long_alternation() -> None:
    assert (
        0 == _tokens.add_up(_tokens.classes_of("a good day, and a long one"), _tokens.load_costs("o200k")).alternating
    )
    assert (
        100 - 18 <= _tokens.add_up(_tokens.classes_of("._" * 50), _tokens.load_costs("o200k")).alternating <= 100 - 15
    )
    assert 0 == _tokens.add_up(_tokens.classes_of("." * 100), _tokens.load_costs("o200k")).alternating


@pytest.mark.parametrize("unit", ["12345678 12345678901234\n\n", "".join(map(chr, range(0xE000, 0xE018))) + " "])
def test_no_period_of_a_long_text_hides_from_the_sample(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    share = estimate_tokens(text[:EXACT_CHARACTERS]).expected / EXACT_CHARACTERS
    for turn in range(len(unit)):
        found = estimate_tokens(text[turn:])
        assert found.expected == pytest.approx(share * len(text), rel=0.15)
        assert found.upper >= share * len(text)


def test_long_runs_of_combining_marks_are_normalised_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """NFKC sorts a run of marks by insertion, in the square of its length."""
    lengths: list[int] = []

    def measured(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
        lengths.append(len(text))
        return normalize(form, text)

    normalize = unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", measured)
    for text in ("a" + "\u0301\u0316" * 9_000, "\u0316\u0301" * 100_000):
        estimate_tokens(text, "claude")
    assert lengths
    assert max(lengths) <= 520


def test_many_tiny_messages_are_estimated_as_one_text(looked_up: list[int]) -> None:
    chat = estimate_messages([Message.of("user", "x")] * 10_000)
    assert chat.expected >= 4 * 10_000
    assert len(looked_up) <= 4


SCRIPTS = {
    "Greek": (0x03B1, 25), "Hebrew": (0x05D0, 27), "Arabic": (0x0627, 20), "Devanagari": (0x0905, 50),
    "Bengali": (0x0995, 30), "Tamil": (0x0B95, 20), "Telugu": (0x0C05, 50), "Sinhala": (0x0D9A, 30),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_letters_of_one_script_at_random_are_held_at_what_letters_cost(script: str) -> None:
    first, count = SCRIPTS[script]
    chance = random.Random(script)
    text = "".join(chr(first + chance.randrange(count)) for _ in range(12_000))
    bytes_ = len(text.encode())
    for vocabulary in ("o200k", "cl100k", "qwen3"):
        estimate = estimate_tokens(text, vocabulary)
        assert estimate.upper == bytes_, vocabulary  # no token is shorter than a byte
        assert estimate.expected >= 0.39 * bytes_
    assert not fits(text, 4000)


def test_words_of_a_script_are_estimated_as_words() -> None:
    text = "మానవులందరు స్వతంత్రులుగా పుట్టినారు. అందరికీ సమాన గౌరవము, హక్కులు కలవు. " * 40
    estimate = estimate_tokens(text)
    assert estimate.upper < 0.3 * len(text.encode())


def test_where_a_long_text_is_sampled_depends_on_all_of_it() -> None:
    text = "The cat sat on the mat and looked at the moon. " * 12_000
    places = {tuple(_windows(text + end, EXACT_CHARACTERS)[:3]) for end in ("", "a", "b", "c")}
    assert len(places) == 4
    assert estimate_tokens(text) == estimate_tokens(text)
