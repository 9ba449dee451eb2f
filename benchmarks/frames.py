"""Measure what a frame of a stream costs in each dialect, in process: the ratio of OpenAI's to the native one.

Run `python -m benchmarks.frames`. The answer is `echo`'s, 4 000 words; each figure is the least of some turns.
"""

import json
import time

import anyio

from floop_gateway_core import Gateway, GatewayRequest, Microcredits, Settings

WORDS = 4000
TURNS = 7
PLAN = {"requests_per_minute": 10**6, "daily_tokens": 10**12, "output_tokens": 10**6, "input_tokens": 10**6}
PATHS = {"native": "/chat", "openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


async def cost_of(gateway: Gateway, path: str, key: str) -> float:
    """Return the nanoseconds of CPU that one frame costs."""
    content = "word " * WORDS
    body = {"model": "fast", "stream": True, "max_tokens": 20_000, "messages": [{"role": "user", "content": content}]}
    headers = [("Authorization", f"Bearer {key}"), ("Content-Type", "application/json")]
    start, frames = time.process_time(), 0
    async with gateway.open(GatewayRequest("POST", path, headers, json.dumps(body).encode())) as reply:
        assert not isinstance(reply.body, bytes)
        async for chunk in reply.body:
            frames += chunk.count(b"data: ")
    return (time.process_time() - start) / frames * 1e9


async def main() -> None:
    """Print a line for each dialect."""
    settings = Settings.read({"store": "memory://", "plans": {"default": PLAN}}, source="benchmark")
    async with Gateway(settings) as gateway:
        key = (await gateway.admin.create_project("p", credits=Microcredits(10**15))).key
        found = {name: float("inf") for name in PATHS}
        for _ in range(TURNS):
            for name, path in PATHS.items():
                found[name] = min(found[name], await cost_of(gateway, path, key))
    for name, cost in found.items():
        print(f"{name:10} {cost:6.0f} ns a frame   {cost / found['native']:.2f} of the native one")


if __name__ == "__main__":
    anyio.run(main)
