"""The estimator's promises: bounds, order, steadiness, and what nobody writes. How near it comes is the benchmark's."""

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
    _chance,
    _windows,
    estimate_messages,
    estimate_tokens,
    fits,
)
from floop_gateway_core.policy.tokens.strange import Apart, set_apart
from floop_gateway_core.types import Message

any_text = st.text(st.characters(), max_size=300)  # lone surrogates and NUL among them
likely_text = st.text(st.sampled_from("aeth AZ09\n\t.,{}-é中文字ひらカナ한국Яшعربहिन😀\u0301\ud800\x00"), max_size=400)
odd_text = st.text(st.sampled_from("ఖఘఙఛఝఞ ຂຄງຈβψξა\u3000\ufeff\u2003e\u0316"), max_size=300)
texts = st.one_of(any_text, likely_text, odd_text)
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
    assert sum(looked_up) <= 2 * once
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
        assert len(costs.alone) == 256
        assert min(costs.alone) >= 0
        assert min(costs.blanks.values()) >= 0
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


# Of 2 000 letters at random (first and last code point), joined and with each fourth a space: true counts of all
# vocabularies, in their order, taken once from the real tokenizers.
LETTERS = {
    ("Greek", 0x3B1, 0x3C9): (
        (1616, 2225, 2644, 1567, 1586, 1597, 1992, 1672),
        (1362, 1838, 2113, 1350, 1332, 1341, 1736, 1387),
    ),
    ("Cyrillic", 0x430, 0x44F): (
        (1433, 1759, 1790, 1548, 1466, 1454, 1596, 1582),
        (1235, 1517, 1532, 1332, 1288, 1311, 1419, 1361),
    ),
    ("Armenian", 0x561, 0x586): (
        (1808, 4000, 4000, 3889, 1921, 1920, 2000, 2285),
        (1444, 3500, 3500, 3430, 1655, 1685, 2000, 1847),
    ),
    ("Hebrew", 0x5D0, 0x5EA): (
        (1445, 2903, 2555, 2903, 1563, 1474, 1402, 1878),
        (1277, 2360, 2130, 2360, 1363, 1308, 1275, 1431),
    ),
    ("Arabic", 0x627, 0x64A): (
        (1774, 2298, 2598, 1851, 1777, 1508, 1576, 1848),
        (1458, 1889, 2265, 1497, 1518, 1320, 1430, 1518),
    ),
    ("Devanagari", 0x905, 0x939): (
        (2231, 3684, 3719, 2500, 2117, 2152, 2326, 2746),
        (1691, 2802, 2845, 1824, 1655, 1708, 2107, 2056),
    ),
    ("Bengali", 0x995, 0x9A8): (
        (1970, 3883, 4000, 3883, 1878, 1989, 2507, 2209),
        (1548, 2939, 3500, 2939, 1512, 1644, 2248, 1689),
    ),
    ("Gurmukhi", 0xA15, 0xA28): (
        (2403, 4000, 5909, 4000, 2388, 2212, 3902, 3588),
        (1865, 3001, 4933, 3001, 2017, 1947, 2965, 2653),
    ),
    ("Gujarati", 0xA95, 0xAA8): (
        (2173, 4000, 6000, 4000, 1972, 2172, 3487, 3616),
        (1687, 3001, 5000, 3001, 1586, 1874, 2757, 2699),
    ),
    ("Oriya", 0xB15, 0xB28): (
        (2622, 6000, 6000, 6000, 2000, 2000, 3820, 3813),
        (2289, 4501, 5000, 4501, 1840, 2000, 3418, 2904),
    ),
    ("Tamil", 0xBAE, 0xBB9): (
        (2155, 4000, 4000, 4000, 1877, 1987, 2351, 2679),
        (1751, 3001, 3500, 3001, 1559, 1838, 2167, 2241),
    ),
    ("Telugu", 0xC05, 0xC39): (
        (2745, 4000, 4000, 4000, 2385, 2330, 3501, 3300),
        (1977, 3001, 3500, 3001, 1918, 1999, 2738, 2492),
    ),
    ("Kannada", 0xC95, 0xCA8): (
        (2401, 4000, 4000, 4000, 1970, 2190, 2894, 3108),
        (1878, 3001, 3500, 3001, 1658, 1983, 2447, 2414),
    ),
    ("Malayalam", 0xD15, 0xD39): (
        (2225, 4000, 4000, 4000, 2181, 2232, 2850, 3191),
        (1737, 3500, 3500, 3488, 1794, 1971, 2909, 2484),
    ),
    ("Sinhala", 0xD9A, 0xDB1): (
        (2923, 4000, 3912, 4000, 2514, 2496, 3081, 3510),
        (2288, 3477, 3432, 3477, 2199, 2277, 3046, 2687),
    ),
    ("Thai", 0xE01, 0xE2E): (
        (2135, 2940, 3956, 2060, 2098, 2021, 1916, 2140),
        (1722, 2713, 2982, 1709, 1775, 1733, 1906, 1893),
    ),
    ("Lao", 0xE99, 0xEA3): (
        (3814, 4000, 6000, 4000, 2336, 2354, 2525, 3814),
        (3395, 3500, 5000, 3500, 2212, 2264, 2762, 3353),
    ),
    ("Tibetan", 0xF40, 0xF47): (
        (4000, 4000, 6822, 4000, 2548, 2548, 2822, 3498),
        (3429, 3500, 5603, 3500, 2402, 2345, 3102, 3118),
    ),
    ("Myanmar", 0x1000, 0x1020): (
        (2535, 4000, 3241, 4000, 2100, 2102, 2250, 3248),
        (1975, 3500, 2620, 3500, 1752, 2035, 2188, 2631),
    ),
    ("Georgian", 0x10D0, 0x10F0): (
        (1721, 4000, 3684, 4000, 1791, 1951, 2145, 2693),
        (1355, 3475, 2835, 3475, 1419, 1813, 2102, 2227),
    ),
    ("Hangul", 0xAC00, 0xD7A3): (
        (4487, 5191, 5106, 4500, 5372, 5420, 3558, 4747),
        (3403, 3948, 3941, 3398, 4525, 4574, 3107, 3587),
    ),
    ("Ethiopic", 0x1208, 0x1246): (
        (4000, 5970, 5937, 5940, 2283, 2426, 2861, 4000),
        (3500, 4476, 4952, 4451, 2015, 2328, 2920, 3480),
    ),
    ("Khmer", 0x1780, 0x17A2): (
        (2454, 3956, 6000, 3956, 2217, 2236, 2272, 3408),
        (1950, 3475, 5000, 3475, 2005, 2178, 2205, 2696),
    ),
    ("hiragana", 0x3041, 0x3093): (
        (2205, 2824, 2918, 2191, 1875, 1821, 1917, 2252),
        (2078, 2561, 2695, 2043, 1666, 1571, 1952, 2210),
    ),
    ("katakana", 0x30A1, 0x30F6): (
        (2194, 2846, 3109, 2140, 1876, 1846, 1950, 2228),
        (1811, 2429, 2654, 1787, 1588, 1555, 1975, 2181),
    ),
    ("marks", 0x300, 0x36F): (
        (3802, 3965, 4024, 3850, 2224, 2000, 3937, 3809),
        (3353, 3476, 3137, 3387, 2161, 1992, 3455, 3109),
    ),
}  # fmt: skip
# The same of 4 500 blanks of one kind and " word".
BLANKS = {
    "\u00a0": (564, 564, 8, 143, 9001, 1126, 564, 283),
    "\u1680": (13501, 13501, 13501, 13501, 13501, 4501, 9001, 13501),
    "\u2003": (4501, 9001, 8, 4501, 13501, 1126, 9001, 4501),
    "\u2009": (4501, 9001, 8, 4501, 13501, 4501, 9001, 4501),
    "\u200b": (1126, 2251, 4501, 2251, 1126, 1126, 2251, 4501),
    "\u202f": (4501, 9001, 8, 4501, 13501, 4501, 9001, 9001),
    "\u2060": (4501, 9001, 9001, 9001, 4501, 4501, 9001, 9001),
    "\u3000": (283, 2251, 8, 143, 13501, 283, 2251, 2251),
    "\ufeff": (2251, 4501, 4501, 4501, 1126, 2251, 4501, 4501),
    "\ufe0f": (4501, 4501, 4501, 4501, 4501, 4501, 4501, 4501),
    "\u2800": (2251, 2251, 1126, 2251, 1126, 564, 2251, 2251),
}  # fmt: skip


def letters_at_random(first: int, last: int, count: int, *, spaced: bool = False) -> str:
    chance = random.Random(first)
    return "".join(
        " " if spaced and i % 4 == 3 else chr(first + int(chance.random() * (last - first + 1))) for i in range(count)
    )


@pytest.mark.parametrize("script", LETTERS, ids=lambda script: script[0])
def test_letters_of_one_script_at_random_are_held_at_what_letters_cost(script: tuple[str, int, int]) -> None:
    for spaced, counts in zip((False, True), LETTERS[script], strict=True):
        text = letters_at_random(*script[1:], 2000, spaced=spaced)
        for vocabulary, truth in zip(VOCABULARIES, counts, strict=True):
            estimate = estimate_tokens(text, vocabulary)
            assert truth <= estimate.upper, (spaced, vocabulary)
            assert 0.75 * truth <= estimate.expected, (spaced, vocabulary)


def test_twelve_thousand_letters_of_telugu_do_not_fit_where_their_tokens_do_not() -> None:
    text, truth = letters_at_random(0xC05, 0xC39, 12_000), 16_312
    assert estimate_tokens(text).expected == pytest.approx(truth, rel=0.15)
    assert estimate_tokens(text).upper >= truth
    assert not fits(text, 13_000)


@pytest.mark.parametrize(
    "text",
    [
        "మానవులందరు స్వతంత్రులుగా పుట్టినారు. అందరికీ సమాన గౌరవము, హక్కులు కలవు.",
        "Сегодня хорошая погода, и мы пойдём гулять в парк с собакой.",
        "Σήμερα ο καιρός είναι καλός και θα πάμε βόλτα στο πάρκο με τον σκύλο.",
        "היום מזג האוויר טוב ונלך לטייל בפארק עם הכלב.",
        "الطقس جميل اليوم وسنذهب للتنزه في الحديقة مع الكلب.",
        "आज मौसम अच्छा है और हम कुत्ते के साथ बगीचे में घूमने जाएँगे।",
        "วันนี้อากาศดี เราจะไปเดินเล่นที่สวนสาธารณะกับสุนัข",
        "今日は天気がいいので、犬と公園へ散歩に行きます。カメラも持っていきましょう。",
        "오늘은 날씨가 좋아서 강아지와 함께 공원에 산책하러 갑니다.",
        "Hôm nay trời đẹp nên chúng tôi sẽ đi dạo trong công viên với con chó.",
    ],
)
def test_language_is_not_strange(text: str) -> None:
    apart = set_apart(text * 20, _tokens.classes_of(text * 20), _tokens.load_costs("o200k"))
    assert apart == Apart(_tokens.classes_of(text * 20), 0, 0)


@pytest.mark.parametrize("blank", BLANKS)
def test_a_run_of_one_blank_is_expected_at_what_it_costs(blank: str) -> None:
    text = blank * 4500 + " word"
    for vocabulary, truth in zip(VOCABULARIES, BLANKS[blank], strict=True):
        estimate = estimate_tokens(text, vocabulary)
        assert estimate.expected == pytest.approx(truth, rel=0.05, abs=15), vocabulary
        assert estimate.upper >= truth, vocabulary


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u2009", "\u202f", "\u205f", "\u3000"])
def test_a_space_of_any_width_is_a_plain_space_for_claude(space: str) -> None:
    for text in (f"mot{space}! et{space}le", space * 3 + "word", space * 40 + "word"):
        assert estimate_tokens(text, "claude") == estimate_tokens(text.replace(space, " "), "claude")
        assert estimate_tokens(text, "o200k") != estimate_tokens(text.replace(space, " "), "o200k")


def test_single_blanks_are_left_to_the_tables() -> None:
    text = "10\u00a0km\u202f! \u3000\u3000今日は\ufeff" * 20
    assert set_apart(text, _tokens.classes_of(text), _tokens.load_costs("o200k")).blanks == 0


@given(odd_text, odd_text)
def test_what_is_set_apart_stays_apart_whatever_follows(text: str, more: str) -> None:
    costs = _tokens.load_costs("o200k")
    whole = set_apart(text + more, _tokens.classes_of(text + more), costs)
    start = set_apart(text, _tokens.classes_of(text), costs)
    assert whole.left.startswith(start.left)
    assert whole.letters >= start.letters
    assert whole.blanks >= start.blanks


def test_no_character_has_the_class_that_marks_what_is_apart() -> None:
    classes = _tokens.load_classes()
    assert 0 not in classes.of_character
    assert 0 not in classes.of_ascii[:128]


def test_where_a_long_text_is_sampled_depends_on_all_of_it() -> None:
    text = "The cat sat on the mat and looked at the moon. " * 12_000
    places = {tuple(_windows(text + end, EXACT_CHARACTERS, _chance(text + end))[:3]) for end in ("", "a", "b", "c")}
    assert len(places) == 4
    assert estimate_tokens(text) == estimate_tokens(text)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_text_cannot_be_written_around_the_places_of_another(vocabulary: str) -> None:
    """The cheap parts lie where the cheap text is sampled, and a new ending for each try does not help."""
    size, cheap = 500_000, "the cat sat on the mat. "
    plain = (cheap * (size // len(cheap) + 1))[:size]
    dense = "".join(chr(0xE000 + i * 7919 % 6000) for i in range(size))
    stride, chance = (size - EXACT_CHARACTERS) / 192, _chance(plain)
    text = [plain[:EXACT_CHARACTERS]]
    at = EXACT_CHARACTERS
    for i in range(192):
        window = EXACT_CHARACTERS + int(i * stride + chance.random() * (stride - 125))
        text += [dense[at:window], plain[window : window + 125]]
        at = window + 125
    around = "".join(text)
    dense_characters = sum(character >= "\ue000" for character in around)
    for ending in range(5):
        assert estimate_tokens(f"{around}{ending}", vocabulary).expected >= 1.5 * dense_characters
