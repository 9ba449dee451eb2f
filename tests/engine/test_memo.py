"""Estimates and classifications that are remembered are those that would be worked out again."""

from concurrent.futures import ThreadPoolExecutor

import anyio
from hypothesis import given
from hypothesis import strategies as st

from floop_gateway_core.engine import assess
from floop_gateway_core.engine.memo import Memo, digest
from floop_gateway_core.engine.routing import RoutingTable
from floop_gateway_core.policy.auto.classify import classify
from floop_gateway_core.policy.routes import Routes
from floop_gateway_core.policy.tokens.estimate import estimate_messages
from floop_gateway_core.types import Call, Message

TEXTS = st.sampled_from(["", "Translate to French: good morning", "Prove it.", "def f(): pass", "\ud800", "x y z"])
MESSAGES = st.lists(st.builds(Message.of, st.sampled_from(["user", "assistant", "system"]), TEXTS), max_size=5)
ROUTING = RoutingTable({}, Routes({"fast": ("d",), "smart": ("d",), "reason": ("d",)}, ["d"]))


@given(MESSAGES, st.none() | TEXTS)
def test_a_remembered_assessment_is_the_same_as_a_new_one(messages: list[Message], system: str | None) -> None:
    call = Call("chat", tuple(messages), system=system)
    for _ in range(2):
        found = anyio.run(assess.choose_alias, ROUTING, call)
        sizes = anyio.run(assess.estimate_input, call, ["o200k", "claude"])
        assert found == classify(messages, system)
        assert sizes == {name: estimate_messages(messages, system, name) for name in ("o200k", "claude")}


@given(st.lists(st.none() | TEXTS, max_size=3), st.lists(st.none() | TEXTS, max_size=3))
def test_only_equal_texts_have_equal_digests(one: list[str | None], other: list[str | None]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)


def test_a_memo_forgets_what_was_used_longest_ago() -> None:
    memo: Memo[int] = Memo(2)
    asked: list[int] = []

    def value(key: int) -> int:
        return memo.get(key, lambda: asked.append(key) or key)  # type: ignore[func-returns-value]

    for key in (1, 2, 1, 3, 1, 2):
        assert value(key) == key
    assert asked == [1, 2, 3, 2]


def test_a_memo_serves_threads() -> None:
    memo: Memo[int] = Memo(50)
    with ThreadPoolExecutor(8) as threads:
        keys = [number % 97 for number in range(5_000)]
        assert list(threads.map(lambda key: memo.get(key, lambda: key + 1), keys)) == [key + 1 for key in keys]
