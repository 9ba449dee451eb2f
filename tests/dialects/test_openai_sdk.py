"""OpenAI's dialect, judged by OpenAI's own SDK over real sockets on every host."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.dialects.openai.parse import parse
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call
from tests.dialects.conftest import Site
from tests.serving import records

HELLO: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three"}]


def client(site: Site, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key, **{"max_retries": 0, **options})


def test_a_chat_and_a_stream_say_the_same(site: Site) -> None:
    with client(site) as ai:
        answer = ai.chat.completions.create(model="auto", messages=HELLO, user="ann", metadata={"team": "x"})
        assert answer.choices[0].message.content == "one two three"
        assert answer.choices[0].finish_reason == "stop"
        assert (answer.model, answer.object) == ("auto", "chat.completion")
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        stream = ai.chat.completions.create(
            model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
        assert len({chunk.id for chunk in chunks}) == 1
    first, second = records(site.gateway)
    assert answer.id == "chatcmpl-" + first.request_id.removeprefix("req_")
    assert answer.created == int(first.started_at)
    assert (first.dialect, dict(first.tags)) == ("openai", {"user": "ann", "team": "x"})
    assert (second.dialect, second.streamed, second.ending) == ("openai", True, "complete")


def test_the_helpers_for_streams_and_raw_responses_work(site: Site) -> None:
    with client(site) as ai:
        with ai.chat.completions.stream(model="fast", messages=HELLO) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.content == "one two three"
        raw = ai.chat.completions.with_raw_response.create(model="fast", messages=HELLO, stop=["two"], max_tokens=9)
        assert raw.headers["x-gateway-model"] == "echo"
        assert raw.parse().choices[0].message.content == "one "
        cut = ai.chat.completions.create(model="fast", messages=HELLO, max_completion_tokens=1)
        assert cut.choices[0].finish_reason == "length"


def test_the_asynchronous_client_does_the_same(site: Site) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key=site.key, max_retries=0) as ai:
            stream = await ai.chat.completions.create(model="smart", messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == "one two three"


def test_models_are_those_that_the_key_may_name(site: Site) -> None:
    with client(site) as ai:
        names = [model.id for model in ai.models.list()]
        assert names == ["auto", "fast", "smart", "reason", "echo", "gpt-5"]
        assert ai.models.retrieve("fast").id == "fast"
        with pytest.raises(openai.NotFoundError):
            ai.models.retrieve("gpt-2")
        mapped = ai.chat.completions.create(model="gpt-5", messages=HELLO)
        assert mapped.model == "gpt-5"
    (record,) = records(site.gateway)  # a list of models leaves none
    assert (record.alias, record.deployment) == ("smart", "echo")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}]},
         "messages[0].content[0].image_url.url"),
        ({"messages": [*HELLO, {"role": "tool", "tool_call_id": "a", "content": "x"}]}, "messages[2]"),
        ({"messages": []}, "messages"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_by_name(site: Site, options: Any, param: str) -> None:
    with client(site) as ai, pytest.raises(openai.BadRequestError) as caught:
        ai.chat.completions.create(**{"model": "auto", "messages": HELLO, **options})
    assert (caught.value.param, caught.value.code, caught.value.type) == (
        param, "VALIDATION_ERROR", "invalid_request_error",
    )  # fmt: skip


def test_defaults_and_unknown_members_are_not_refused(site: Site) -> None:
    with client(site) as ai:
        raw = ai.chat.completions.with_raw_response.create(
            model="auto", messages=HELLO, n=1, logprobs=False, tools=[], tool_choice="auto", parallel_tool_calls=True,
            response_format={"type": "text"}, reasoning_effort="low", extra_body={"best_of": 1},
        )  # fmt: skip
    assert raw.headers["x-gateway-ignored"] == "best_of, reasoning_effort"


def test_each_error_is_the_sdks_own_class(make_site: Callable[..., Site]) -> None:
    poor = make_site(credits=0)
    with client(poor) as ai:
        with pytest.raises(openai.APIStatusError) as broke:
            ai.chat.completions.create(model="auto", messages=HELLO)
        assert (broke.value.status_code, broke.value.type) == (402, "insufficient_quota")
        with pytest.raises(openai.BadRequestError) as unknown:
            ai.chat.completions.create(model="gpt-2", messages=HELLO)
        assert unknown.value.code == "INVALID_MODEL"
        with pytest.raises(openai.NotFoundError):
            ai.responses.create(model="auto", input="x")
    limited = make_site(plan={"requests_per_minute": 1, "input_tokens": 50})
    with client(limited) as ai:
        with pytest.raises(openai.BadRequestError, match=r"prompt is too long: \d+ tokens > 50 maximum context length"):
            ai.chat.completions.create(model="auto", messages=[{"role": "user", "content": "word " * 100}])
        with pytest.raises(openai.RateLimitError) as rate:
            ai.chat.completions.create(model="auto", messages=HELLO)
        assert rate.value.type == "rate_limit_error"
    with openai.OpenAI(base_url=f"{poor.url}/v1", api_key="flp_sk_" + "x" * 33, max_retries=0) as ai:
        with pytest.raises(openai.AuthenticationError) as stranger:
            ai.models.list()
        assert stranger.value.type == "authentication_error"
    with client(poor) as ai, pytest.raises(openai.InternalServerError):
        ai.embeddings.create(model="auto", input="x")


def test_a_dialect_that_is_off_is_not_there(make_site: Callable[..., Site]) -> None:
    site = make_site(dialects={"openai": False})
    headers = {"Authorization": f"Bearer {site.key}"}
    chat = httpx.post(f"{site.url}/v1/chat/completions", json={}, headers=headers)
    assert (chat.status_code, chat.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert httpx.get(f"{site.url}/v1/models", headers=headers).json()["data"]
    neither = make_site(dialects={"openai": False, "anthropic": False})
    assert httpx.get(f"{neither.url}/v1/models").json()["error"].keys() == {"code", "message"}


def test_a_repeated_chat_has_the_first_ones_id(site: Site) -> None:
    with client(site) as ai:
        headers = {"Idempotency-Key": "order-1"}
        first, again = (
            ai.chat.completions.create(model="auto", messages=HELLO, extra_headers=headers) for _ in range(2)
        )
    assert first == again
    assert [record.ending for record in records(site.gateway)] == ["complete", "replayed"]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("messages", "model", "stop", "tools", "n", "metadata", "user", "stream", "stream_options", "response_format")


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), json_values, max_size=6))
def test_no_body_raises(value: Any) -> None:
    assert isinstance(parse(json.dumps(value).encode()), Call | Refusal)


@given(st.lists(st.fixed_dictionaries({}, optional={"role": json_values, "content": json_values}), max_size=4))
def test_no_messages_raise(messages: Any) -> None:
    assert isinstance(parse(json.dumps({"messages": messages}).encode()), Call | Refusal)
