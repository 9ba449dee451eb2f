"""Requests of OpenAI's Chat Completions, for the vendor's own server and for compatible ones."""

import re
from urllib.parse import urlsplit

from floop_gateway_core.providers.base import UpstreamCall, UpstreamRequest
from floop_gateway_core.providers.codec import JsonEventCodec
from floop_gateway_core.providers.encoding import ceiling, clamped, endpoint, present, request
from floop_gateway_core.providers.openai.messages import messages_of
from floop_gateway_core.providers.openai.reader import Reader
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.thinking import ThinkingRange
from floop_gateway_core.providers.tool_calls import raw, schema_of, short_id
from floop_gateway_core.types import ResponseFormat, Shape, Tool, ToolChoice

__all__ = ["THINKING", "OpenAICodec"]

_BASE_URL = "https://api.openai.com/v1"
_MAX_TOKENS_FIELDS = frozenset({"max_tokens", "max_completion_tokens"})
_TEMPERATURE_MAX = 2.0
_REFUSAL = rb"(?:extra|unknown|unrecognized|unexpected|unsupported|not (?:supported|permitted|allowed)|forbidden)"
_REFUSES_STREAM_OPTIONS = re.compile(
    rb"%b.{0,80}stream_options|stream_options.{0,80}%b" % (_REFUSAL, _REFUSAL), re.IGNORECASE | re.DOTALL
)
_REFUSES_SYSTEM_ROLE = re.compile(
    rb"system role (?:is )?not supported|(?:does not|doesn't) support (?:the )?system|only user and assistant roles"
    rb"|roles must alternate",
    re.IGNORECASE,
)
_AZURE = (".azure.com", ".azure.us", ".azure.cn", ".azure-api.net", ".azure-api.us", ".azure-api.cn")

THINKING = ThinkingRange(("none", "minimal", "low", "medium", "high", "xhigh"))


class OpenAICodec(JsonEventCodec):
    """OpenAI's Chat Completions."""

    reader = Reader

    def encode(self, call: UpstreamCall, *, base_url: str | None, api_key: str | None) -> UpstreamRequest:
        """Return the request."""
        base = base_url or _BASE_URL
        host = urlsplit(base).hostname or ""
        id_of = short_id if host.endswith("mistral.ai") else str
        thinking = THINKING.of(self.options.own_thinking, call.shape)
        body: dict[str, object] = {
            "model": call.model,
            "messages": messages_of(call, self.options, signs=host.endswith("googleapis.com"), id_of=id_of),
            "stream": True,
            _ceiling_field(self.options, base_url): ceiling(call, thinking),
        }
        if self.options.stream_usage:
            body["stream_options"] = {"include_usage": True}
        if thinking.effort is not None:
            body["reasoning_effort"] = thinking.effort
        if call.temperature is not None and self.options.send_temperature:
            body["temperature"] = clamped(call.temperature, _TEMPERATURE_MAX)
        sampling = call.sampling
        body |= present(
            top_p=sampling.top_p,
            stop=list(sampling.stop) or None,
            seed=sampling.seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
        )
        body |= _shaped(call.shape)
        # The ceiling has two names; `extra_body` may not raise it under the other one.
        return request(
            endpoint(base, "/chat/completions"),
            _auth(base, api_key, self.options.api_key_header),
            body,
            self.options.extra_body,
            _MAX_TOKENS_FIELDS,
        )

    def without_refused(self, body: bytes) -> "OpenAICodec | None":
        """Return a codec that omits what a refusal names; None if it cannot be omitted or already is."""
        changes: dict[str, object] = {}
        if _REFUSES_STREAM_OPTIONS.search(body):
            changes["stream_usage"] = False
        if _REFUSES_SYSTEM_ROLE.search(body):
            changes |= {"system_role": "user", "merge_turns": True}
        if all(getattr(self.options, name) == value for name, value in changes.items()):
            return None
        return OpenAICodec(self.options.model_copy(update=changes))


def _shaped(shape: Shape) -> dict[str, object]:
    """Return the members for tools and for the format of the answer."""
    if not shape.tools:
        return present(response_format=_format(shape.response_format))
    return present(
        tools=[_tool(one) for one in shape.tools],
        tool_choice=_choice(shape.tool_choice),
        parallel_tool_calls=None if shape.parallel_tool_calls else False,
        response_format=_format(shape.response_format),
    )


def _tool(tool: Tool) -> dict[str, object]:
    function = present(name=tool.name, description=tool.description, strict=tool.strict)
    return {"type": "function", "function": {**function, "parameters": schema_of(tool.schema)}}


def _choice(choice: ToolChoice) -> object:
    if choice.kind == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return None if choice.kind == "auto" else choice.kind


def _format(wanted: ResponseFormat | None) -> object:
    if wanted is None:
        return None
    if wanted.kind == "json_object":
        return {"type": "json_object"}
    schema = present(name=wanted.name, description=wanted.description, strict=wanted.strict)
    return {"type": "json_schema", "json_schema": {**schema, "schema": raw(wanted.schema or "{}")}}


def _ceiling_field(options: Options, base_url: str | None) -> str:
    """Return the name of the ceiling: OpenAI's own, or the one that every compatible server knows."""
    return options.max_tokens_field or ("max_tokens" if base_url else "max_completion_tokens")


def _auth(base_url: str, api_key: str | None, header: str | None) -> tuple[tuple[str, str], ...]:
    """Return the header with the key. Azure reads `Authorization` as an Entra token, so its keys go into `api-key`."""
    key = (api_key or "").strip()
    if not key:
        return ()
    if header is None and (urlsplit(base_url).hostname or "").endswith(_AZURE):
        header = "api-key"
    if header is None or header.lower() == "authorization":
        return (("Authorization", f"Bearer {key}"),)
    return ((header, key),)
