"""What a configuration may say, and what a mistake is told: the file, the key, the value and what is allowed."""

from decimal import Decimal
from pathlib import Path

import pytest

from floop_gateway_core import ConfigError, Gateway, Settings
from floop_gateway_core.money import parse_credits, parse_rate

ROUTES = '[routes]\nfast = ["{0}"]\nsmart = ["{0}"]\nreason = ["{0}"]\n'


def told(tmp_path: Path, text: str) -> str:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Gateway(Settings.load(path), environ={})
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize("name", ["schnee☃", "nl\\nX-Evil: 1", "", "two words", "x" * 101])
def test_a_deployments_id_stands_in_a_header_and_is_held_to_it(tmp_path: Path, name: str) -> None:
    text = f'[deployments."{name}"]\nprovider = "echo"\n' + ROUTES.format(name)
    assert "[!-~]{1,100}" in told(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[upstream]\nattempts = 0", "FILE: upstream.attempts = 0: Input should be greater than or equal to 1"),
        ("[upstream]\nhedge_after_s = -1", "FILE: upstream.hedge_after_s = -1: Input should be"),
        ("[upstream]\nnope = 1", "FILE: upstream.nope = 1: unknown key; allowed are attempts, connect_s"),
        ('[hooks]\nlifecycle = "nowhere:hook"', "hooks.lifecycle = 'nowhere:hook': No module named 'nowhere'"),
        ('[hooks]\nlifecycle = "os:sep"', "hooks.lifecycle = 'os:sep': is not callable"),
        ('store = "mysql://x"', "FILE: store = 'mysql://x'"),
    ],
)
def test_a_mistake_names_file_key_value_and_what_is_allowed(tmp_path: Path, text: str, expected: str) -> None:
    assert told(tmp_path, text).startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        "0.0000001",
        "1e-7",
        "123456789.00000000000000000000001",
        "0.25000000000000000000000000001",
        "1e-999999",
        "NaN",
        "-1",
    ],
)
def test_no_digit_of_an_amount_is_lost(text: str) -> None:
    with pytest.raises(ValueError, match="six decimal places"):
        parse_credits(Decimal(text))
    with pytest.raises(ValueError, match="six decimal places"):
        parse_rate(Decimal(text))


def test_amounts_are_read_exactly() -> None:
    assert 123_456_789_000_001 == parse_credits("123456789.000001000")
    assert [0, 0, 1, 10**12] == [parse_rate(text) for text in ("0", "0e-99", "0.000001", "1e6")]
