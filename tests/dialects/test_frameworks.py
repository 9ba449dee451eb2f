"""LangChain and Pydantic AI before every vendor: chats, streams, tools, structured output, errors."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx
import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from pydantic_ai import Agent, ModelHTTPError, Tool
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from floop_gateway_core import Usage
from floop_gateway_core.testing import Break, Called, Reply
from tests.dialects.test_tools import SIGNATURES, VENDORS, Site, site

pytestmark = pytest.mark.anyio
EACH = pytest.mark.parametrize("vendor", VENDORS)
Make = Callable[["Clients", Site], Model]
ASK = "What is the weather in Köln?"


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@tool
def weather(city: str) -> str:
    """Return the weather."""
    return f"18 degrees in {city}"


def asks_for_the_weather(vendor: str) -> Reply:
    called = Called("weather", ('{"city"', ': "Köln"}'), "call_1", SIGNATURES[vendor])
    thinking = ("Hmm.",) if vendor == "anthropic" else ()
    return Reply(["Let me look."], thinking=thinking, calls=(called,), usage=Usage(50, 20))


class Clients:
    """Makes the frameworks' clients over connections that the test closes."""

    def __init__(self, http: httpx.AsyncClient, sync: httpx.Client) -> None:
        self.http, self.sync = http, sync
        self.sdks: list[openai.AsyncOpenAI | anthropic.AsyncAnthropic] = []

    def langchain(self, one: Site, **options: Any) -> ChatOpenAI:
        options = {"api_key": SecretStr(one.key), "http_async_client": self.http, "http_client": self.sync, **options}
        return ChatOpenAI(model="smart", base_url=f"{one.url}/v1", max_retries=0, **options)

    def openai_model(self, one: Site, name: str = "smart") -> OpenAIChatModel:
        client = openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key=one.key, max_retries=0)
        self.sdks.append(client)
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))

    def anthropic_model(self, one: Site) -> AnthropicModel:
        client = anthropic.AsyncAnthropic(base_url=one.url, api_key=one.key, max_retries=0)
        self.sdks.append(client)
        return AnthropicModel("smart", provider=AnthropicProvider(anthropic_client=client))


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    async with httpx.AsyncClient(timeout=30) as http:
        with httpx.Client(timeout=30) as sync:
            made = Clients(http, sync)
            yield made
            for sdk in made.sdks:
                await sdk.close()


@EACH
async def test_langchain_chats_and_streams(clients: Clients, vendor: Any) -> None:
    async with site(vendor, *[Reply(["Hello", ", ", "world."], usage=Usage(9, 4))] * 2) as one:
        chat = clients.langchain(one, stream_usage=True)
        answer = await chat.ainvoke("Hi")
        assert ("Hello, world.", 9, 4) == (
            answer.text, answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"],  # type: ignore[index]
        )  # fmt: skip
        pieces = [piece async for piece in chat.astream("Hi")]
        assert "Hello, world." == "".join(piece.text for piece in pieces)
        assert 13 == sum((piece.usage_metadata or {"total_tokens": 0})["total_tokens"] for piece in pieces)


@EACH
async def test_langchain_calls_tools(clients: Clients, vendor: Any) -> None:
    async with site(vendor, asks_for_the_weather(vendor), Reply(["18 degrees."])) as one:
        chat = clients.langchain(one).bind_tools([weather])
        messages: list[Any] = [HumanMessage(ASK)]
        asked = await chat.ainvoke(messages)
        assert isinstance(asked, AIMessage)
        (call,) = asked.tool_calls
        assert ("weather", {"city": "Köln"}) == (call["name"], call["args"])
        result = weather.invoke(call)
        assert isinstance(result, ToolMessage)
        answer = await chat.ainvoke([*messages, asked, result])
        assert "18 degrees." == answer.text
        assert "18 degrees in Köln" in one.upstream.requests[-1].body.decode()


@EACH
async def test_langchain_reads_structured_output(clients: Clients, vendor: Any) -> None:
    async with site(vendor, Reply(['{"city": "Köln", ', '"degrees": 18}'])) as one:
        chat = clients.langchain(one).with_structured_output(Weather, method="json_schema")
        assert Weather(city="Köln", degrees=18) == await chat.ainvoke(ASK)


async def test_langchain_sees_errors_and_cut_streams(clients: Clients) -> None:
    cut = Reply(["one ", "two ", "three"], broken=Break("reset", at="text"))
    async with site("openai", cut) as one:
        with pytest.raises(openai.AuthenticationError):
            await ChatOpenAI(
                model="smart", base_url=f"{one.url}/v1", api_key=SecretStr("flp_sk_wrong"), max_retries=0
            ).ainvoke("Hi")
        with pytest.raises(openai.BadRequestError):
            await clients.langchain(one, n=2).ainvoke("Hi")
        with pytest.raises((openai.APIError, ValueError)):
            [piece async for piece in clients.langchain(one).astream("Hi")]


MODELS = pytest.mark.parametrize("model", [Clients.openai_model, Clients.anthropic_model])


@MODELS
@EACH
async def test_pydantic_ai_runs_agents_with_tools(clients: Clients, vendor: Any, model: Make) -> None:
    async with site(vendor, asks_for_the_weather(vendor), Reply(["18 degrees."], usage=Usage(60, 5))) as one:
        done = await Agent(model(clients, one), tools=[Tool(weather_of, name="weather")]).run(ASK)
        assert "18 degrees." == done.output
        assert "18 degrees in Köln" in one.upstream.requests[-1].body.decode()


def weather_of(city: str) -> str:
    """Return the weather."""
    return f"18 degrees in {city}"


@MODELS
@EACH
async def test_pydantic_ai_streams_and_returns_typed_values(clients: Clients, vendor: Any, model: Make) -> None:
    value = Called("final_result", ('{"city": "Köln", "degrees": 18}',), "call_1", SIGNATURES[vendor])
    async with site(vendor, Reply(["Hello", ", world."]), Reply([], calls=(value,))) as one:
        async with Agent(model(clients, one)).run_stream("Hi") as streamed:
            assert "Hello, world." == await streamed.get_output()
        done = await Agent(model(clients, one), output_type=Weather).run(ASK)
        assert Weather(city="Köln", degrees=18) == done.output


async def test_pydantic_ai_sees_errors(clients: Clients) -> None:
    async with site("openai") as one:
        with pytest.raises(ModelHTTPError) as caught:
            await Agent(clients.openai_model(one, "nonsense")).run("Hi")
        assert 400 == caught.value.status_code
