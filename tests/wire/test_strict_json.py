"""JSON that every parser reads and every encoder can write again."""

import json

import msgspec
import pytest

from floop_gateway_core.wire.strict_json import MAX_DEPTH, TooDeep, loads, object_of


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[1e999]", '{"a": -1e400}', "{", "[1,]", "'a'", ""])
def test_what_is_not_strict_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser words it
        loads(text)
    assert object_of(text) is None


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 990, 5_000, 100_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
def test_what_is_nested_too_deeply_is_refused(depth: int, pair: str) -> None:
    text = pair[:-1] * depth + "1" + pair[-1] * depth
    with pytest.raises(TooDeep):
        loads(text)


def test_the_deepest_value_can_be_written_again() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert text == json.dumps(loads(text)) == msgspec.json.encode(loads(text)).decode()


def test_many_values_that_are_not_nested_are_read() -> None:
    assert [[]] * 5_000 == loads(json.dumps([[]] * 5_000))
