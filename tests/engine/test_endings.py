"""Every row of the endings table, and what the log says of a real request that ended so."""

from typing import get_args

import anyio
import pytest

from floop_gateway_core.engine.endings import TABLE, Outcome, Sent, outcome
from floop_gateway_core.errors import ErrorCode, Refusal
from floop_gateway_core.providers.base import Delta
from floop_gateway_core.testing import Reply
from floop_gateway_core.types import Ending, Usage
from tests.engine.kit import bench

pytestmark = pytest.mark.anyio

REFUSAL = Refusal(ErrorCode.PROVIDER_ERROR, "Every attempt failed.")


def test_the_table_has_every_ending_that_a_run_can_have() -> None:
    endings = set(get_args(Ending)) - {"lost"}  # written without a run, by a store
    assert {(ending, sent) for ending in endings for sent in Sent} == set(TABLE)


@pytest.mark.parametrize("sent", Sent)
def test_a_complete_answer_is_200_with_its_own_reason(sent: Sent) -> None:
    assert Outcome(200, None, "max_tokens") == outcome("complete", sent, finish="max_tokens")


@pytest.mark.parametrize("ending", ["upstream_error", "refused", "internal_error"])
def test_a_failure_has_its_own_status_only_if_nothing_was_sent(ending: Ending) -> None:
    code = ErrorCode.PROVIDER_ERROR
    assert Outcome(502, code, None) == outcome(ending, Sent.NOTHING, refusal=REFUSAL)
    assert Outcome(200, code, "error") == outcome(ending, Sent.HEAD, refusal=REFUSAL)
    assert Outcome(200, code, "error") == outcome(ending, Sent.OUTPUT, refusal=REFUSAL)
    with pytest.raises(ValueError, match="must have a refusal"):
        outcome(ending, Sent.NOTHING)


def test_a_client_that_left_is_499_only_if_nothing_was_sent() -> None:
    assert [499, 200, 200] == [outcome("client_gone", sent).status for sent in Sent]


class Breaks:
    """A provider that is silent for longer than a heartbeat and then breaks."""

    def open(self, call: object, on_sent: object) -> "Breaks":
        return self

    async def __aenter__(self) -> "Breaks":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def next(self) -> Delta:
        await anyio.sleep(0.3)
        raise RuntimeError("a bug")


async def test_an_internal_error_after_a_heartbeat_is_logged_as_the_200_that_was_sent() -> None:
    async with bench(limits={"heartbeat_s": 0.1}, providers={"a": Breaks()}) as b:
        answer = await b.ask(stream=True)
        assert (200, "INTERNAL_ERROR") == (answer.status, answer.last["code"])
        record = await b.settled()
        assert (200, "INTERNAL_ERROR", "error", "internal_error", 0) == (
            record.status,
            record.code,
            record.finish_reason,
            record.ending,
            record.microcredits,
        )


async def test_the_record_names_what_served_and_what_it_counted() -> None:
    async with bench(Reply(usage=Usage(12, 4))) as b:
        await b.ask(stream=True)
        record = await b.settled()
        assert ("a", 1, 12, 4) == (record.deployment, record.attempts, record.input_tokens, record.output_tokens)
