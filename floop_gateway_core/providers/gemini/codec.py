"""Requests of Google's Gemini, `streamGenerateContent?alt=sse`."""

from urllib.parse import quote

from floop_gateway_core.providers.base import UpstreamCall, UpstreamRequest
from floop_gateway_core.providers.codec import JsonEventCodec
from floop_gateway_core.providers.encoding import (
    auth_header,
    ceiling,
    clamped,
    endpoint,
    present,
    request,
    system_text,
)
from floop_gateway_core.providers.gemini.contents import contents_of
from floop_gateway_core.providers.gemini.reader import Reader
from floop_gateway_core.providers.thinking import Thinking, ThinkingRange
from floop_gateway_core.providers.tool_calls import raw
from floop_gateway_core.types import ResponseFormat, Shape, ToolChoice

__all__ = ["THINKING", "GeminiCodec"]

_BASE_URL = "https://generativelanguage.googleapis.com"
_TEMPERATURE_MAX = 2.0
_OTHER_SPELLINGS = frozenset({"generation_config", "system_instruction"})
"""Protobuf also accepts these names, through which `extra_body` could override what the gateway sets."""
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}

THINKING = ThinkingRange(("minimal", "low", "medium", "high"))


class GeminiCodec(JsonEventCodec):
    """Google's Gemini."""

    reader = Reader

    def encode(self, call: UpstreamCall, *, base_url: str | None, api_key: str | None) -> UpstreamRequest:
        """Return the request. The key goes into a header, never into the URL, which gets logged."""
        thinking = THINKING.of(self.options.own_thinking, call.shape)
        generation: dict[str, object] = {"maxOutputTokens": ceiling(call, thinking)}
        if call.temperature is not None and self.options.send_temperature:
            generation["temperature"] = clamped(call.temperature, _TEMPERATURE_MAX)
        sampling = call.sampling
        generation |= present(
            topP=sampling.top_p,
            topK=sampling.top_k,
            stopSequences=list(sampling.stop) or None,
            seed=sampling.seed,
            presencePenalty=sampling.presence_penalty,
            frequencyPenalty=sampling.frequency_penalty,
        )
        generation |= _thinking(thinking) | _format(call.shape.response_format)
        body: dict[str, object] = {
            "contents": contents_of(call),
            "generationConfig": generation,
        }
        system = system_text(call)
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        body |= _tools(call.shape)
        model = call.model if call.model.startswith(("models/", "tunedModels/")) else f"models/{call.model}"
        path = f"/v1beta/{quote(model)}:streamGenerateContent"
        key = (api_key or "").strip()
        auth = auth_header(key, self.options.api_key_header or "x-goog-api-key")
        url = endpoint(base_url or _BASE_URL, path, "alt=sse")
        return request(url, auth, body, self.options.extra_body, _OTHER_SPELLINGS)


def _thinking(thinking: Thinking) -> dict[str, object]:
    if thinking.effort is not None:
        return {"thinkingConfig": {"thinkingLevel": thinking.effort}}
    return {} if thinking.budget_tokens is None else {"thinkingConfig": {"thinkingBudget": thinking.budget_tokens}}


def _format(wanted: ResponseFormat | None) -> dict[str, object]:
    if wanted is None:
        return {}
    schema = None if wanted.schema is None else raw(wanted.schema)
    return present(responseMimeType="application/json", responseJsonSchema=schema)


def _tools(shape: Shape) -> dict[str, object]:
    if not shape.tools:
        return {}
    functions = [
        present(
            name=tool.name,
            description=tool.description,
            parametersJsonSchema=None if tool.schema is None else raw(tool.schema),
        )
        for tool in shape.tools
    ]
    found: dict[str, object] = {"tools": [{"functionDeclarations": functions}]}
    if shape.tool_choice != ToolChoice():
        named = None if shape.tool_choice.name is None else [shape.tool_choice.name]
        config = present(mode=_MODES[shape.tool_choice.kind], allowedFunctionNames=named)
        found["toolConfig"] = {"functionCallingConfig": config}
    return found
