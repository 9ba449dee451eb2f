"""What the codecs share for requests: the URL, the order of turns, and what `extra_body` may add.

A deployment's `extra_body` never overrides a field that the gateway sets, at any depth, because those fields
determine what was held and what will be billed.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from floop_gateway_core.providers.base import FaultKind, UpstreamCall, UpstreamFault, UpstreamRequest
from floop_gateway_core.providers.thinking import Thinking
from floop_gateway_core.types import Message, Part, TextPart

__all__ = [
    "FILLER",
    "auth_header",
    "ceiling",
    "clamped",
    "endpoint",
    "is_plain",
    "part_turns",
    "present",
    "request",
    "system_text",
    "text_of",
    "turns",
]

FILLER = "."
"""The text of a user turn that a vendor requires and the client did not send."""

_HEADERS = (
    ("Accept", "text/event-stream"),
    ("Content-Type", "application/json"),
    ("Accept-Encoding", "identity"),  # a compressed stream arrives in lumps, and gzip can break
)


def endpoint(base_url: str, path: str, query: str = "") -> str:
    """Join a base and a path, keeping the base's query (Azure's `?api-version=…`) after the path.

    >>> endpoint("https://llm.example/v1/?api-version=1", "/chat/completions")
    'https://llm.example/v1/chat/completions?api-version=1'
    """
    base, _, own = base_url.partition("#")[0].partition("?")
    queries = "&".join(part for part in (own, query) if part)
    return base.rstrip("/") + path + (f"?{queries}" if queries else "")


def request(
    url: str,
    auth: tuple[tuple[str, str], ...],
    body: dict[str, object],
    extra: Mapping[str, object],
    withheld: Collection[str] = (),
) -> UpstreamRequest:
    """Return the complete request. `withheld` names members of `extra` that are never sent."""
    allowed = {name: value for name, value in extra.items() if name not in withheld}
    for _, value in auth:
        # An HTTP library would refuse it too, and quote it in its exception.
        if not (value.isascii() and value.isprintable()):
            raise UpstreamFault(FaultKind.UNUSABLE, "the key cannot be sent in a header")
    return UpstreamRequest(url, (*_HEADERS, *auth), msgspec.json.encode(_merged(body, allowed)))


def present(**members: object) -> dict[str, object]:
    """Return the members that are not None.

    >>> present(top_p=0.5, seed=None)
    {'top_p': 0.5}
    """
    return {name: value for name, value in members.items() if value is not None}


def auth_header(key: str, header: str) -> tuple[tuple[str, str], ...]:
    """Return the header that carries a key, if there is a key; `Authorization` takes it as a bearer token."""
    if not key:
        return ()
    return (("Authorization", f"Bearer {key}"),) if header.lower() == "authorization" else ((header, key),)


def _merged(body: Mapping[str, object], extra: Mapping[str, object]) -> dict[str, object]:
    merged = {**extra, **body}
    for name, value in body.items():
        other = extra.get(name)
        if isinstance(value, dict) and isinstance(other, Mapping):
            merged[name] = _merged(value, other)
    return merged


def ceiling(call: UpstreamCall, thinking: Thinking) -> int:
    """Return the upstream's output limit: the tokens granted to the client, plus the thinking allowance."""
    return call.max_tokens + thinking.allowance_tokens


def clamped(temperature: float, most: float) -> float:
    """Bring a temperature into the vendor's range (contract: Providers)."""
    return min(max(temperature, 0), most)


def system_text(call: UpstreamCall) -> str:
    """Return the system prompt; empty if there is none."""
    return call.system if call.system and call.system.strip() else ""


def text_of(message: Message) -> str:
    """Return a message of texts as one text, its parts joined without a separator (contract: Request bodies)."""
    return message.text


def is_plain(messages: Sequence[Message]) -> bool:
    """Return whether messages have nothing but text, and nothing to be cached."""
    return all(type(part) is TextPart and part.cache is None for message in messages for part in message.content)


def turns(call: UpstreamCall) -> list[tuple[str, str]]:
    """Return `(role, text)` in strict alternation, starting with the user; turns without words are left out.

    Neighbours of one role are joined by a blank line. A conversation that opens with the assistant gets `FILLER` for
    the user. White space at the end of a last assistant turn is cut: Anthropic refuses it.
    """
    joined: list[tuple[str, list[str]]] = []
    for message in call.messages:
        text = text_of(message)
        if not text.strip():
            continue
        role = "user" if message.role == "system" else message.role  # in place: a vendor without that role reads it so
        if joined and joined[-1][0] == role:
            joined[-1][1].append(text)
        else:
            joined.append((role, [text]))
    mended = [(role, "\n\n".join(texts)) for role, texts in joined]
    if not mended or mended[0][0] != "user":
        mended.insert(0, ("user", FILLER))
    if mended[-1][0] == "assistant":
        mended[-1] = ("assistant", mended[-1][1].rstrip())
    return mended


def part_turns(messages: Sequence[Message]) -> list[tuple[str, list[Part]]]:
    """Return `(role, parts)` like `turns`, for messages that have more than text. Empty texts are left out."""
    joined: list[tuple[str, list[Part]]] = []
    for message in messages:
        parts = [part for part in message.content if not (isinstance(part, TextPart) and not part.text.strip())]
        role = "user" if message.role == "system" else message.role
        if not parts:
            continue
        if joined and joined[-1][0] == role:
            joined[-1][1].extend(parts)
        else:
            joined.append((role, parts))
    if not joined or joined[0][0] != "user":
        joined.insert(0, ("user", [TextPart(FILLER)]))
    last_role, last = joined[-1]
    if last_role == "assistant" and isinstance(last[-1], TextPart):
        last[-1] = TextPart(last[-1].text.rstrip())
    return joined
