"""Reads what Anthropic's body asks for beyond text: tools, thinking, the format of the answer."""

import json
from collections.abc import Mapping
from typing import Literal

from floop_gateway_core.dialects.anthropic.messages import MessageFields
from floop_gateway_core.types import ResponseFormat, Shape, ThinkingRequest, Tool, ToolChoice

__all__ = ["ShapeFields"]

_CHOICES: Mapping[str, Literal["auto", "none", "required", "tool"]] = {
    "auto": "auto", "none": "none", "any": "required", "tool": "tool",
}  # fmt: skip
_EXTENSIONS = ("context_management", "service_tier", "cache_control")
_TOOL = frozenset({"name", "description", "input_schema", "type", "strict"})
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class ShapeFields(MessageFields):
    """The rest of a body."""

    def shape(self) -> Shape:
        """Return the shape. Call this after reading the messages, because it includes their requirements."""
        tools = self._tools()
        choice, parallel = self._choice(tools)
        if not parallel and tools:
            self.need("serial_tools", "tool_choice.disable_parallel_tool_use")
        thinking = self._thinking()
        wanted, effort = self._output()
        shown = (thinking is not None and thinking.kind != "disabled") or bool(tools)
        extensions = tuple(
            (name, json.dumps(self.value[name], ensure_ascii=False))
            for name in _EXTENSIONS
            if self.value.get(name) is not None
        )
        system = self.value.get("system")
        if isinstance(system, list) and any(isinstance(one, dict) and one.get("cache_control") for one in system):
            self.wishes.append(("extensions", "cache_control"))
            extensions += (("system", json.dumps(system, ensure_ascii=False)),)
        self.wish("extensions", *_EXTENSIONS)
        self.wish("temperature", "temperature")
        self.wish("top_k", "top_k")
        if thinking is not None:
            self.wish("no_thinking" if thinking.kind == "disabled" else "thinking", "thinking")
        if effort is not None:
            self.wishes.append(("effort", "effort"))
        needs, wishes = tuple(self.needs.items()), tuple(self.wishes)
        return Shape(tools, choice, parallel, wanted, effort, thinking, shown, extensions, needs=needs, wishes=wishes)

    def _tools(self) -> tuple[Tool, ...]:
        found: list[Tool] = []
        for index, one in enumerate(self.objects("tools")):
            path = f"tools[{index}]"
            self.need("tools", "tools")
            if one.get("type") not in (None, "custom"):
                self.fault(f"{path}.type", "must be custom; the vendor's own tools are not supported by this gateway")
                return ()
            found.append(self._tool(path, one))
        if len({tool.name for tool in found}) < len(found):
            self.fault("tools", "must have unique names")
        return tuple(found)

    def _tool(self, path: str, one: Mapping[str, object]) -> Tool:
        extra = {name: value for name, value in one.items() if name not in _TOOL}
        self.wishes += [("extensions", name) for name, value in extra.items() if value is not None]
        if one.get("type") is not None:
            extra["type"] = "custom"
        if not isinstance(one.get("input_schema"), dict):
            self.fault(f"{path}.input_schema", "must be a JSON schema object")
        return Tool(
            self.tool_name(f"{path}.name", one.get("name")),
            self.text_member(f"{path}.description", one.get("description")),
            self.schema(f"{path}.input_schema", one.get("input_schema")),
            self.flag_member(f"{path}.strict", one.get("strict")),
            json.dumps(extra, ensure_ascii=False) if extra else None,
        )

    def _choice(self, tools: tuple[Tool, ...]) -> tuple[ToolChoice, bool]:
        value = self.value.get("tool_choice")
        if value is None:
            return ToolChoice(), True
        kind = _CHOICES.get(str(value.get("type"))) if isinstance(value, dict) else None
        if not isinstance(value, dict) or kind is None:
            self.fault("tool_choice", "must have the type auto, any, tool or none")
            return ToolChoice(), True
        parallel = self.flag_member("tool_choice.disable_parallel_tool_use", value.get("disable_parallel_tool_use"))
        name = value.get("name")
        if kind == "tool" and (not isinstance(name, str) or name not in {tool.name for tool in tools}):
            self.fault("tool_choice.name", "must be the name of one of the tools")
        if kind == "required" and not tools:
            self.fault("tool_choice", "must be absent without tools")
        return ToolChoice(kind, name if kind == "tool" and isinstance(name, str) else None), parallel is not True

    def _thinking(self) -> ThinkingRequest | None:
        value = self.value.get("thinking")
        if value is None:
            return None
        kind = value.get("type") if isinstance(value, dict) else None
        budget = value.get("budget_tokens") if isinstance(value, dict) else None
        if kind == "adaptive":
            return ThinkingRequest("adaptive")
        if kind == "disabled":
            return ThinkingRequest("disabled")
        if kind != "enabled" or type(budget) is not int or budget < 1:
            self.fault("thinking", "must have the type adaptive or disabled, or enabled with budget_tokens")
            return None
        return ThinkingRequest("enabled", budget)

    def _output(self) -> tuple[ResponseFormat | None, str | None]:
        value = self.value.get("output_config")
        if value is not None and not isinstance(value, dict):
            self.fault("output_config", "must be an object")
            return None, None
        value = value or {}
        self.unread(value, ("effort", "format"))
        effort = value.get("effort")
        if effort is not None and effort not in _EFFORTS:
            self.fault("output_config.effort", f"must be one of {', '.join(_EFFORTS)}")
        if value.get("format") is not None:
            return self._format("output_config.format", value["format"]), effort
        if self.value.get("output_format") is not None:  # as the vendor's beta had it
            return self._format("output_format", self.value["output_format"]), effort
        return None, effort

    def _format(self, path: str, wanted: object) -> ResponseFormat:
        schema = wanted.get("schema") if isinstance(wanted, dict) and wanted.get("type") == "json_schema" else None
        if not isinstance(schema, dict):
            self.fault(path, "must have the type json_schema, with a schema")
        self.need("json_schema", path)
        path += ".schema"
        return ResponseFormat("json_schema", schema=self.schema(path, schema), path=path)
