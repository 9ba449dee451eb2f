"""The SSE encoder and decoder, in nanoseconds a frame, each with a floor beside it in the same run.

    python -m benchmarks.sse [--rounds N]

The encoder's floor is the join of frames that are ready; the decoder's is one `bytes.split` of the chunk.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

from floop_gateway_core.dialects.native.frames import StreamFrames
from floop_gateway_core.wire.sse import SSEDecoder

FRAMES = 64
TEXTS = ["token ", "wörd ", "😀 ", 'a "quoted" piece\n'] * (FRAMES // 4)
CHUNK = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"token "},"finish_reason":null}]}\n\n' * FRAMES
READY = [f'data: {{"text": {json.dumps(text)}}}\n\n' for text in TEXTS]


def nanoseconds(work: Callable[[], object], repeats: int = 400) -> float:
    began = time.perf_counter_ns()
    for _ in range(repeats):
        work()
    return (time.perf_counter_ns() - began) / repeats / FRAMES


def main() -> None:
    parser = argparse.ArgumentParser(description="The SSE encoder and decoder, a floor beside each.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"python -m benchmarks.sse --rounds {rounds}")
    frames, decoder = StreamFrames(), SSEDecoder()
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "encode": (lambda: frames.texts(TEXTS), lambda: "".join(READY).encode()),
        "encode, json.dumps a frame": (
            lambda: [f"data: {json.dumps({'text': text}, ensure_ascii=False)}\n\n".encode() for text in TEXTS],
            lambda: "".join(READY).encode(),
        ),
        "decode": (lambda: decoder.feed(CHUNK), lambda: CHUNK.split(b"\n\n")),
    }
    print(f"{'ns a frame':32} {'ours':>8} {'floor':>8} {'ratio':>7}")
    for what, (ours, floor) in cases.items():
        pairs = [(nanoseconds(ours), nanoseconds(floor)) for _ in range(rounds)]
        us, them = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{what:32} {us:>8.0f} {them:>8.0f} {statistics.median(a / b for a, b in pairs):>7.1f}")


if __name__ == "__main__":
    main()
