"""How much a call thinks: the deployment's setting, the client's wish, and what the vendor takes."""

import pytest

from floop_gateway_core.providers.anthropic.codec import THINKING as ANTHROPIC
from floop_gateway_core.providers.gemini.codec import THINKING as GEMINI
from floop_gateway_core.providers.openai.codec import THINKING as OPENAI
from floop_gateway_core.providers.thinking import NO_THINKING, Thinking, ThinkingRange
from floop_gateway_core.types import Shape
from floop_gateway_core.types.tools import ThinkingRequest

LOW = Thinking(effort="low", allowance_tokens=1_000)
BUDGET = Thinking(budget_tokens=4_096, allowance_tokens=4_096)
OFF = ThinkingRequest("disabled")


@pytest.mark.parametrize(
    ("vendor", "own", "shape", "found"),
    [
        (OPENAI, LOW, Shape(), LOW),
        (OPENAI, LOW, Shape(effort="low"), LOW),
        (OPENAI, LOW, Shape(effort="high"), Thinking("high", None, 16_384)),
        (OPENAI, LOW, Shape(effort="max"), Thinking("xhigh", None, 32_768)),
        (OPENAI, LOW, Shape(effort="none"), Thinking("none", None, 0)),
        (OPENAI, LOW, Shape(thinking=OFF), LOW),
        (OPENAI, NO_THINKING, Shape(effort="high"), NO_THINKING),
        (ANTHROPIC, LOW, Shape(effort="minimal"), LOW),
        (ANTHROPIC, LOW, Shape(effort="none"), NO_THINKING),
        (ANTHROPIC, LOW, Shape(thinking=OFF), NO_THINKING),
        (ANTHROPIC, LOW, Shape(thinking=ThinkingRequest("adaptive")), LOW),
        (ANTHROPIC, BUDGET, Shape(effort="high"), BUDGET),
        (ANTHROPIC, BUDGET, Shape(thinking=OFF), NO_THINKING),
        (ANTHROPIC, BUDGET, Shape(thinking=ThinkingRequest("enabled", 1_024)), Thinking(None, 1_024, 1_024)),
        (ANTHROPIC, BUDGET, Shape(thinking=ThinkingRequest("enabled", 99_999)), BUDGET),
        (GEMINI, LOW, Shape(effort="xhigh"), Thinking("high", None, 16_384)),
        (GEMINI, LOW, Shape(effort="none"), Thinking("minimal", None, 2_048)),
        (GEMINI, BUDGET, Shape(thinking=OFF), BUDGET),
    ],
)
def test_a_clients_wish_is_brought_into_what_the_vendor_takes(
    vendor: ThinkingRange, own: Thinking, shape: Shape, found: Thinking
) -> None:
    assert found == vendor.of(own, shape)
