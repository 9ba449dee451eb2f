"""No key, prompt or word of an upstream ever shows in an answer's error, a log line, an exception or what listeners hear.

The scripted upstream quotes the request's key and prompt in its errors, as bad upstreams do. Everything that is logged is
looked at, by any library, down to DEBUG.
"""

import logging

import pytest

from floop_gateway_core import MemoryStore
from floop_gateway_core.stores.base import StoreUnavailable
from floop_gateway_core.testing import Answer, Break, Reply, Status
from floop_gateway_core.testing.answers import Vendor
from tests.engine.kit import UPSTREAM_KEY, Bench, SlowLedger, bench

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_back_off")]

WORDS_OF_THE_UPSTREAM = b'{"error": {"message": "wombat said quokka", "type": "wombat_error", "code": "wombat"}}'

FAULTS: dict[str, Answer] = {
    **{str(status): Status(status) for status in (400, 401, 403, 404, 409, 422, 429, 500, 503, 529)},
    "quota": Status(429, kind="quota"),
    "context length": Status(400, kind="context_length"),
    "its own words": Status(500, body=WORDS_OF_THE_UPSTREAM),
    "a page": Status(502, body=b"<h1>wombat</h1>", content_type="text/html"),
    "200 with an error": Status(200, body=WORDS_OF_THE_UPSTREAM),
    "an error in band": Break("error", "preamble"),
    "an error in mid-stream": Break("error", "text"),
    "malformed": Break("malformed", "text"),
    "truncated": Break("truncate", "text"),
    "reset": Break("reset", "text"),
    "noise for gzip": Break("gzip", "body"),
    "no head": Break("malformed", "head"),
    "stalled": Reply(texts=["wombat"], broken=Break("stall", "text")),
}


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def secrets(b: Bench) -> list[str]:
    return ["quokka", "wombat", UPSTREAM_KEY, b.key, b.key[15:]]


@pytest.mark.parametrize("fault", list(FAULTS.values()), ids=list(FAULTS))
async def test_a_failing_upstream_tells_the_client_and_the_log_nothing(
    fault: Answer, vendor: Vendor, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"attempts": 2, "first_event_s": 0.3, "between_events_s": 0.3}
    async with bench(default=fault, vendor=vendor, limits=limits) as b:
        answer = await b.ask(stream=stream)
        error = answer.raw.decode() if answer.status != 200 else str(answer.last)
        record = await b.settled()
        for told in (error, caplog.text, repr(b.told), repr(record), str(record.as_json())):
            assert not [secret for secret in secrets(b) if secret in told]


async def test_our_own_failures_tell_nothing_either(caplog: pytest.LogCaptureFixture) -> None:
    for broken in (StoreUnavailable("down"), ValueError("broken")):
        async with bench(ledger=SlowLedger(MemoryStore(), fail_hold=broken).over) as b:
            answer = await b.ask()
            assert answer.status in (500, 503)
            assert not [secret for secret in secrets(b) if secret in answer.raw.decode() + caplog.text]


@pytest.mark.parametrize("body", [b'{"messages": "quokka"}', b'{"quokka": NaN}', b"quokka", b'{"model": "quokka"}'])
async def test_what_is_wrong_with_a_body_is_said_without_quoting_it(body: bytes) -> None:
    async with bench() as b:
        answer = await b.send(b.raw(body))
        assert 400 == answer.status
        assert "quokka" not in answer.raw.decode()


async def test_a_wrong_key_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    wrong = "flp_sk_" + "quokka" * 6
    async with bench() as b:
        answer = await b.send(b.raw(b"{}", key=wrong))
        assert 401 == answer.status
        assert "quokka" not in answer.raw.decode() + caplog.text
