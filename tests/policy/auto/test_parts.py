"""Which part of a request is its instruction, and which the material that it is about."""

import pytest

from floop_gateway_core.policy.auto.cues import segments
from floop_gateway_core.policy.auto.parts import Parts, commanded, essence, lead, part


def parted(text: str) -> tuple[Parts, list[str], list[str], list[str]]:
    """Part a text, and give each part's segments as text."""
    parts = part(essence(segments(text)))
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
        ("the keeper saved it in the last minute. " * 11 + "\n\nsummarize the above text\n"
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


@pytest.mark.parametrize(
    "opening",
    ["could you please help me with this?", "# task", "task 1", "this is for work. i am new here.", "这是工作上用的。",
     "nisaidie tafadhali na hili:", "hi, how are you?"],
)  # fmt: skip
def test_an_opening_paragraph_that_mentions_nothing_is_no_part_of_a_request(opening: str) -> None:
    _, head, tail, body = parted(f"{opening}\n\nprove that the square root of 2 is irrational")
    assert [*head, *tail, *body] == ["prove that the square root of 2 is irrational"]


def test_an_opening_question_need_not_be_a_paragraph() -> None:
    _, head, tail, body = parted("could you help me with this? prove that the square root of 2 is irrational")
    assert [*head, *tail, *body] == [" prove that the square root of 2 is irrational"]


@pytest.mark.parametrize(
    "opening",
    ["translate this.", "tom has 3 apples, and ben has 4.", "which dates come up in this?", "answer in one word."],
)  # fmt: skip
def test_an_opening_paragraph_that_mentions_something_stays(opening: str) -> None:
    _, head, tail, body = parted(f"{opening}\n\nthe square root of 2 is irrational")
    assert opening.rstrip(".?") in " ".join([*head, *tail, *body])


@pytest.mark.parametrize("closing", ["best regards,\ntom", "let me know if anything is unclear.", "谢谢！", "cheers"])
def test_a_closing_paragraph_that_greets_is_no_part_of_a_request(closing: str) -> None:
    _, head, tail, body = parted(f"prove that the square root of 2 is irrational\n\n{closing}")
    assert [*head, *tail, *body] == ["prove that the square root of 2 is irrational"]


def test_a_last_paragraph_that_does_not_greet_is_material() -> None:
    _, _, _, body = parted("translate this into german.\n\nthe ferry was late again.")
    assert body == ["the ferry was late again"]


def test_what_is_said_alone_is_never_an_opening() -> None:
    assert [segment.words for segment in essence(segments("this is for work."))] == [4]


def test_a_question_behind_a_long_text_is_the_instruction_in_a_language_without_cues() -> None:
    text = "შუქურა აშენდა 1902 წელს და მისი სიმაღლე 31 მეტრია. " * 6
    _, head, tail, body = parted(f"{text}\n\nროდის აშენდა შუქურა?")
    assert (head, tail) == ([], ["როდის აშენდა შუქურა"])
    assert body


def test_rows_of_figures_are_material() -> None:
    _, head, tail, body = parted("which city is larger?\n\ncity | people\narles | 50454\ndole | 23708")
    assert head == ["which city is larger"]
    assert tail == []
    assert [row for row in body if "|" in row] == ["city | people", "arles | 50454", "dole | 23708"]


def test_a_system_prompt_that_commands_makes_the_turn_its_material() -> None:
    system = segments("you are a careful editor. translate each message into german.")
    turn = "prove that p divides n^p - n. suppose that p is prime."
    parts = part(segments(turn))
    anew = commanded(parts, system)
    assert anew is not None
    assert lead(anew.head) == "translate"
    assert len(anew.body) == len(parts.head + parts.body + parts.tail)


@pytest.mark.parametrize(
    "turn", ["translate this into german: good morning.", "请把下面的文字翻译成英文：" + "早上好。" * 60]
)
def test_a_turn_with_a_task_of_its_own_is_not_the_material_of_a_system_prompt(turn: str) -> None:
    system = segments("you are an assistant in an office. you write and explain code.")
    assert commanded(part(segments(turn)), system) is None


def test_a_system_prompt_without_a_task_commands_nothing() -> None:
    turn = "a long text " * 40
    assert commanded(part(segments(turn)), segments("be kind and patient.")) is None


@pytest.mark.parametrize(
    ("text", "first"),
    [("write a summary of it", "summarize"), ("write a program in go", "make"), ("make it shorter", "rewrite")],
)
def test_a_thing_to_be_made_gives_way_to_an_easy_task(text: str, first: str) -> None:
    assert lead(segments(text)) == first


def test_nothing_has_no_parts() -> None:
    assert part([]) == Parts([], [], [])
    assert essence([]) == []
    assert lead([]) is None


def test_a_stray_quotation_mark_leaves_a_fence_alone() -> None:
    found = segments('it is a 5" screen\n```\nprove that x\n```\ndone')
    assert [segment.quoted for segment in found] == [False, False, True, False]
