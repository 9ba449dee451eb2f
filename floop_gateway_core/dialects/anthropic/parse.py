"""Reads the body of `/v1/messages`: text in, text out. Tools, images and schemas are refused by name."""

from floop_gateway_core.dialects.body import load_object
from floop_gateway_core.dialects.compatible import CompatibleFields
from floop_gateway_core.dialects.fields import ignored_names
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call, Message, Sampling

__all__ = ["parse"]

_READ = frozenset(
    {
        "messages", "model", "max_tokens", "system", "temperature", "top_p", "top_k", "stop_sequences", "stream",
        "metadata",
        # read only to be refused, unless they are at their defaults
        "tools", "tool_choice", "container", "mcp_servers", "thread", "thinking",
    }
)  # fmt: skip
_BLOCKS = {"text": "text", "thinking": None, "redacted_thinking": None}
"""Thoughts that come back are left out: they are another vendor's, or bound to a call."""


def parse(body: bytes) -> Call | Refusal:
    """Return the call.

    >>> parse(b'{"messages": [{"role": "user", "content": "Hi"}], "top_k": 5}').sampling.top_k
    5
    >>> parse(b'{"messages": [], "mcp_servers": [{}]}').message
    'messages must hold at least one message (and 1 more).'
    """
    value = load_object(body)
    return value if isinstance(value, Refusal) else _Fields(value).call()


class _Fields(CompatibleFields):
    def call(self) -> Call | Refusal:
        system, messages = self._messages()
        ignored = set(self.value) - _READ
        self._refuse_what_cannot_be_served(ignored)
        model = self.string("model")
        call = Call(
            "chat",
            tuple(messages),
            "auto" if model is None else model,
            "\n\n".join(text for text in system if text) or None,
            self.number("temperature", 0, 1),
            self.integer("max_tokens", 1),
            self.boolean("stream"),
            model is not None,
            sampling=Sampling(
                top_p=self.number("top_p", 0, 1),
                top_k=self.integer("top_k", 0, 2**31 - 1),
                stop=self.strings("stop_sequences"),
            ),
            tags=self._user(),
            ignored=ignored_names(ignored),
        )
        return self.refusal() if self.faults else call

    def _messages(self) -> tuple[list[str], list[Message]]:
        system: list[str] = []
        if self.value.get("system") is not None:
            system.append("\n\n".join(part.text for part in self.texts("system", self.value["system"], _BLOCKS)))
        messages: list[Message] = []
        for index, one in enumerate(self.turns()):
            path, role = f"messages[{index}]", one.get("role")
            if role not in ("user", "assistant", "system"):
                self.fault(f"{path}.role", "must be one of user, assistant, system")
                return system, messages
            parts = self.texts(f"{path}.content", one.get("content"), _BLOCKS)
            if role == "system":
                system.append("".join(part.text for part in parts))
            else:
                messages.append(Message("user" if role == "user" else "assistant", parts))
            if len(self.faults) > 1:
                return system, messages
        if not self.faults and not any(message.role == "user" for message in messages):
            self.fault("messages", "must hold at least one message of role user")
        return system, messages

    def _user(self) -> tuple[tuple[str, str], ...]:
        metadata = self.value.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            self.fault("metadata", "must be an object")
            return ()
        return self.tags(None if metadata is None else metadata.get("user_id"))

    def _refuse_what_cannot_be_served(self, ignored: set[str]) -> None:
        for name in ("tools", "container", "mcp_servers", "thread"):
            self.refuse_unless(name)
        self.refuse_unless("tool_choice", {"type": "auto"}, {"type": "none"})
        thinking = self.value.get("thinking")
        if thinking is not None and thinking != {"type": "disabled"}:
            ignored.add("thinking")
        output = self.value.get("output_config")
        if isinstance(output, dict) and output.get("format") is not None:
            self.fault("output_config.format", "is not supported by this gateway")
