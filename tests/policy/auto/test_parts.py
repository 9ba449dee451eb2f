"""Which part of a request is its instruction, and which the material that it is about."""

import pytest

from floop_gateway_core.policy.auto.cues import segments
from floop_gateway_core.policy.auto.parts import Parts, commanded, lead, part


def parted(text: str) -> tuple[Parts, list[str], list[str], list[str]]:
    """Part a text, and give each part's segments as text."""
    parts = part(segments(text), len(text))
    head, tail, body = ([text[segment.start : segment.end] for segment in piece] for piece in parts)
    return parts, head, tail, body


@pytest.mark.parametrize(
    ("text", "head", "tail"),
    [
        ("translate into french: prove that there are infinitely many primes.", "translate into french", ""),
        ("suggest a title for this.\n\n" + "plan a trip for six. each carries ten kilos. " * 5,
         "suggest a title for this", ""),
        ("join the lines:\nprove that every prime above two is odd, and give an example of each of the kinds of "
         "number that this leaves out, with the reason why it does so, in the words of a child of ten years of age.",
         "join the lines", ""),
        ("the keeper saved it in the last minute. " * 7 + "\n\nsummarize the above text\n"
         + "- in the words of a child\n- in the words of a fan\n- in the words of a coach\n- in one word\n",
         "", "summarize the above text"),
        ("exercise 1. show that f attains its maximum. exercise 2. a tank holds 240 litres, and empties in four hours. "
         "when is it half full? exercise 3. prove that the sum of two even numbers is even, and give an example of "
         "two odd numbers of which the sum is odd, if there are any.\n\ntranslate this into german, please",
         "", "translate this into german, please"),
    ],
)  # fmt: skip
def test_the_instruction_is_found_at_the_head_or_at_the_tail(text: str, head: str, tail: str) -> None:
    _, found_head, found_tail, body = parted(text)
    assert " ".join(found_head).strip() == head
    assert " ".join(found_tail).strip() == tail
    assert body


def test_politeness_around_it_is_no_part_of_a_request() -> None:
    plain, polite = (
        parted("list the names in this text: ada met bo."),
        parted("hello!\n\nlist the names in this text: ada met bo.\n\nthanks in advance!"),
    )
    assert [piece.strip() for piece in plain[1]] == [piece.strip() for piece in polite[1]]
    assert not any("thanks" in piece for pieces in polite[1:] for piece in pieces)


def test_a_system_prompt_that_commands_makes_the_turn_its_material() -> None:
    system = segments("you are a careful editor. translate each message into german.")
    turn = "prove that p divides n^p - n. suppose that p is prime."
    parts = part(segments(turn), len(turn))
    anew = commanded(parts, system, len(turn))
    assert anew is not None
    assert lead(anew.head)[0] == "translate"
    assert len(anew.body) == len(parts.head + parts.body + parts.tail)


@pytest.mark.parametrize(
    "turn", ["translate this into german: good morning.", "请把下面的文字翻译成英文：" + "早上好。" * 60]
)
def test_a_turn_with_a_task_of_its_own_is_not_the_material_of_a_system_prompt(turn: str) -> None:
    system = segments("you are an assistant in an office. you write and explain code.")
    assert commanded(part(segments(turn), len(turn)), system, len(turn)) is None


def test_a_system_prompt_without_a_task_commands_nothing() -> None:
    turn = "a long text " * 40
    assert commanded(part(segments(turn), len(turn)), segments("be kind and patient."), len(turn)) is None


@pytest.mark.parametrize(
    ("text", "first"),
    [("write a summary of it", "summarize"), ("write a program in go", "make"), ("make it shorter", "rewrite")],
)
def test_a_thing_to_be_made_gives_way_to_an_easy_task(text: str, first: str) -> None:
    assert lead(segments(text))[0] == first


def test_nothing_has_no_parts() -> None:
    assert part([], 0) == Parts([], [], [])
    assert lead([]) == (None, None)


def test_a_stray_quotation_mark_leaves_a_fence_alone() -> None:
    found = segments('it is a 5" screen\n```\nprove that x\n```\ndone')
    assert [segment.quoted for segment in found] == [False, False, True, False]
