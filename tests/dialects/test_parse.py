"""Bodies: every rule of the contract, every way to break it, and nothing that raises."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.dialects.fields import MAX_FIELD_ERRORS
from floop_gateway_core.dialects.native.parse import MAX_PROMPT_CHARACTERS, parse
from floop_gateway_core.errors import ErrorCode, FieldError, Refusal
from floop_gateway_core.types import Call, Endpoint, Message, TextPart

USER = {"role": "user", "content": "Hi"}


def chat(**fields: object) -> Call | Refusal:
    return parse("chat", json.dumps({"messages": [USER], **fields}).encode())


def called(answer: Call | Refusal) -> Call:
    assert isinstance(answer, Call), answer
    return answer


def refused(answer: Call | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


def faults(answer: Call | Refusal) -> list[tuple[str, str]]:
    refusal = refused(answer)
    assert ErrorCode.VALIDATION_ERROR == refusal.code
    return [(field.path, field.message) for field in refusal.fields]


# -- what is read --------------------------------------------------------------------------------------------------


def test_a_chat_with_nothing_but_a_message_has_the_defaults() -> None:
    assert Call("chat", (Message.of("user", "Hi"),), "auto", None, None, None, False, names_model=False) == chat()


def test_a_chat_with_every_field() -> None:
    answer = chat(model="fast", system="Be brief.", temperature=0.5, max_tokens=7, stream=True)
    assert Call("chat", (Message.of("user", "Hi"),), "fast", "Be brief.", 0.5, 7, True) == answer


def test_a_prompt_is_a_users_message() -> None:
    answer = parse("generate", b'{"prompt": "Hi", "system": "Be brief.", "max_tokens": 7}')
    assert Call("generate", (Message.of("user", "Hi"),), "auto", "Be brief.", None, 7, names_model=False) == answer


def test_turns_keep_their_order_and_their_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache": True}]
    turns = [{"role": "assistant", "content": "x"}, {"role": "user", "content": parts}]
    messages = called(chat(messages=turns)).messages
    assert (Message.of("assistant", "x"), Message("user", (TextPart("a"), TextPart("b")))) == messages
    assert ["x", "ab"] == [message.text for message in messages]


def test_the_system_field_comes_before_system_messages_joined_by_a_blank_line() -> None:
    turns = [{"role": "system", "content": "second"}, USER, {"role": "system", "content": "third"}]
    call = called(chat(messages=turns, system="first"))
    assert ("first\n\nsecond\n\nthird", (Message.of("user", "Hi"),)) == (call.system, call.messages)


def test_a_system_message_alone_is_the_system() -> None:
    call = called(chat(messages=[{"role": "system", "content": [{"type": "text", "text": "only"}]}, USER]))
    assert "only" == call.system


def test_unknown_fields_are_ignored() -> None:
    assert replace(called(chat()), ignored=("prompt", "tools", "top_p")) == chat(top_p=2, prompt=7, tools=[{"x": None}])
    plain, more = (
        called(parse("generate", body)) for body in (b'{"prompt": "Hi"}', b'{"prompt": "Hi", "messages": 7}')
    )
    assert replace(plain, ignored=("messages",)) == more


def test_names_that_cannot_stand_in_a_header_are_not_listed() -> None:
    names = {"a b": 1, "é": 1, "x" * 41: 1, **{f"n{number}": 1 for number in range(12)}}
    assert called(chat(**names)).ignored == ("n0", "n1", "n10", "n11", "n2", "n3", "n4", "n5", "n6", "n7")


@pytest.mark.parametrize("name", ["model", "system", "temperature", "max_tokens", "stream"])
def test_an_optional_field_that_is_null_counts_as_absent(name: str) -> None:
    assert chat() == chat(**{name: None})


@pytest.mark.parametrize(("given", "read"), [(0, 0.0), (2, 2.0), (0.0, 0.0), (2.0, 2.0), (1, 1.0), (0.7, 0.7)])
def test_a_temperature_from_0_to_2_is_a_float(given: float, read: float) -> None:
    temperature = called(chat(temperature=given)).temperature
    assert (float, read) == (type(temperature), temperature)


@pytest.mark.parametrize("tokens", [1, 2**63, 10**400])
def test_max_tokens_is_never_refused_for_being_large(tokens: int) -> None:
    assert tokens == called(chat(max_tokens=tokens)).max_tokens


def test_max_tokens_of_any_number_of_digits_is_valid_json() -> None:
    body = b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": ' + b"9" * 5_000 + b"}"
    assert called(parse("chat", body)).max_tokens is not None


def test_a_prompt_is_up_to_500_000_characters_long() -> None:
    def prompt(text: str) -> Call | Refusal:
        return parse("generate", json.dumps({"prompt": text}, ensure_ascii=False).encode())

    assert "😀" * MAX_PROMPT_CHARACTERS == called(prompt("😀" * MAX_PROMPT_CHARACTERS)).messages[0].text
    assert "a" == called(prompt("a")).messages[0].text
    for text in ("", "😀" * (MAX_PROMPT_CHARACTERS + 1)):
        assert [("prompt", "must be 1 to 500000 characters long")] == faults(prompt(text))


def test_an_escaped_prompt_counts_characters_and_not_escapes() -> None:
    body = json.dumps({"prompt": "é" * MAX_PROMPT_CHARACTERS}).encode()
    assert MAX_PROMPT_CHARACTERS == len(called(parse("generate", body)).messages[0].text)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert "😀" == called(parse("generate", rb'{"prompt": "\ud83d\ude00"}')).messages[0].text
    assert "😀" == called(parse("generate", rb'{"prompt": "\uD83D\uDE00"}')).messages[0].text


def test_an_escaped_backslash_before_what_looks_like_a_surrogate_is_text() -> None:
    assert r"\ud83d" == called(parse("generate", rb'{"prompt": "\\ud83d"}')).messages[0].text


def test_nesting_within_reason_in_a_field_that_is_ignored_passes() -> None:
    body = b'{"prompt": "Hi", "x": ' + b"[" * 100 + b"]" * 100 + b"}"
    assert Call("generate", (Message.of("user", "Hi"),), names_model=False, ignored=("x",)) == parse("generate", body)


# -- INVALID_BODY --------------------------------------------------------------------------------------------------

PROMPT = b'{"prompt": "Hi", "x": %s}'
BROKEN = {
    "empty": b"",
    "white space": b" \n",
    "cut": b'{"prompt": "Hi"',
    "two documents": b'{"prompt": "Hi"}{}',
    "a trailing comma": b'{"prompt": "Hi",}',
    "single quotes": b"{'prompt': 'Hi'}",
    "a control character in a string": b'{"prompt": "a\nb"}',
    "form data": b"prompt=Hi",
    "an array": b'[{"prompt": "Hi"}]',
    "a string": b'"Hi"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "NaN": PROMPT % b"NaN",
    "Infinity": PROMPT % b"Infinity",
    "-Infinity deep inside": PROMPT % b'[{"y": [-Infinity]}]',
    "NaN as a temperature": b'{"prompt": "Hi", "temperature": NaN}',
    "bytes that are not UTF-8": b'{"prompt": "\xff"}',
    "Latin-1": '{"prompt": "é"}'.encode("latin-1"),
    "UTF-16": '{"prompt": "Hi"}'.encode("utf-16"),
    "UTF-16 without a BOM": '{"prompt": "Hi"}'.encode("utf-16-le"),
    "UTF-32": '{"prompt": "Hi"}'.encode("utf-32"),
    "a surrogate as three bytes": b'{"prompt": "\xed\xa0\xbd"}',
    "an overlong encoding": b'{"prompt": "\xc0\x80"}',
    "a high half": rb'{"prompt": "a\ud83d"}',
    "a low half": rb'{"prompt": "\ude00a"}',
    "halves in the wrong order": rb'{"prompt": "\ude00\ud83d"}',
    "a half in upper case": rb'{"prompt": "\uD83D"}',
    "a half in a key": rb'{"prompt": "Hi", "\ud83d": 1}',
    "a half in a nested key": rb'{"prompt": "Hi", "x": [{"\ude00": 1}]}',
    "a half in a field that is ignored": rb'{"prompt": "Hi", "x": ["\ud83d"]}',
    "a half in the model": rb'{"prompt": "Hi", "model": "\ud83d"}',
    "10 000 arrays": PROMPT % (b"[" * 10_000 + b"]" * 10_000),
    "10 000 objects": PROMPT % (b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "10 000 arrays that are not closed": b"[" * 10_000,
    "100 000 arrays around half a pair": PROMPT % (b"[" * 100_000 + rb'"\ud83d"' + b"]" * 100_000),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("endpoint", ["chat", "generate", "embed"])
def test_a_body_that_is_no_json_object_in_utf_8_is_invalid(name: str, endpoint: Endpoint) -> None:
    refusal = refused(parse(endpoint, BROKEN[name]))
    assert (ErrorCode.INVALID_BODY, 400, ()) == (refusal.code, refusal.status, refusal.fields)


def test_the_message_says_what_is_wrong() -> None:
    said = {name: refused(parse("generate", BROKEN[name])).message for name in BROKEN}
    assert "UTF-8" in said["Latin-1"]
    assert "surrogate" in said["a half in a key"]
    assert "nested" in said["10 000 arrays"]
    assert "NaN" in said["NaN"]
    assert "object" in said["an array"]
    assert not [name for name, message in said.items() if "Hi" in message or not message.endswith(".")]


# -- VALIDATION_ERROR ----------------------------------------------------------------------------------------------

NOT_STRINGS: list[Any] = [1, 1.5, True, False, [], {}, ["a"]]
NOT_BOOLEANS: list[Any] = [0, 1, "true", "", [], {}, 1.0]
NOT_TEMPERATURES: list[Any] = ["1", True, False, [], {}, -0.1, 2.1, -1, 3, 10**400, -(10**400), 1e308]
NOT_COUNTS: list[Any] = ["1", True, False, [], {}, 0, -1, 1.0, 1.5, 1e3, -(10**400)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *[(name, value, "must be a string") for name in ("model", "system") for value in NOT_STRINGS],
        *[("stream", value, "must be true or false") for value in NOT_BOOLEANS],
        *[("temperature", value, "must be a number from 0 to 2") for value in NOT_TEMPERATURES],
        *[("max_tokens", value, "must be an integer of 1 or more") for value in NOT_COUNTS],
    ],
)
def test_types_are_strict(name: str, value: object, message: str) -> None:
    assert [(name, message)] == faults(chat(**{name: value}))


def test_a_number_beyond_floats_is_no_temperature() -> None:
    assert [("temperature", "must be a number from 0 to 2")] == faults(
        parse("generate", b'{"prompt": "Hi", "temperature": 1e999}')
    )


TEXT_PART = {"type": "text", "text": "a"}
BAD_PART = 'must be {"type": "text", "text": "…"}'


@pytest.mark.parametrize(
    ("messages", "path", "message"),
    [
        (None, "messages", "is required"),
        ("Hi", "messages", "must be an array"),
        ({"role": "user"}, "messages", "must be an array"),
        (True, "messages", "must be an array"),
        ([], "messages", "must hold at least one message"),
        ([{"role": "system", "content": "a"}], "messages", "must hold at least one message of role user"),
        ([{"role": "assistant", "content": "a"}], "messages", "must hold at least one message of role user"),
        ([USER, "Hi"], "messages[1]", "must be an object with role and content"),
        ([None], "messages[0]", "must be an object with role and content"),
        ([[USER]], "messages[0]", "must be an object with role and content"),
        ([{"content": "a"}], "messages[0].role", "is required"),
        ([{"role": None, "content": "a"}], "messages[0].role", "is required"),
        ([{"role": "tool", "content": "a"}], "messages[0].role", "must be one of system, user, assistant"),
        ([{"role": "User", "content": "a"}], "messages[0].role", "must be one of system, user, assistant"),
        ([{"role": ["user"], "content": "a"}], "messages[0].role", "must be one of system, user, assistant"),
        ([{"role": "user"}], "messages[0].content", "is required"),
        ([{"role": "user", "content": None}], "messages[0].content", "is required"),
        ([{"role": "user", "content": 1}], "messages[0].content", "must be a string or an array of text parts"),
        ([{"role": "user", "content": {}}], "messages[0].content", "must be a string or an array of text parts"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]", BAD_PART),
        ([{"role": "user", "content": [TEXT_PART, None]}], "messages[0].content[1]", BAD_PART),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages[0].content[0]", BAD_PART),
        ([{"role": "user", "content": [{"text": "a"}]}], "messages[0].content[0]", BAD_PART),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "messages[0].content[0]", BAD_PART),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "messages[0].content[0]", BAD_PART),
        ([{"role": "user", "content": [{"type": ["text"], "text": "a"}]}], "messages[0].content[0]", BAD_PART),
    ],
)
def test_messages_are_checked_with_their_path(messages: object, path: str, message: str) -> None:
    assert [(path, message)] == faults(chat(messages=messages))


@pytest.mark.parametrize(("prompt", "message"), [
    (None, "is required"), (1, "must be a string"), (True, "must be a string"), (["Hi"], "must be a string"),
    ({}, "must be a string"),
])  # fmt: skip
def test_a_prompt_is_a_string(prompt: object, message: str) -> None:
    assert [("prompt", message)] == faults(parse("generate", json.dumps({"prompt": prompt}).encode()))


def test_a_missing_field_is_required() -> None:
    assert [("messages", "is required")] == faults(parse("chat", b"{}"))
    assert [("prompt", "is required")] == faults(parse("generate", b"{}"))


def test_every_fault_is_told_and_the_message_names_the_first() -> None:
    refusal = refused(chat(messages=[{"role": "x"}], model=1, temperature="1", max_tokens=0, stream="no"))
    paths = ["messages[0].role", "model", "temperature", "max_tokens", "stream"]
    assert sorted(paths) == sorted(field.path for field in refusal.fields)
    assert FieldError("messages[0].role", "must be one of system, user, assistant") == refusal.fields[0]
    assert "messages[0].role must be one of system, user, assistant (and 4 more)." == refusal.message


def test_the_list_of_faults_is_bounded() -> None:
    refusal = refused(chat(messages=[None] * 1_000))
    assert MAX_FIELD_ERRORS == len(refusal.fields)
    assert refusal.message.endswith("(and many more).")


def test_what_the_client_wrote_is_not_echoed() -> None:
    answers = [chat(model=["s3cret"]), chat(messages=[{"role": "s3cret"}]), chat(max_tokens="s3cret")]
    assert not [answer for answer in answers if b"s3cret" in refused(answer).body]


# -- anything ------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["messages", "prompt", "model", "system", "temperature", "max_tokens", "stream", "role",
                         "content", "type", "text", "x"])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
    | st.sampled_from(["user", "system", "text", "auto"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
ENDPOINTS = st.sampled_from(["chat", "generate", "embed"])


@given(ENDPOINTS, st.dictionaries(NAMES, VALUES, max_size=6))
def test_no_json_object_raises_and_what_is_read_is_valid(endpoint: Endpoint, value: dict[str, object]) -> None:
    answer = parse(endpoint, json.dumps(value).encode())
    if isinstance(answer, Call):
        assert any(message.role == "user" for message in answer.messages)
        assert answer.temperature is None or 0 <= answer.temperature <= 2
        assert answer.max_tokens is None or answer.max_tokens >= 1
        "".join([answer.alias, answer.system or "", *(message.text for message in answer.messages)]).encode()
    else:
        json.loads(answer.body)


@given(ENDPOINTS, st.binary(max_size=60) | st.text('{}[]":,\\ud83 1e-.nulltrue', max_size=60).map(str.encode))
def test_no_bytes_raise(endpoint: Endpoint, body: bytes) -> None:
    answer = parse(endpoint, body)
    assert isinstance(answer, Refusal)
    assert answer.code in (ErrorCode.INVALID_BODY, ErrorCode.VALIDATION_ERROR)


def test_messages_and_parts_are_bounded_in_number() -> None:
    message = {"role": "user", "content": "a"}
    refused = parse("chat", json.dumps({"messages": [message] * 4_097}).encode())
    assert isinstance(refused, Refusal)
    assert "messages must hold at most 4096 messages." == refused.message
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}] * 16_385}
    refused = parse("chat", json.dumps({"messages": [parts]}).encode())
    assert isinstance(refused, Refusal)
    assert "messages must hold at most 16384 parts in all." == refused.message
    assert not isinstance(parse("chat", json.dumps({"messages": [message] * 4_096}).encode()), Refusal)


def test_a_byte_order_mark_is_skipped() -> None:
    call = parse("generate", b'\xef\xbb\xbf{"prompt": "Hi"}')
    assert not isinstance(call, Refusal)
    assert "Hi" == call.messages[0].text
