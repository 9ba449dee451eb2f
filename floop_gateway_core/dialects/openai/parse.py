"""Reads the body of `/v1/chat/completions`. Unsupported fields are refused by name."""

from floop_gateway_core.dialects.body import load_object
from floop_gateway_core.dialects.openai.shape import ShapeFields
from floop_gateway_core.errors import Refusal
from floop_gateway_core.types import Call, Sampling

__all__ = ["parse"]

_READ = frozenset(
    {
        "messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed",
        "presence_penalty", "frequency_penalty", "stream", "stream_options", "user", "metadata", "tools", "tool_choice",
        "parallel_tool_calls", "response_format", "reasoning_effort",
        # read only to be refused or named, unless they are at their defaults
        "n", "logprobs", "top_logprobs", "logit_bias", "modalities", "audio", "prediction", "web_search_options",
        "functions", "function_call", "store",
        "service_tier",
    }
)  # fmt: skip


def parse(body: bytes) -> Call | Refusal:
    """Return the call.

    >>> parse(b'{"messages": [{"role": "user", "content": "Hi"}], "stop": "."}').sampling.stop
    ('.',)
    >>> parse(b'{"messages": [{"role": "user", "content": "Hi"}], "n": 2}').message
    'n is not supported by this gateway.'
    """
    value = load_object(body)
    return value if isinstance(value, Refusal) else _Fields(value).call()


class _Fields(ShapeFields):
    def call(self) -> Call | Refusal:
        system, messages = self.messages()
        self._refuse_what_cannot_be_served()
        model = self.string("model")
        most = self.integer("max_completion_tokens", 1)
        other = self.integer("max_tokens", 1)
        call = Call(
            "chat",
            tuple(messages),
            "auto" if model is None else model,
            "\n\n".join(text for text in system if text) or None,
            self.number("temperature", 0, 2),
            other if most is None else most,
            self.boolean("stream"),
            model is not None,
            sampling=Sampling(
                top_p=self.number("top_p", 0, 1),
                stop=self.strings("stop"),
                seed=self.integer("seed", -(2**63), 2**63 - 1),
                presence_penalty=self.number("presence_penalty", -2, 2),
                frequency_penalty=self.number("frequency_penalty", -2, 2),
            ),
            shape=self.shape(),
            tags=self.tags(self.value.get("user"), self.value.get("metadata")),
            reports_usage=self._include_usage(),
            ignored=self.ignored(_READ),
        )
        return self.refusal() if self.faults else call

    def _include_usage(self) -> bool:
        options = self.value.get("stream_options")
        if options is None:
            return False
        if not isinstance(options, dict) or not isinstance(options.get("include_usage"), bool | None):
            self.fault("stream_options", "must be an object whose include_usage is true or false")
            return False
        self.unread(options, ("include_usage",))
        return bool(options.get("include_usage"))

    def _refuse_what_cannot_be_served(self) -> None:
        self.refuse_unless("n", 1)
        self.refuse_unless("logprobs", False)
        self.refuse_unless("top_logprobs", 0)
        self.refuse_unless("modalities", ["text"])
        self.refuse_unless("function_call", "none", "auto")
        for name in ("logit_bias", "audio", "prediction", "web_search_options", "functions"):
            self.refuse_unless(name)
        self.ignore_unless("store", False)
        self.ignore_unless("service_tier", "auto", "default")
