"""The `auto` classifier: what it answers, what it ignores, and what it survives. No data of others is needed."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.classify import openings
from floop_gateway_core.policy.auto import cues, features
from floop_gateway_core.policy.auto.classify import (
    DEFAULT,
    DIFFICULTY,
    Alias,
    Classification,
    Thresholds,
    _place,
    classify,
)
from floop_gateway_core.types import Message, Role, TextPart
from tools import fit_classify
from tools.fit_classify import fit, own_examples, render, wrapped_examples

TEXTS = st.text(st.characters(codec=None), max_size=400)
MESSAGES = st.lists(st.builds(Message.of, st.sampled_from(get_args(Role)), TEXTS), max_size=5)


def ask(text: str, system: str | None = None) -> Classification:
    return classify([Message.of("user", text)], system)


@pytest.mark.parametrize(
    ("alias", "text"),
    [
        ("fast", "Translate this proof into French:\n\nSuppose that p is prime. Prove that p divides n^p - n."),
        ("fast", "Summarise this stack trace: KeyError: 'id' at line 3 of app.py in main()"),
        ("fast", "Bonjour, comment ça va ?"),
        ("fast", "Hva er hovedstaden i Norge? What is the capital of Norway?"),
        ("fast", "このテキストを英語に翻訳してください：方程式を解くプログラムを書く。"),
        ("fast", "Классифицируй отзыв как положительный или отрицательный: доставили быстро."),
        ("smart", "Write a Python function that removes duplicates from a list while keeping the order."),
        ("smart", "Explica cómo funciona un motor eléctrico y por qué es más eficiente."),
        ("smart", "比较一下两种数据库索引的优缺点，并分析它们适合的场景。"),
        ("smart", "Schreibe einen Aufsatz über die Folgen der Digitalisierung."),
        ("reason", "Prove that the sum of two rational numbers is rational."),
        ("reason", "Planeje uma viagem de quatro dias com orçamento de 900 reais e no máximo um voo."),
        ("reason", "कमल ने 15 पेन 20 रुपये प्रति पेन खरीदे और 25 रुपये में बेचे। उसे कुल कितना लाभ हुआ?"),
        (
            "reason",
            "A baker sells 48 rolls, half as many as yesterday. How many rolls did she sell in both days in total?",
        ),
    ],
)
def test_the_task_decides_the_alias(alias: Alias, text: str) -> None:
    assert ask(text).alias == alias


def test_an_instruction_after_the_text_counts_as_well_as_one_before() -> None:
    clause = "The lessee shall keep the premises in repair and shall not assign the lease without consent. " * 4
    assert ask(f"{clause}\n\nTranslate the text above into Italian.").alias == "fast"
    assert ask(f"Translate the text below into Italian.\n\n{clause}").alias == "fast"


def test_a_system_prompt_that_commands_makes_the_turn_its_material() -> None:
    proof = "Prove that there are infinitely many primes and calculate the first ten."
    assert ask(proof).alias == "reason"
    assert ask(proof, "You translate the user's text into French. Output only the translation.").alias == "fast"
    messages = [Message.of("system", "Translate what you are given into German."), Message.of("user", proof)]
    assert classify(messages).alias == "fast"


def test_a_short_follow_up_takes_the_task_before_it_into_account() -> None:
    before = Message.of("user", "Write a Python class for bank accounts with unit tests.")
    reply = Message.of("assistant", "class Account: ...")
    after = classify([before, reply, Message.of("user", "go on")])
    assert any(name.startswith("prev.") for name in features.features([before, reply, Message.of("user", "x")], None))
    assert after.score > ask("go on").score


def test_thanks_for_hard_work_are_still_thanks() -> None:
    hard = Message.of("user", "Prove the theorem.")
    assert classify([hard, Message.of("assistant", "Done."), Message.of("user", "Thank you!")]).alias == "fast"


CHANGES: dict[str, Callable[[str], str]] = {
    "greeting": lambda text: f"Hello!\n\n{text}",
    "thanks": lambda text: f"{text}\n\nThanks a lot!",
    "doubled spaces": lambda text: text.replace(" ", "  "),
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "quotes": lambda text: f'"{text}"',
    "lower case": str.lower,
    "trailing spaces": lambda text: f"{text}  \n ",
    "please": lambda text: f"{text} please",
}


@pytest.mark.parametrize("name", CHANGES)
def test_harmless_changes_leave_the_alias_alone(name: str) -> None:
    texts = [example.messages[-1].text for example in own_examples() if len(example.messages) == 1]
    same = sum(ask(CHANGES[name](text)).alias == ask(text).alias for text in texts)
    assert same / len(texts) >= 0.95


@pytest.mark.parametrize(("language", "opening"), openings())
def test_an_opening_paragraph_that_asks_for_nothing_leaves_the_alias_alone(language: str, opening: str) -> None:
    texts = [example.messages[-1].text for example in own_examples()[::13] if len(example.messages) == 1]
    same = sum(ask(f"{opening}\n\n{text}").alias == ask(text).alias for text in texts)
    assert same / len(texts) >= 0.95, language


def kinds() -> list[tuple[str, str, str]]:
    lines = Path(__file__).with_name("kinds.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 2) for line in lines if line and not line.startswith("#")]
    return [(alias, kind, text.replace("\\n", "\n")) for alias, kind, text in rows]


@pytest.mark.parametrize(("alias", "kind"), sorted({(alias, kind) for alias, kind, _ in kinds()}))
def test_requests_that_look_like_another_kind_get_their_own(alias: str, kind: str) -> None:
    """Easy verbs on code, prose that mentions code, reviews, tables, short questions: none of them was fitted on."""
    texts = [text for label, name, text in kinds() if (label, name) == (alias, kind)]
    wrong = [text for text in texts if ask(text).alias != alias]
    assert len(wrong) <= len(texts) // 10 + 1, wrong


def test_none_of_the_requests_of_the_tests_was_fitted_on() -> None:
    fitted = {example.messages[-1].text for example in own_examples()}
    assert not fitted & {text for _, _, text in kinds()}


def test_a_plain_system_message_and_small_talk_before_change_nothing() -> None:
    talk = [Message.of("user", "Hi, how are you?"), Message.of("assistant", "Fine! How can I help?")]
    for example in own_examples()[:200]:
        if len(example.messages) == 1:
            plain = classify(example.messages)
            assert classify(example.messages, "You are a helpful assistant.") == plain
            assert classify([*talk, *example.messages]).alias == plain.alias


def test_our_own_requests_get_their_labels() -> None:
    examples = own_examples()
    right = sum(classify(example.messages, example.system).alias == example.label for example in examples)
    assert right / len(examples) >= 0.91


def test_wrapped_hard_texts_are_easy_tasks() -> None:
    examples = wrapped_examples()
    assert sum(classify(example.messages).alias == "fast" for example in examples) / len(examples) >= 0.91


def test_every_weight_of_difficulty_moves_the_score_its_way() -> None:
    for kind in (0, 1, 2):
        even = _place(kind, (0.0, 0.0, 0.0), {"length": 1.0})
        for name, weight in DIFFICULTY.items():
            moved = _place(kind, (0.0, 0.0, 0.0), {"length": 1.0, name: 2.0})
            assert (moved > even) == (weight > 0), name


@pytest.mark.parametrize(
    ("easier", "harder"),
    [
        (
            "Mia has 3 pens and buys 2 more. How many pens does she have?",
            "Mia has 3 boxes of 12 pens, gives a quarter of them to Leo, and sells the rest at 2 for $5, less a 10% fee. "
            "How much does she earn, and how many pens would she have needed to earn $80?",
        ),
        (
            "Write a function that adds two numbers.",
            "Write a function that parses a nested expression with variables, functions and precedence, evaluates it "
            "without recursion, reports the position of each error, and must not allocate more than once per token.",
        ),
        ("Prove that 2 + 2 = 4.", "Prove that every finite abelian group is a direct product of cyclic subgroups."),
    ],
)
def test_harder_work_of_the_same_kind_scores_higher(easier: str, harder: str) -> None:
    low, high = ask(easier), ask(harder)
    assert (low.alias, low.score < high.score) == (high.alias, True)


@given(MESSAGES, st.none() | TEXTS)
@settings(max_examples=200, deadline=None)
def test_any_conversation_is_classified(messages: list[Message], system: str | None) -> None:
    found = classify(messages, system)
    assert found.alias in get_args(Alias)
    assert 0.0 <= found.score <= 1.0
    assert len(found.reasons) <= 5
    assert found == classify(messages, system)


@given(MESSAGES, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_the_alias_follows_from_the_score_and_the_thresholds(messages: list[Message], one: float, two: float) -> None:
    thresholds = Thresholds(min(one, two), max(one, two))
    plain, moved = classify(messages), classify(messages, thresholds=thresholds)
    assert (moved.score, moved.reasons) == (plain.score, plain.reasons)
    expected = (
        "reason"
        if plain.score >= thresholds.reason_from
        else "smart"
        if plain.score >= thresholds.smart_from
        else "fast"
    )
    assert moved.alias == expected


@pytest.mark.parametrize(("smart", "reason"), [(0.7, 0.3), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_thresholds_out_of_range_or_order_are_refused(smart: float, reason: float) -> None:
    with pytest.raises(ValueError, match="smart_from"):
        Thresholds(smart, reason)


def test_thresholds_at_the_ends_send_everything_one_way() -> None:
    assert classify([], thresholds=Thresholds(0.0, 0.0)).alias == "reason"
    assert ask("Prove it.", None).score < 1.0
    assert classify([Message.of("user", "Prove it.")], thresholds=Thresholds(1.0, 1.0)).alias == "fast"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("user", ())],
        [Message.of("user", "")],
        [Message.of("user", " \n\t\x00")],
        [Message.of("assistant", "Hello")],
        [Message.of("user", "\ud800\udfff\udc00")],
        [Message("user", (TextPart("Trans"), TextPart("late: "), TextPart("\x00")))],
    ],
)
def test_missing_and_broken_content_is_fast_and_never_raises(messages: list[Message]) -> None:
    assert classify(messages).alias == "fast"
    assert Thresholds() == DEFAULT


def test_parts_are_read_as_one_text() -> None:
    parts = Message("user", (TextPart("Translate into "), TextPart("Polish: prove the theorem.")))
    assert classify([parts]) == ask("Translate into Polish: prove the theorem.")


def test_reasons_name_features_and_never_the_text() -> None:
    names = {name for name, _ in json_table("classify.json")}
    found = ask("My secret is Xanthippe-4711. Write a poem about it.")
    assert found.reasons
    assert {name for name, _ in found.reasons} <= names


def json_table(name: str) -> list[tuple[str, object]]:
    source = resources.files("floop_gateway_core.policy.auto").joinpath(f"tables/{name}")
    return list(json.loads(source.read_text(encoding="utf-8")).items())


def test_the_tables_are_small_and_say_something_of_each_concept() -> None:
    folder = resources.files("floop_gateway_core.policy.auto").joinpath("tables")
    assert sum(len(folder.joinpath(name).read_bytes()) for name in ("cues.json", "classify.json")) <= 64_000
    concepts = {name for name, _ in json_table("cues.json")}
    assert concepts >= cues.TASKS
    for name, _ in json_table("classify.json"):
        place, _, concept = name.rpartition(".")
        assert not place or concept in concepts, name


def test_stems_and_phrases_are_long_enough_to_be_looked_up() -> None:
    table = cues.cues()
    assert all(len(stem) >= cues.STEM for rows in table.stems.values() for stem, _ in rows)
    assert all(len(rest) >= cues.NEXT for rows in table.phrases.values() for rest, _ in rows)


HOSTILE = [
    "a",
    "7",
    " ",
    "\n",
    '"',
    "[(",
    "a;",
    "a) ",
    "e\u0301",
    "证明",
    "\ud800",
    "select ",
    "1.",
    "- ",
    "```",
    "\u200b",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_work_does_not_grow_with_the_text(unit: str) -> None:
    """Counts what is looked at, not seconds: the window bounds it, whatever stands there."""
    long, longer = (unit * (size // len(unit)) for size in (20_000, 500_000))
    for text in (long, longer):
        window = features._window(text)
        assert len(window) <= features.WINDOW + 2
        assert len(cues.segments(window)) <= len(window) + 1
    assert ask(long).alias == ask(longer).alias


def test_the_middle_of_a_long_text_is_not_read() -> None:
    head, tail = "Summarise the following report.\n\n" + "x " * 2_000, "y " * 2_000
    inside = "Prove the theorem. "
    assert ask(head + inside + tail).alias == ask(head + "q" * len(inside) + tail).alias == "fast"


def test_every_process_gives_the_same_answer() -> None:
    code = (
        "from floop_gateway_core.policy.auto.classify import classify\n"
        "from floop_gateway_core.types import Message\n"
        "for text in ('Plan a trip for 3 days', 'Löse die Gleichung', '翻译成英文：证明', 'hi'):\n"
        "    print(classify([Message.of('user', text)]))\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": ":".join(filter(None, sys.path))},
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(answers) == 1


def test_anyone_can_make_the_table_again() -> None:
    """From the requests in the repository alone, to the byte."""
    assert fit_classify.main(["--check"]) == 0


def test_fitting_twice_gives_the_same_bytes() -> None:
    rows = [{"in.code": 1.0, "length": 0.5}, {"in.plan": 1.0}, {"only_polite": 1.0, "length": 0.1}] * 4
    labels, weights = [1, 2, 0] * 4, [1.0] * 12
    table = fit(rows, labels, weights)
    assert render(table) == render(fit(rows, labels, weights))
    assert table["in.code"][1] > table["in.code"][0]
