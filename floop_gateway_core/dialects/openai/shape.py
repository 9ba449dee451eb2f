"""Reads what OpenAI's body asks for beyond text: tools, and the format of the answer."""

from collections.abc import Mapping

from floop_gateway_core.dialects.openai.messages import MessageFields
from floop_gateway_core.types import ResponseFormat, Shape, Tool, ToolChoice

__all__ = ["EFFORTS", "ShapeFields"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class ShapeFields(MessageFields):
    """The rest of a body."""

    def shape(self) -> Shape:
        """Return the shape. Call this after reading the messages, because it includes their requirements."""
        tools = self._tools()
        wanted = self._format()
        parallel = self.value.get("parallel_tool_calls")
        if parallel is not None and not isinstance(parallel, bool):
            self.fault("parallel_tool_calls", "must be true or false")
        if parallel is False and tools:
            self.need("serial_tools", "parallel_tool_calls")
        choice = self._choice(tools)
        effort = self.string("reasoning_effort")
        if effort is not None and effort not in EFFORTS:
            self.fault("reasoning_effort", f"must be one of {', '.join(EFFORTS)}")
        self.wish("temperature", "temperature")
        self.wish("effort", "reasoning_effort")
        self.wish("seed", "seed")
        self.wish("penalties", "presence_penalty", "frequency_penalty")
        return Shape(
            tools,
            choice,
            parallel is not False,
            wanted,
            effort,
            needs=tuple(self.needs.items()),
            wishes=tuple(self.wishes),
        )

    def _tools(self) -> tuple[Tool, ...]:
        found: list[Tool] = []
        for index, one in enumerate(self.objects("tools")):
            path = f"tools[{index}]"
            self.need("tools", "tools")
            function = one.get("function")
            if one.get("type") != "function" or not isinstance(function, dict):
                self.fault(f"{path}.type", "must be function, with a member function")
                return ()
            self.unread(one, ("type", "function"))
            found.append(self._tool(f"{path}.function", function))
        if len({tool.name for tool in found}) < len(found):
            self.fault("tools", "must have unique names")
        return tuple(found)

    def _tool(self, path: str, function: Mapping[str, object]) -> Tool:
        self.unread(function, ("name", "description", "parameters", "strict"))
        return Tool(
            self.tool_name(f"{path}.name", function.get("name")),
            self.text_member(f"{path}.description", function.get("description")),
            self.schema(f"{path}.parameters", function.get("parameters")),
            self.flag_member(f"{path}.strict", function.get("strict")),
        )

    def _choice(self, tools: tuple[Tool, ...]) -> ToolChoice:
        value = self.value.get("tool_choice")
        if value is None or value in ("auto", "none", "required"):
            if value == "required" and not tools:
                self.fault("tool_choice", "must be absent without tools")
            return ToolChoice(value or "auto")
        function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in {tool.name for tool in tools}:
            self.fault("tool_choice", "must be none, auto, required, or name a function of tools")
            return ToolChoice()
        return ToolChoice("tool", name)

    def _format(self) -> ResponseFormat | None:
        value = self.value.get("response_format")
        kind = value.get("type") if isinstance(value, dict) else None
        if value is None or kind == "text":
            return None
        if kind == "json_object" and isinstance(value, dict) and value.get("schema") is not None:
            return self._open_schema(value["schema"])
        if kind == "json_object":
            self.need("json_object", "response_format")
            return ResponseFormat("json_object")
        wanted = value.get("json_schema") if isinstance(value, dict) and kind == "json_schema" else None
        if not isinstance(wanted, dict):
            self.fault("response_format", "must have the type text, json_object, or json_schema with a json_schema")
            return None
        self.need("json_schema", "response_format")
        self.unread(wanted, ("name", "description", "schema", "strict"))
        path = "response_format.json_schema"
        if not isinstance(wanted.get("schema"), dict):
            self.fault(f"{path}.schema", "must be a JSON schema object")
        return ResponseFormat(
            "json_schema",
            self.tool_name(f"{path}.name", wanted.get("name")),
            self.schema(f"{path}.schema", wanted.get("schema")),
            self.flag_member(f"{path}.strict", wanted.get("strict")),
            self.text_member(f"{path}.description", wanted.get("description")),
            f"{path}.schema",
        )

    def _open_schema(self, schema: object) -> ResponseFormat:
        """Return the schema of `json_object`, as several servers take it."""
        self.need("json_schema", "response_format.schema")
        path = "response_format.schema"
        return ResponseFormat("json_schema", "response", self.schema(path, schema), path=path)
