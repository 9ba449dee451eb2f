"""Anthropic's dialect, judged by Anthropic's own SDK over real sockets on every host."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.dialects.anthropic.parse import parse
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call
from tests.dialects.conftest import Site
from tests.dialects.test_openai_sdk import json_values
from tests.serving import records

HELLO: Any = [{"role": "user", "content": "one two three"}]


def client(site: Site, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=site.url, api_key=site.key, **{"max_retries": 0, **options})


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content)


def test_a_message_and_a_stream_say_the_same(site: Site) -> None:
    with client(site) as ai:
        answer = ai.messages.create(
            model="claude-opus-5", max_tokens=50, system="Be brief.", messages=HELLO, metadata={"user_id": "ann"}
        )
        assert (text_of(answer), answer.stop_reason, answer.model) == ("one two three", "end_turn", "claude-opus-5")
        with ai.messages.stream(model="claude-haiku-4", max_tokens=50, system="Be brief.", messages=HELLO) as stream:
            texts = list(stream.text_stream)
            final = stream.get_final_message()
        assert "".join(texts) == "one two three"
        assert (text_of(final), final.stop_reason) == ("one two three", "end_turn")
        assert final.usage.output_tokens == answer.usage.output_tokens == 3
        assert final.usage.input_tokens == answer.usage.input_tokens == 5
    first, second = records(site.gateway)
    assert answer.id == "msg_" + first.request_id.removeprefix("req_")
    assert answer._request_id == first.request_id
    assert (first.dialect, first.alias, dict(first.tags)) == ("anthropic", "smart", {"user": "ann"})
    assert (second.alias, second.streamed) == ("fast", True)


def test_the_asynchronous_client_does_the_same(site: Site) -> None:
    async def ask() -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=site.url, auth_token=site.key, max_retries=0) as ai,
            ai.messages.stream(model="auto", max_tokens=50, messages=HELLO) as stream,
        ):
            return "".join([text async for text in stream.text_stream])

    assert asyncio.run(ask()) == "one two three"


def test_tokens_are_counted_without_a_record(site: Site) -> None:
    with client(site) as ai:
        counted = ai.messages.count_tokens(model="auto", messages=HELLO, system="Be brief.")
        assert 3 <= counted.input_tokens <= 30
        with pytest.raises(anthropic.BadRequestError):
            ai.messages.count_tokens(model="nothing", messages=HELLO)
        assert {"auto", "fast"} <= {model.id for model in ai.models.list()}
    assert [record.ending for record in records(site.gateway)] == ["refused"]


def test_sampling_and_stop_sequences_are_read(site: Site) -> None:
    with client(site) as ai:
        answer = ai.messages.create(
            model="auto",
            max_tokens=50,
            messages=HELLO,
            stop_sequences=["two"],
            extra_body={"top_k": 5, "top_p": 0.9, "temperature": 0.5},
        )
        assert (text_of(answer), answer.stop_reason) == ("one ", "stop_sequence")
        cut = ai.messages.create(model="auto", max_tokens=1, messages=HELLO)
        assert cut.stop_reason == "max_tokens"
        turns: Any = [
            *HELLO,
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Yes."},
            ]},
            {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "then"}]},
        ]  # fmt: skip
        assert text_of(ai.messages.create(model="auto", max_tokens=50, messages=turns)) == "and then"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tools": [{"name": "f", "input_schema": {"type": "object"}}]}, "tools"),
        ({"extra_body": {"temperature": 2}}, "temperature"),
        ({"extra_body": {"mcp_servers": [{}]}}, "mcp_servers"),
        ({"extra_body": {"output_config": {"format": {"type": "json_schema"}}}}, "output_config.format"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0].source",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(site: Site, options: Any, named: str) -> None:
    with client(site) as ai, pytest.raises(anthropic.BadRequestError) as caught:
        ai.messages.create(**{"model": "auto", "max_tokens": 5, "messages": HELLO, **options})
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"].startswith(named)
    assert body["request_id"] == caught.value.response.headers["request-id"]


def test_each_error_is_the_sdks_own_class(make_site: Callable[..., Site]) -> None:
    poor = make_site(credits=0, plan={"requests_per_minute": 2})
    with client(poor) as ai:
        with pytest.raises(anthropic.APIStatusError) as broke:
            ai.messages.create(model="auto", max_tokens=5, messages=HELLO)
        assert (broke.value.status_code, broke.value.body["error"]["type"]) == (402, "billing_error")  # type: ignore[index]
        with pytest.raises(anthropic.NotFoundError):
            ai.models.retrieve("gpt-2")
        with pytest.raises(anthropic.RateLimitError):
            ai.messages.create(model="auto", max_tokens=5, messages=HELLO)
    stranger = anthropic.Anthropic(base_url=poor.url, api_key="nothing", max_retries=0)
    with stranger as ai, pytest.raises(anthropic.AuthenticationError):
        ai.messages.create(model="auto", max_tokens=5, messages=HELLO)


def test_errors_are_in_the_vendors_envelope_wherever_its_version_is_sent(make_site: Callable[..., Site]) -> None:
    site = make_site()
    marked = {"anthropic-version": "2023-06-01"}
    assert httpx.get(f"{site.url}/v1/models", headers=marked).json()["type"] == "error"
    assert "type" not in httpx.get(f"{site.url}/v1/models").json()
    assert httpx.get(f"{site.url}/v1/messages").json()["type"] == "error"
    assert "type" not in httpx.get(f"{site.url}/chat", headers=marked).json()


@given(st.dictionaries(
    st.sampled_from(("messages", "model", "system", "tools", "thinking", "metadata", "stop_sequences", "output_config"))
    | st.text(max_size=8),
    json_values, max_size=6,
))  # fmt: skip
def test_no_body_raises(value: Any) -> None:
    assert isinstance(parse(json.dumps(value).encode()), Call | Refusal)
