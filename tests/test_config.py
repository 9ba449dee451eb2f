"""What a configuration may say, and what a mistake is told: the file, the key, the value and what is allowed."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from floop_gateway_core import ConfigError, Gateway, Settings
from floop_gateway_core.config import DeploymentSettings
from floop_gateway_core.config.store_urls import shown
from floop_gateway_core.money import parse_credits, parse_rate
from floop_gateway_core.policy.pricing import Prices
from floop_gateway_core.providers.options import Options

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
        ("[upstream]\nnope = 1", "FILE: upstream.nope = 1: unknown key; allowed keys: attempts, connect_s"),
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


DEPLOYMENT = '[deployments.a]\nprovider = "{}"\n{}\n' + ROUTES.format("a")
PRICED = 'model = "m"\nmicrocredits_per_token = 1\n'


@pytest.mark.parametrize(
    ("provider", "keys", "expected"),
    [
        ("cohere", PRICED, "provider is 'cohere'; allowed are openai, anthropic, gemini, echo"),
        ("openai", "", "model is missing"),
        ("openai", 'model = "m"', "a price is missing"),
        ("openai", 'model = "m"\ninput_microcredits_per_token = 1', "a price is missing"),
        ("openai", 'model = "m"\nmicrocredits_per_token = true', "must be a number of micro-credits per token"),
        ("openai", PRICED + 'vocabulary = "gpt2"', "vocabulary is 'gpt2'; allowed are"),
        (
            "gemini",
            PRICED + 'thinking = "low"\nthinking_tokens = 5',
            "thinking and thinking_tokens must not both be set",
        ),
        ("openai", PRICED + "thinking_tokens = 5", "openai does not support thinking_tokens"),
        ("openai", PRICED + "thinking_allowance_tokens = 5", "thinking_allowance_tokens requires thinking"),
        ("openai", PRICED + 'base_url = "localhost:8000"', "base_url is 'localhost:8000'; it starts with http://"),
        ("openai", PRICED + 'max_tokens_field = "max"', "max_tokens_field = 'max'"),
        ("openai", PRICED + 'api_key_header = "a b"', "api_key_header"),
    ],
)
def test_a_deployment_that_cannot_be_asked_is_told_why(tmp_path: Path, provider: str, keys: str, expected: str) -> None:
    assert expected in told(tmp_path, DEPLOYMENT.format(provider, keys))


@pytest.mark.parametrize(
    ("keys", "secret"),
    [
        ('api_key = "sk-live-abcdef"', "sk-live-abcdef"),
        ('api_key_env = "sk-live-abcdef"', "sk-live-abcdef"),
        ('api_key_env = "Zk3uYxP0aQ9bB7cD2eF4gH6i"', "Zk3uYxP0aQ9bB7cD2eF4gH6i"),
        ('modle = "AIzaSyAbcdefgh"', "AIzaSyAbcdefgh"),
    ],
)
def test_a_message_never_quotes_what_may_be_a_secret(tmp_path: Path, keys: str, secret: str) -> None:
    message = told(tmp_path, DEPLOYMENT.format("openai", PRICED + keys))
    assert "deployments.a" in message
    assert secret not in message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        Settings.load(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b"# gr\xfc\xdfe")
    with pytest.raises(ConfigError, match=r"latin\.toml: cannot be read"):
        Settings.load(tmp_path / "latin.toml")
    (tmp_path / "broken.toml").write_text("[upstream\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: invalid TOML"):
        Settings.load(tmp_path / "broken.toml")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_bytes(b"\xef\xbb\xbf[upstream]\nattempts = 7\n")
    assert 7 == Settings.load(tmp_path / "gateway.toml").upstream.attempts


def test_specific_prices_override_the_flat_one() -> None:
    prices = DeploymentSettings(
        provider="openai", model="m", microcredits_per_token=2, output_microcredits_per_token=5
    ).prices
    assert Prices(*map(parse_rate, (2, 5, 2, 5))) == prices


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, 0),
        ({"thinking_tokens": 9}, 9),
        ({"thinking": "low"}, 4_096),
        ({"thinking": "low", "thinking_allowance_tokens": 7}, 7),
        ({"thinking": "ultra"}, 16_384),
    ],
)
def test_the_thinking_allowance_follows_from_budget_level_or_its_own_setting(
    options: dict[str, object], tokens: int
) -> None:
    assert tokens == Options.model_validate(options).thinking_allowance


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            {"store": "mysql://user:secret-word@host/db"},
            "store: must be memory://, or begin with sqlite:///, postgresql://",
        ),
        ({"store": "postgresql://"}, "store = 'postgresql://': must be memory://, or begin with"),
        ({"store": "memory://", "store_env": "URL"}, "store and store_env must not both be given"),
        ({"store_env": "MISSING"}, "store_env = 'MISSING': must name an environment variable that is set"),
        ({"store_env": "URL"}, "store_env: the URL is malformed"),
    ],
)
def test_a_store_that_cannot_be_opened_is_told_without_its_password(value: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway(Settings.read(value, source="gateway.toml"), environ={"URL": "postgresql://user:secret-word@["})
    assert said in str(raised.value)
    assert "secret-word" not in str(raised.value)


def test_a_store_is_shown_without_what_may_be_secret() -> None:
    assert "sqlite:///a.db" == shown("sqlite:///a.db")
    assert "postgresql://olga@host:5432/db" == shown("postgresql://olga:secret-word@host:5432/db?password=x")
