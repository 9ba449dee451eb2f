"""Reads the body of `/v1/messages`. Unsupported fields are refused by name."""

from floop_gateway_core.dialects.anthropic.shape import ShapeFields
from floop_gateway_core.dialects.body import load_object
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call, Sampling

__all__ = ["parse"]

_READ = frozenset(
    {
        "messages", "model", "max_tokens", "system", "temperature", "top_p", "top_k", "stop_sequences", "stream",
        "metadata", "tools", "tool_choice", "thinking", "output_config", "output_format",
        "context_management", "service_tier", "cache_control",
        # read only to be refused, unless they are at their defaults
        "container", "mcp_servers", "thread",
    }
)  # fmt: skip


def parse(body: bytes) -> Call | Refusal:
    """Return the call.

    >>> parse(b'{"messages": [{"role": "user", "content": "Hi"}], "top_k": 5}').sampling.top_k
    5
    >>> parse(b'{"messages": [], "mcp_servers": [{}]}').message
    'messages must hold at least one message (and 1 more).'
    """
    value = load_object(body)
    return value if isinstance(value, Refusal) else _Fields(value).call()


class _Fields(ShapeFields):
    def call(self) -> Call | Refusal:
        system, messages = self.messages()
        self._refuse_what_cannot_be_served()
        model = self.string("model")
        call = Call(
            "chat",
            tuple(messages),
            "auto" if model is None else model,
            system,
            self.number("temperature", 0, 1),
            self.integer("max_tokens", 1),
            self.boolean("stream"),
            model is not None,
            sampling=Sampling(
                top_p=self.number("top_p", 0, 1),
                top_k=self.integer("top_k", 0, 2**31 - 1),
                stop=self.strings("stop_sequences"),
            ),
            shape=self.shape(),
            tags=self._user(),
            ignored=self.ignored(_READ),
        )
        return self.refusal() if self.faults else call

    def _user(self) -> tuple[tuple[str, str], ...]:
        metadata = self.value.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            self.fault("metadata", "must be an object")
            return ()
        return self.tags(None if metadata is None else metadata.get("user_id"))

    def _refuse_what_cannot_be_served(self) -> None:
        for name in ("container", "mcp_servers", "thread"):
            self.refuse_unless(name)
