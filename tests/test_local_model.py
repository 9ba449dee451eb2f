"""The contract's happy paths against a real model on this machine: `make test-local-model`, for its 300 MB."""

import json
import os
from collections.abc import Iterator

import pytest

from floop_gateway_core.cli import local_model
from floop_gateway_core.cli.serve import host_app
from floop_gateway_core.wire.sse import SSEDecoder
from tests.serving import MOUNT, gateway_of, post, records, served

pytestmark = pytest.mark.skipif(
    "FLOOP_GATEWAY_LOCAL_MODEL" not in os.environ, reason="make test-local-model installs the model"
)

ASK = {"prompt": "Once upon a time there was a", "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with local_model.served() as address:
        yield address


@pytest.mark.parametrize("deployment", ["local", "local-messages"])
def test_a_real_model_answers_the_same_streamed_or_not(model: str, deployment: str) -> None:
    configuration = local_model.configuration(model)
    configuration.pop("plans")
    gateway, key = gateway_of(**configuration)
    with served(host_app(gateway, MOUNT), lifespan="on") as address:
        url = f"{address}{MOUNT}/generate"
        plain = post(url, key, {**ASK, "model": deployment}).json()
        stream = post(url, key, {**ASK, "model": deployment, "stream": True})
    *texts, end, done = [event.data for event in SSEDecoder().feed(stream.content)]
    assert "[DONE]" == done
    usage = json.loads(end)["usage"]
    assert plain["content"] == "".join(json.loads(text)["text"] for text in texts) != ""
    assert (12, "max_tokens") == (usage["output_tokens"], json.loads(end)["finishReason"])
    assert plain["usage"]["total_tokens"] == usage["total_tokens"] > 12
    assert [False, False] == [record.estimated for record in records(gateway)]
    assert [usage["input_tokens"]] * 2 == [record.input_tokens for record in records(gateway)]


def test_both_wire_formats_give_the_same_text_at_temperature_0(model: str) -> None:
    configuration = local_model.configuration(model)
    configuration.pop("plans")
    gateway, key = gateway_of(**configuration)
    with served(host_app(gateway, MOUNT), lifespan="on") as address:
        url = f"{address}{MOUNT}/generate"
        answers = [post(url, key, {**ASK, "model": name}).json() for name in ("local", "local-messages")]
    assert answers[0]["content"] == answers[1]["content"] != ""
    assert answers[0]["usage"]["total_tokens"] == answers[1]["usage"]["total_tokens"]
