"""A conversation with tools and an image, by the vendors' SDKs, over every dialect and every upstream."""

import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anthropic
import anyio.to_thread
import httpx
import openai
import pydantic
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from floop_gateway_asgi import FloopGateway
from floop_gateway_core import Gateway, InvalidRequestError, Message, Microcredits, ProviderError, Settings, Usage
from floop_gateway_core.testing import Answer, Called, Hold, Reply, ScriptedUpstream, Status
from tests.serving import MOUNT, served

pytestmark = pytest.mark.anyio
VENDORS: Any = ("openai", "anthropic", "gemini")
SIGNATURES = {"openai": None, "anthropic": "sig-a", "gemini": "sig-g"}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
OPENAI_TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
]
ANTHROPIC_TOOLS: Any = [
    {"name": "weather", "description": "The weather.", "input_schema": WEATHER},
    {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the SDKs run in threads


def png(width: int = 40, height: int = 30) -> str:
    """Return a real image in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


class Site:
    """A gateway before a scripted upstream, served over a socket."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream, key: str, url: str) -> None:
        self.gateway, self.upstream, self.key, self.url = gateway, upstream, key, url + MOUNT
        self.clients: list[openai.OpenAI | anthropic.Anthropic] = []

    def openai(self, **options: Any) -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, **options)
        self.clients.append(client)
        return client

    def anthropic(self, **options: Any) -> anthropic.Anthropic:
        client = anthropic.Anthropic(base_url=self.url, api_key=self.key, max_retries=0, **options)
        self.clients.append(client)
        return client

    def sent(self, number: int = -1) -> Any:
        return json.loads(self.upstream.requests[number].body)


@asynccontextmanager
async def site(vendor: Any, *answers: Answer, **deployment: Any) -> AsyncIterator[Site]:
    async with ScriptedUpstream(*answers) as upstream:
        one = {
            "provider": vendor, "model": "m", "base_url": upstream.base_url(vendor), "api_key_env": "K",
            "microcredits_per_token": 100, **deployment,
        }  # fmt: skip
        plan = {"requests_per_minute": 1000, "daily_tokens": 10**9, "input_tokens": 10**6}
        settings = {
            "store": "memory://", "deployments": {"a": one}, "plans": {"default": plan},
            "routes": {alias: ["a"] for alias in ("fast", "smart", "reason")},
        }  # fmt: skip
        gateway = Gateway(Settings.read(settings, source="test"), environ={"K": "k"})
        new = await gateway.admin.create_project("p", credits=Microcredits(10**12))

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with gateway:
                yield

        app = Starlette(lifespan=lifespan, routes=[Mount(MOUNT, FloopGateway(gateway))])
        with served(app) as url:
            site = Site(gateway, upstream, new.key, url)
            yield site
            for client in site.clients:
                client.close()
            await gateway.aclose()  # the connections of this event loop


def two_calls(vendor: str) -> Reply:
    return Reply(
        texts=("Let me ", "look."),
        thinking=("Hmm.",) if vendor == "anthropic" else (),
        calls=(
            Called("weather", ('{"ci', 'ty": "Köln"}'), "call_1", SIGNATURES[vendor]),
            Called("clock", ("{}",), "call_2"),
        ),
        usage=Usage(50, 20),
    )


async def run(work: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(work)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_openais_sdk_runs_a_loop_of_tools_with_an_image(vendor: Any, streamed: bool) -> None:
    deployment = {"thinking_tokens": 2048} if vendor == "anthropic" else {}
    async with site(vendor, two_calls(vendor), Reply(texts=("Sunny.",)), **deployment) as s:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png()}"}}
        messages: list[Any] = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Where is this?"}, image]},
        ]

        def turn() -> Any:
            with s.openai() as ai:
                if not streamed:
                    return ai.chat.completions.create(model="smart", messages=messages, tools=OPENAI_TOOLS)
                with ai.chat.completions.stream(model="smart", messages=messages, tools=OPENAI_TOOLS) as stream:
                    return stream.get_final_completion()

        first = await run(turn)
        (choice,) = first.choices
        calls = choice.message.tool_calls
        assert ("tool_calls", "Let me look.") == (choice.finish_reason, choice.message.content)
        assert [("weather", {"city": "Köln"}), ("clock", {})] == [
            (call.function.name, json.loads(call.function.arguments)) for call in calls
        ]
        assert len({call.id for call in calls}) == 2
        if vendor != "gemini":
            assert ["call_1", "call_2"] == [call.id for call in calls]
        messages.append(choice.message.model_dump(exclude_none=True))
        messages += [
            {"role": "tool", "tool_call_id": calls[0].id, "content": "18 °C"},
            {"role": "tool", "tool_call_id": calls[1].id, "content": "noon"},
        ]
        second = await run(turn)
        assert ("stop", "Sunny.") == (second.choices[0].finish_reason, second.choices[0].message.content)
        CHECKS[vendor](s.sent(0), s.sent(1))
        records = [record async for record in s.gateway.usage("p")]
        assert [("complete", 50, 20), ("complete", 12, 4)] == [
            (record.ending, record.input_tokens, record.output_tokens) for record in records
        ]
        assert ["tool_use", "end_turn"] == [record.finish_reason for record in records]
        assert not any(record.estimated for record in records)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_anthropics_sdk_runs_a_loop_of_tools_with_an_image(vendor: Any, streamed: bool) -> None:
    deployment = {"thinking_tokens": 2048} if vendor == "anthropic" else {}
    async with site(vendor, two_calls(vendor), Reply(texts=("Sunny.",)), **deployment) as s:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png()}}
        messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Where is this?"}, image]}]

        def turn() -> Any:
            options: Any = {
                "model": "smart", "max_tokens": 500, "messages": messages, "tools": ANTHROPIC_TOOLS,
                "system": "Be brief.",
            }  # fmt: skip
            with s.anthropic() as ai:
                if not streamed:
                    return ai.messages.create(**options)
                with ai.messages.stream(**options) as stream:
                    return stream.get_final_message()

        first = await run(turn)
        assert "tool_use" == first.stop_reason
        kinds = [block.type for block in first.content]
        thinking = ["thinking"] if vendor == "anthropic" else []
        assert [*thinking, "text", "tool_use", "tool_use"] == kinds
        calls = [block for block in first.content if block.type == "tool_use"]
        assert [("weather", {"city": "Köln"}), ("clock", {})] == [(call.name, call.input) for call in calls]
        if vendor == "anthropic":
            assert ("Hmm.", "sig-a") == (first.content[0].thinking, first.content[0].signature)
        messages.append(
            {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]}
        )
        messages.append(
            {"role": "user", "content": [
                {"type": "text", "text": "Here."},
                {"type": "tool_result", "tool_use_id": calls[0].id, "content": "18 °C"},
                {"type": "tool_result", "tool_use_id": calls[1].id, "content": [{"type": "text", "text": "noon"}]},
            ]}
        )  # fmt: skip
        second = await run(turn)
        assert ("end_turn", "Sunny.") == (second.stop_reason, second.content[0].text)
        CHECKS[vendor](s.sent(0), s.sent(1))


def sent_to_openai(first: Any, second: Any) -> None:
    system, user = first["messages"]
    assert {"role": "system", "content": "Be brief."} == system
    assert f"data:image/png;base64,{png()}" == user["content"][1]["image_url"]["url"]
    assert ["weather", "clock"] == [tool["function"]["name"] for tool in first["tools"]]
    assert WEATHER == first["tools"][0]["function"]["parameters"]
    answer, *results = [one for one in second["messages"] if one["role"] in ("assistant", "tool")]
    assert "Let me look." == answer["content"]
    assert ["call_1", "call_2"] == [call["id"] for call in answer["tool_calls"]]
    assert {"city": "Köln"} == json.loads(answer["tool_calls"][0]["function"]["arguments"])
    assert [("call_1", "18 °C"), ("call_2", "noon")] == [(one["tool_call_id"], one["content"]) for one in results]


def sent_to_anthropic(first: Any, second: Any) -> None:
    assert "Be brief." == first["system"]
    assert {"type": "base64", "media_type": "image/png", "data": png()} == first["messages"][0]["content"][1]["source"]
    assert [WEATHER, {"type": "object", "properties": {}}] == [tool["input_schema"] for tool in first["tools"]]
    assert {"type": "enabled", "budget_tokens": 2048} == first["thinking"] == second["thinking"]
    answer, results = second["messages"][-2:]
    thinking = {"type": "thinking", "thinking": "Hmm.", "signature": "sig-a"}
    assert thinking == answer["content"][0]
    calls = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert [("call_1", "weather", {"city": "Köln"}), ("call_2", "clock", {})] == [
        (call["id"], call["name"], call["input"]) for call in calls
    ]
    found = [block for block in results["content"] if block["type"] == "tool_result"]
    assert [("call_1", "18 °C"), ("call_2", "noon")] == [
        (block["tool_use_id"], block["content"][0]["text"]) for block in found
    ]
    assert "tool_result" == results["content"][0]["type"]  # the vendor wants them first


def sent_to_gemini(first: Any, second: Any) -> None:
    assert [{"text": "Be brief."}] == first["systemInstruction"]["parts"]
    assert {"mimeType": "image/png", "data": png()} == first["contents"][0]["parts"][1]["inlineData"]
    functions = first["tools"][0]["functionDeclarations"]
    assert WEATHER == functions[0]["parametersJsonSchema"]
    answer, results = second["contents"][-2:]
    assert "model" == answer["role"]
    calls = [part for part in answer["parts"] if "functionCall" in part]
    assert {"name": "weather", "args": {"city": "Köln"}} == calls[0]["functionCall"]
    assert "sig-g" == calls[0]["thoughtSignature"]
    assert "thoughtSignature" not in calls[1]
    answers = [part["functionResponse"] for part in results["parts"] if "functionResponse" in part]
    assert [("weather", "18 °C"), ("clock", "noon")] == [(one["name"], one["response"]["output"]) for one in answers]


CHECKS = {"openai": sent_to_openai, "anthropic": sent_to_anthropic, "gemini": sent_to_gemini}


class City(pydantic.BaseModel):
    name: str
    people: int


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_pydantic_model_shapes_the_answer_for_both_sdks_and_in_process(vendor: Any) -> None:
    said = Reply(texts=('{"name": "Köln", ', '"people": 1}'))
    async with site(vendor, said, said, said) as s:

        def parse() -> Any:
            with s.openai() as ai:
                return ai.chat.completions.parse(
                    model="smart", messages=[{"role": "user", "content": "A city?"}], response_format=City
                )

        assert City(name="Köln", people=1) == (await run(parse)).choices[0].message.parsed
        answer = await s.gateway.as_project("p").chat([{"role": "user", "content": "A city?"}], response_format=City)
        assert City(name="Köln", people=1) == answer.parsed

        def create() -> Any:
            schema = {**City.model_json_schema(), "additionalProperties": False}
            with s.anthropic() as ai:
                return ai.messages.create(
                    model="smart", max_tokens=50, messages=[{"role": "user", "content": "A city?"}],
                    extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}},
                )  # fmt: skip

        assert {"name": "Köln", "people": 1} == json.loads((await run(create)).content[0].text)
        for number in range(3):
            sent = s.sent(number)
            schema = {
                "openai": lambda sent: sent["response_format"]["json_schema"]["schema"],
                "anthropic": lambda sent: sent["output_config"]["format"]["schema"],
                "gemini": lambda sent: sent["generationConfig"]["responseJsonSchema"],
            }[vendor](sent)
            assert ["name", "people"] == list(schema["properties"])


@pytest.mark.parametrize("vendor", VENDORS)
async def test_calls_within_the_process_have_tools(vendor: Any) -> None:
    async with site(vendor, two_calls(vendor), Reply(texts=("Sunny.",))) as s:
        calls = s.gateway.as_project("p")
        messages: list[Any] = [{"role": "user", "content": "The weather?"}]
        answer = await calls.chat(messages, tools=OPENAI_TOOLS, model="smart")
        assert ["weather", "clock"] == [call.name for call in answer.tool_calls]
        assert '{"city": "Köln"}' == json.dumps(json.loads(answer.tool_calls[0].arguments), ensure_ascii=False)
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": text}
            for call, text in zip(answer.tool_calls, ("18 °C", "noon"), strict=True)
        ]
        second = await calls.chat([*messages, answer.message, *results], tools=OPENAI_TOOLS, model="smart")
        assert "Sunny." == second.content
        with pytest.raises(InvalidRequestError, match=r"messages\[1\].tool_calls\[0\]"):
            await calls.chat([Message.of("user", "x"), {"role": "assistant", "tool_calls": [7]}], tools=OPENAI_TOOLS)
        sent = json.dumps(s.sent(), ensure_ascii=False)
        assert all(text in sent for text in ("weather", "18 °C", "noon"))


async def test_what_a_route_cannot_do_is_refused_by_name_or_done_by_the_next_deployment() -> None:
    async with site("gemini") as s:

        def one_at_a_time() -> Any:
            with s.openai() as ai:
                return ai.chat.completions.create(
                    model="smart", messages=[{"role": "user", "content": "x"}], tools=OPENAI_TOOLS,
                    parallel_tool_calls=False,
                )  # fmt: skip

        with pytest.raises(openai.BadRequestError) as refused:
            await run(one_at_a_time)
        assert ("parallel_tool_calls", "VALIDATION_ERROR") == (refused.value.param, refused.value.code)
    async with site("anthropic", tools=False) as s:
        with pytest.raises(openai.BadRequestError) as refused:
            await run(lambda: s.openai().chat.completions.create(
                model="smart", messages=[{"role": "user", "content": "x"}], tools=OPENAI_TOOLS))  # fmt: skip
        assert "tools" == refused.value.param
        assert not s.upstream.requests
    async with site("anthropic") as s:
        with pytest.raises(openai.BadRequestError) as refused:
            await run(lambda: s.openai().chat.completions.create(
                model="smart", messages=[{"role": "user", "content": "x"}],
                response_format={"type": "json_object"}))  # fmt: skip
        assert "response_format" == refused.value.param


async def test_claude_codes_first_request_reaches_anthropic_as_it_is() -> None:
    body: dict[str, Any] = {
        "model": "smart", "max_tokens": 32000, "stream": True,
        "system": [{"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Fix it.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"role": "system", "content": "A reminder."},
        ],
        "tools": [{**ANTHROPIC_TOOLS[0], "eager_input_streaming": True}],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"}, "thinking": {"type": "adaptive"},
        "metadata": {"user_id": "user_1"},
    }  # fmt: skip
    betas = "claude-code-20250219,oauth-2025-04-20,interleaved-thinking-2025-05-14,a-1,b-2,c-3,d-4"
    async with site("anthropic", two_calls("anthropic"), thinking="high") as s:

        def send() -> Any:
            with s.anthropic() as ai:
                answer: Any = ai.post(
                    "/v1/messages?beta=true", cast_to=str, body=body,
                    options={"headers": {"anthropic-beta": betas}},
                )  # fmt: skip
                return answer

        text = await run(send)
        assert text.count("event: content_block_start") == text.count("event: content_block_stop") == 4
        sent = s.sent()
        assert {"role": "system", "content": "A reminder."} == sent["messages"][1]
        assert body["system"] == sent["system"]
        assert body["messages"][0] == sent["messages"][0]
        assert body["context_management"] == sent["context_management"]
        assert ({"type": "adaptive"}, {"effort": "medium"}) == (sent["thinking"], sent["output_config"])
        assert sent["tools"][0]["eager_input_streaming"] is True
        headers = {name.lower(): value for name, value in s.upstream.requests[0].headers.items()}
        assert betas == headers["anthropic-beta"]
        (record,) = [record async for record in s.gateway.usage("p")]
        assert ("complete", {"user": "user_1"}) == (record.ending, dict(record.tags))


async def test_thoughts_that_do_not_come_back_turn_thinking_off_for_the_turn() -> None:
    async with site("anthropic", thinking_tokens=2048) as s:
        messages: Any = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": [
                {"id": "é/1", "type": "function", "function": {"name": "weather", "arguments": "[1]"}}]},
            {"role": "tool", "tool_call_id": "é/1", "content": "y"},
        ]  # fmt: skip
        await run(lambda: s.openai().chat.completions.create(model="smart", messages=messages, tools=OPENAI_TOOLS))
        await run(lambda: s.openai().chat.completions.create(model="smart", messages=messages))
        sent = s.sent()  # a turn without tools: the vendor wants those named that were called
        assert [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}] == sent["tools"]
        assert {"type": "none"} == sent["tool_choice"]
        sent = s.sent(0)
        assert "thinking" not in sent
        call, result = sent["messages"][1]["content"][0], sent["messages"][2]["content"][0]
        assert {"_raw": "[1]"} == call["input"]
        assert call["id"] == result["tool_use_id"] != "é/1"


async def test_an_image_that_a_tool_returns_reaches_every_vendor() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png()}}
    messages: Any = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "is_error": True,
             "content": [{"type": "text", "text": "no"}, image]}]},
    ]  # fmt: skip
    for vendor in VENDORS:
        async with site(vendor) as s:
            create = s.anthropic().messages.create
            await run(partial(create, model="smart", max_tokens=9, messages=messages, tools=ANTHROPIC_TOOLS))
            sent = json.dumps(s.sent())
            assert png() in sent
            assert {"openai": "Error: no", "anthropic": '"is_error": true', "gemini": '"error": "no"'}[vendor] in sent


async def test_an_upstream_that_fails_between_two_pieces_of_a_call_is_told_and_billed() -> None:
    from floop_gateway_core.testing import Break

    broken = Reply(
        texts=("Look.",), calls=(Called("weather", ('{"ci', 'ty": 1}')),), usage=None, broken=Break("eof", "text", 3)
    )
    async with site("openai", broken) as s:

        def stream() -> list[Any]:
            with s.openai() as ai:
                return list(
                    ai.chat.completions.create(
                        model="smart", messages=[{"role": "user", "content": "x"}], tools=OPENAI_TOOLS, stream=True
                    )
                )

        with pytest.raises(openai.APIError):
            await run(stream)
        (record,) = [record async for record in s.gateway.usage("p")]
        assert ("upstream_error", True) == (record.ending, record.microcredits > 0)


async def test_what_the_models_server_refuses_is_told_as_the_clients_mistake_without_its_words() -> None:
    said = {
        "error": {
            "message": "secret-word",
            "type": "invalid_request_error",
            "param": "messages[1].content",
            "code": "bad",
        }
    }
    async with site("openai", *[Status(400, body=json.dumps(said).encode())] * 3) as s:
        ask: Any = {"model": "smart", "messages": [{"role": "user", "content": "x"}]}
        with pytest.raises(openai.BadRequestError) as refused:
            await run(partial(s.openai().chat.completions.create, **ask))
        assert "The model's server refused the request (messages[1].content)." in str(refused.value)
        assert "secret-word" not in str(refused.value)
        with pytest.raises(anthropic.BadRequestError):
            await run(partial(s.anthropic().messages.create, max_tokens=5, **ask))
        with pytest.raises(ProviderError):
            await s.gateway.as_project("p").chat(ask["messages"], model="smart")
        records = [record async for record in s.gateway.usage("p")]
        assert [(400, "upstream_error", 0)] * 2 + [(502, "upstream_error", 0)] == [
            (record.status, record.ending, record.microcredits) for record in records
        ]


async def test_a_refusal_has_its_text_where_openai_puts_it() -> None:
    async with site("openai", *[Reply(["I ", "won't."], finish="refusal")] * 2) as one:
        client = one.openai()
        ask = partial(client.chat.completions.create, model="smart", messages=[{"role": "user", "content": "hi"}])
        choice = (await anyio.to_thread.run_sync(ask)).choices[0]
        assert ("stop", None, "I won't.") == (choice.finish_reason, choice.message.content, choice.message.refusal)
        stream = await anyio.to_thread.run_sync(partial(ask, stream=True))
        told: Any = await anyio.to_thread.run_sync(list, stream)
        chunks = [chunk.choices[0] for chunk in told]
        assert "I won't." == "".join(chunk.delta.refusal or "" for chunk in chunks)
        assert "" == "".join(chunk.delta.content or "" for chunk in chunks)
        assert "stop" == chunks[-1].finish_reason


async def test_a_refusal_of_another_vendors_is_filtered_content() -> None:
    async with site("anthropic", Reply(["I won't."], finish="refusal")) as one:
        client = one.openai()
        ask = partial(client.chat.completions.create, model="smart", messages=[{"role": "user", "content": "hi"}])
        choice = (await anyio.to_thread.run_sync(ask)).choices[0]
        assert ("content_filter", "I won't.", None) == (
            choice.finish_reason, choice.message.content, choice.message.refusal,
        )  # fmt: skip


async def test_a_refusal_is_text_in_the_other_dialects() -> None:
    async with site("openai", *[Reply(["I ", "won't."], finish="refusal")] * 2) as one:
        ask = partial(one.anthropic().messages.create, model="smart", messages=[{"role": "user", "content": "hi"}])
        message = await anyio.to_thread.run_sync(partial(ask, max_tokens=99))
        assert ("refusal", "I won't.") == (message.stop_reason, message.content[0].model_dump()["text"])
        answer = await one.gateway.chat(one.key, [{"role": "user", "content": "hi"}], model="smart")
        assert ("refusal", "I won't.") == (answer.finish_reason, answer.content)


async def test_what_is_written_to_anthropics_cache_is_told_and_priced() -> None:
    usage = Usage(100, 10, cached_tokens=30, cache_written_tokens=20)
    prices = {"cached_input_microcredits_per_token": 10, "cache_write_input_microcredits_per_token": 125}
    async with site("anthropic", *[Reply(["Yes."], usage=usage)] * 2, **prices) as one:
        ask = partial(
            one.anthropic().messages.create, model="smart", messages=[{"role": "user", "content": "hi"}], max_tokens=99
        )
        told = (await anyio.to_thread.run_sync(ask)).usage
        counts = told.input_tokens, told.cache_creation_input_tokens, told.cache_read_input_tokens
        assert (50, 20, 30) == counts
        (record,) = [record async for record in one.gateway.store.usage()]
        assert 50 * 100 + 20 * 125 + 30 * 10 + 10 * 100 == record.microcredits
        stream = await anyio.to_thread.run_sync(partial(ask, stream=True))
        events: Any = await anyio.to_thread.run_sync(list, stream)
        start = events[0].message.usage
        counts = start.input_tokens, start.cache_creation_input_tokens, start.cache_read_input_tokens
        assert (50, 20, 30) == counts


async def test_an_effort_of_the_clients_goes_upstream_and_is_held() -> None:
    async with site("openai", Reply(["Yes."]), thinking="low") as one:
        client = one.openai()
        ask = partial(
            client.chat.completions.with_raw_response.create, model="smart", reasoning_effort="high", max_tokens=50,
            messages=[{"role": "user", "content": "hi"}],
        )  # fmt: skip
        answer = await anyio.to_thread.run_sync(ask)
        assert "reasoning_effort" not in answer.headers.get("x-gateway-ignored", "")
        sent = one.sent()
        assert ("high", 50 + 16_384) == (
            sent["reasoning_effort"],
            sent.get("max_completion_tokens", sent.get("max_tokens")),
        )


async def test_a_schema_that_the_vendor_would_refuse_is_refused_by_its_place() -> None:
    limited = {**WEATHER, "properties": {"city": {"type": "string", "maxLength": 9}}}
    async with site("anthropic", Reply(['{"city": "x"}'])) as one:
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "w", "schema": limited}}
        ask = partial(one.openai().chat.completions.create, model="smart", messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(openai.BadRequestError) as caught:
            await anyio.to_thread.run_sync(partial(ask, response_format=wanted))
        assert "response_format.json_schema.schema.properties.city.maxLength" == caught.value.param
        assert 0 == len(one.upstream.requests)

        class City(pydantic.BaseModel):
            city: str = pydantic.Field(max_length=9)
            default: int | None = None

        answer = await one.gateway.chat(
            one.key, [{"role": "user", "content": "hi"}], model="smart", response_format=City
        )
        assert "x" == answer.parsed.city  # a model's own limits are checked here, not by the vendor


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("vendor", VENDORS)
async def test_odd_arguments_and_numbers_of_a_clients_never_open_a_breaker(vendor: Any) -> None:
    async with site(vendor, *[Reply(["Yes."])] * 12) as one:
        ask = partial(one.openai().chat.completions.create, model="smart", max_tokens=9)
        for arguments in (
            nested(150),
            nested(400),
            nested(973),
            nested(20_000),
            "[1]",
            "{",
            '{"a": NaN}',
            '{"a": 1e999}',
        ):
            call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
            messages: Any = [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "18"},
            ]
            answer = await anyio.to_thread.run_sync(partial(ask, messages=messages, tools=OPENAI_TOOLS))
            assert "Yes." == answer.choices[0].message.content, arguments[:50]
        sent = one.upstream.requests[-1].body
        assert b"Infinity" not in sent
        if vendor != "openai":
            assert b"_raw" in sent


@pytest.mark.parametrize(
    ("member", "value"),
    [("metadata", 1), ("tools", 2), ("unknown", 3), ("system", 4)],
)
async def test_a_number_beyond_a_float_is_no_json(member: str, value: int) -> None:
    async with site("anthropic") as one, httpx.AsyncClient() as client:
        for path in ("/v1/messages", "/v1/chat/completions", "/chat"):
            body = (
                f'{{"messages": [{{"role": "user", "content": "hi"}}], "max_tokens": 9, "{member}": [{{"x": 1e999}}]}}'
            )
            headers = {"Authorization": f"Bearer {one.key}"}
            answer = await client.post(f"{one.url}{path}", content=body.encode(), headers=headers)
            assert 400 == answer.status_code, answer.text
            deep = body.replace("1e999", nested(300)).encode()
            assert 400 == (await client.post(f"{one.url}{path}", content=deep, headers=headers)).status_code
        assert not one.upstream.requests


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"a": "\\ud800"}', {"a": "\ufffd"}),
        ('{"\\ud83d\\ude00": 1}', {"😀": 1}),
        ('{"a": NaN}', {}),
        ('{"a": 1e999}', {}),
        (nested(300), {}),
    ],
)
async def test_odd_arguments_of_an_upstreams_are_a_valid_answer(arguments: str, told: Any) -> None:
    async with site("openai", *[Reply(["Look."], calls=(Called("weather", (arguments,)),))] * 2) as one:
        ask = partial(
            one.anthropic().messages.create, model="smart", messages=[{"role": "user", "content": "hi"}], max_tokens=999,
            tools=ANTHROPIC_TOOLS,
        )  # fmt: skip
        message = await anyio.to_thread.run_sync(ask)
        assert told == message.content[-1].model_dump()["input"]
        assert "tool_use" == message.stop_reason


async def test_the_sdks_retry_and_time_out() -> None:
    failing = [Status(500)] * 3  # all attempts of the gateway's, so the SDK asks again
    async with site("openai", *failing, Reply(["Yes."]), *failing, Reply(["Yes."])) as one:
        chat = partial(
            one.openai().with_options(max_retries=1).chat.completions.create, model="smart",
            messages=[{"role": "user", "content": "hi"}],
        )  # fmt: skip
        assert "Yes." == (await anyio.to_thread.run_sync(chat)).choices[0].message.content
        message = partial(
            one.anthropic().with_options(max_retries=1).messages.create, model="smart", max_tokens=99,
            messages=[{"role": "user", "content": "hi"}],
        )  # fmt: skip
        assert "Yes." == (await anyio.to_thread.run_sync(message)).content[0].model_dump()["text"]

    slow = Reply(["one"], hold=Hold(anyio.Event(), at="head"))
    async with site("openai", slow, slow) as one:
        with pytest.raises(openai.APITimeoutError):
            await anyio.to_thread.run_sync(
                partial(
                    one.openai(timeout=0.3).chat.completions.create, model="smart",
                    messages=[{"role": "user", "content": "hi"}],
                )
            )  # fmt: skip
        with pytest.raises(anthropic.APITimeoutError):
            await anyio.to_thread.run_sync(
                partial(
                    one.anthropic(timeout=0.3).messages.create, model="smart", max_tokens=99,
                    messages=[{"role": "user", "content": "hi"}],
                )
            )  # fmt: skip
        with anyio.fail_after(10):
            while len(records := [record async for record in one.gateway.store.usage()]) < 2:
                await anyio.sleep(0.01)
        assert {"client_gone"} == {record.ending for record in records}
