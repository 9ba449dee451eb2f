"""What the codecs' tests share: feed bytes cut in any way, and tell everything that came out as one value."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from floop_gateway_core.providers.base import Codec, FaultKind, UpstreamCall, UpstreamFault
from floop_gateway_core.types import FinishReason, Message, Thought, Usage

CALL = UpstreamCall("model-a", (Message.of("user", "Hi"),), None, 100)


@dataclass(frozen=True)
class Outcome:
    """All that an answer gave. `covered`: the last report came after all text and thinking."""

    texts: tuple[str, ...] = ()
    thinking: tuple[str, ...] = ()
    usage: Usage | None = None
    covered: bool = False
    finish: FinishReason | None = None
    fault: FaultKind | None = None
    reason: str = ""


def outcome(codec: Codec, chunks: Iterable[bytes]) -> Outcome:
    """Run a decoder as the engine does: feed until a finish or a fault, and tell it the end."""
    texts: list[str] = []
    thinking: list[str] = []
    usage: Usage | None = None
    covered = False
    decoder = codec.decoder()
    try:
        for chunk in [*chunks, None]:
            delta = decoder.end() if chunk is None else decoder.feed(chunk)
            texts += delta.texts
            thinking += [item.text for item in delta.items if isinstance(item, Thought) and item.text]
            if delta.usage is not None:
                usage, covered = delta.usage, delta.usage_is_complete
            elif delta.items:
                covered = False
            if delta.finish is not None:
                return Outcome(tuple(texts), tuple(thinking), usage, covered, delta.finish)
    except UpstreamFault as fault:
        return Outcome(tuple(texts), tuple(thinking), usage, covered, None, fault.fault, fault.reason)
    raise AssertionError("an answer came to its end with neither a finish nor a fault")


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def places() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 10_000), max_size=12)


def assert_same_for_every_split(codec: Codec, data: bytes, at: Sequence[int]) -> None:
    whole = outcome(codec, [data])
    assert outcome(codec, [data[i : i + 1] for i in range(len(data))]) == whole
    assert outcome(codec, cut(data, at)) == whole


def data(*values: object) -> bytes:
    """Write events without a name: a value as JSON, bytes as they are."""
    written = (value if isinstance(value, bytes) else json.dumps(value).encode() for value in values)
    return b"".join(b"data: " + value + b"\n\n" for value in written)


def body_of(codec: Codec, call: UpstreamCall) -> dict[str, object]:
    body: dict[str, object] = json.loads(codec.encode(call, base_url=None, api_key=None).body)
    return body
