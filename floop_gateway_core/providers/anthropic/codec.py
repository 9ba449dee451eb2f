"""Requests of Anthropic's Messages API."""

import msgspec

from floop_gateway_core.providers.anthropic.messages import lacks_thoughts, messages_of
from floop_gateway_core.providers.anthropic.reader import Reader
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
from floop_gateway_core.providers.thinking import Thinking, ThinkingRange
from floop_gateway_core.providers.tool_calls import calls_by_id, raw, schema_of
from floop_gateway_core.types import ResponseFormat, Shape, Tool, ToolChoice

__all__ = ["TEMPERATURE_MAX", "THINKING", "AnthropicCodec"]

_BASE_URL = "https://api.anthropic.com"
_VERSION = "2023-06-01"
TEMPERATURE_MAX = 1.0
_BUDGET_MIN = 1024
"""The vendor's smallest thinking budget."""


THINKING = ThinkingRange(("low", "medium", "high", "xhigh", "max"), can_be_off=True)


def _thinking(thinking: Thinking, most: int) -> dict[str, object]:
    """Return the members that turn thinking on, if any.

    The budget is part of `max_tokens`, so raising it to the vendor's minimum cannot cost more than was held. If
    `max_tokens` leaves no room for that minimum, the vendor would refuse the request, so thinking is left out.
    """
    if thinking.effort is not None:
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": thinking.effort}}
    if not thinking.budget_tokens or most <= _BUDGET_MIN:
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": max(thinking.budget_tokens, _BUDGET_MIN)}}


class AnthropicCodec(JsonEventCodec):
    """Anthropic's Messages API."""

    reader = Reader

    def encode(self, call: UpstreamCall, *, base_url: str | None, api_key: str | None) -> UpstreamRequest:
        """Return the request. A thinking budget is raised to the vendor's minimum."""
        plan = THINKING.of(self.options.own_thinking, call.shape)
        most = ceiling(call, plan)
        body: dict[str, object] = {
            "model": call.model,
            "max_tokens": most,
            "stream": True,
            "messages": messages_of(call),
        }
        system = system_text(call)
        if system:
            body["system"] = system
        shape = call.shape
        thinking = {} if lacks_thoughts(call.messages) else _thinking(plan, most)
        body |= thinking
        body |= _shaped(shape, body)
        if not shape.tools:
            body |= _tools_of(call)
        if call.temperature is not None and self.options.send_temperature and not thinking:
            body["temperature"] = clamped(call.temperature, TEMPERATURE_MAX)
        sampling = call.sampling
        body |= present(stop_sequences=list(sampling.stop) or None)
        if not thinking:  # the vendor refuses the two together
            body |= present(top_p=sampling.top_p, top_k=sampling.top_k)
        key = (api_key or "").strip()
        betas = (("anthropic-beta", ",".join(shape.betas)),) if shape.betas else ()
        auth = (("anthropic-version", _VERSION), *betas, *auth_header(key, self.options.api_key_header or "x-api-key"))
        # The vendor refuses a temperature together with thinking, even one that the host set.
        withheld = ("temperature",) if thinking else ()
        return request(endpoint(base_url or _BASE_URL, "/v1/messages"), auth, body, self.options.extra_body, withheld)


def _shaped(shape: Shape, body: dict[str, object]) -> dict[str, object]:
    """Return the members for tools, for the format of the answer, and those that only this vendor reads."""
    members = {name: raw(json) for name, json in shape.extensions if name not in body or _is_system(name, json, body)}
    found: dict[str, object] = dict(members)
    if shape.tools:
        found["tools"] = [_tool(one) for one in shape.tools]
        found |= present(tool_choice=_choice(shape.tool_choice, parallel=shape.parallel_tool_calls))
    if (wanted := _format(shape.response_format)) is not None:
        config = body.get("output_config")
        found["output_config"] = {**(config if isinstance(config, dict) else {}), "format": wanted}
    return found


def _tools_of(call: UpstreamCall) -> dict[str, object]:
    """Return the tools of a conversation with earlier calls but no tools: the vendor requires their names."""
    names = dict.fromkeys(part.name for part in calls_by_id(call.messages).values())
    tools = [_tool(Tool(name)) for name in names]
    return {"tools": tools, "tool_choice": {"type": "none"}} if tools else {}


def _is_system(name: str, json: str, body: dict[str, object]) -> bool:
    """Return whether these are the blocks of the body's system prompt, with their marks for the cache."""
    if name != "system":
        return False
    return "\n\n".join(block["text"] for block in msgspec.json.decode(json)) == body.get("system")


def _tool(tool: Tool) -> dict[str, object]:
    extra = {} if tool.extra is None else msgspec.json.decode(tool.extra)
    named = present(name=tool.name, description=tool.description, strict=tool.strict)
    return {**extra, **named, "input_schema": schema_of(tool.schema)}


def _choice(choice: ToolChoice, *, parallel: bool) -> dict[str, object] | None:
    kind = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}[choice.kind]
    found: dict[str, object] = {"type": kind, **present(name=choice.name)}
    if not parallel and kind != "none":
        found["disable_parallel_tool_use"] = True
    return None if found == {"type": "auto"} else found


def _format(wanted: ResponseFormat | None) -> object:
    if wanted is None or wanted.kind == "json_object":
        return None
    return {"type": "json_schema", "schema": raw(wanted.schema or "{}")}
