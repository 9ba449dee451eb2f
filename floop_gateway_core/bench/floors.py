"""The floors under a gateway in Python, on aiohttp's server and client.

`passing` hands the upstream's bytes through and decides nothing. `parsing` does what every gateway must: it checks a key,
decodes each event, and writes frames of its own, or one JSON object. Neither counts, limits, bills or logs.
"""

import json
import sys

import aiohttp
import msgspec
from aiohttp import web

__all__ = ["application"]

KEY = "Bearer flp_sk_floor"


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Chunk).decode


def application(upstream: str, *, parses: bool) -> web.Application:
    """Return the floor as an aiohttp application; `upstream` is the URL to post to."""
    sessions: list[aiohttp.ClientSession] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        if not sessions:
            connector = aiohttp.TCPConnector(limit=0)
            sessions.append(aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()))
        if request.headers.get("Authorization") != KEY:
            return web.json_response({"error": {"code": "UNAUTHORIZED"}}, status=401)
        body = json.loads(await request.read())
        asked = json.dumps({"model": body["model"], "messages": body["messages"], "stream": True}).encode()
        async with sessions[0].post(upstream, data=asked) as answer:
            if parses and not body.get("stream"):
                return await _whole(answer)
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            if parses:
                await _frames(answer, response)
            else:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write(b': {"finishReason": "end_turn"}\n\n')
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    return app


def _texts(rest: bytes, chunk: bytes) -> tuple[bytes, list[str]]:
    *events, rest = (rest + chunk).split(b"\n\n")
    data = [event[6:] for event in events if event != b"data: [DONE]"]
    found = [choice.delta.content for event in data for choice in _decode(event).choices]
    return rest, [text for text in found if text]


async def _whole(answer: aiohttp.ClientResponse) -> web.Response:
    rest, texts = b"", list[str]()
    async for chunk in answer.content.iter_any():
        rest, more = _texts(rest, chunk)
        texts += more
    return web.json_response({"content": "".join(texts), "finishReason": "end_turn"})


async def _frames(answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
    rest = b""
    async for chunk in answer.content.iter_any():
        rest, texts = _texts(rest, chunk)
        if texts:
            await response.write("".join([f"data: {json.dumps({'text': text})}\n\n" for text in texts]).encode())
    await response.write(b'data: {"finishReason": "end_turn"}\n\ndata: [DONE]\n\n')


async def _serve(upstream: str, *, parses: bool) -> None:
    runner = web.AppRunner(application(upstream, parses=parses), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(f"port {runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import asyncio

    try:
        from uvloop import run
    except ImportError:
        from asyncio import run  # type: ignore[assignment]
    run(_serve(sys.argv[2], parses=sys.argv[1] == "parsing"))
