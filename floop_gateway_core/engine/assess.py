"""Assesses a call before any money is held: its kind, and its size in each vocabulary of its route.

The work is pure but not free. A long text is assessed in a worker thread, so that it never blocks the event loop for more
than a few milliseconds.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from floop_gateway_core.engine.memo import Memo, digest
from floop_gateway_core.engine.routing import Classifier, RoutingTable
from floop_gateway_core.policy.auto.classify import Classification, Thresholds, classify
from floop_gateway_core.policy.tokens.estimate import TokenEstimate, estimate_messages, estimate_tokens, texts_of
from floop_gateway_core.types import Call

__all__ = ["choose_alias", "estimate_input", "preload_tables", "run_cpu_bound"]

log = logging.getLogger("floop_gateway")

T = TypeVar("T")
TOOL_TOKENS = 12
"""What a vendor writes around each tool: its kind, names of members, braces."""
INLINE_CHARACTERS = 16_000
"""Assessing this many characters takes about as long as handing them to a thread."""
MAX_THREADS = 1
"""How many long texts are read or assessed at a time in an event loop. They would compete for one interpreter: with two,
other requests wait up to twice as long, and nothing is done sooner."""
EARLY_MESSAGES = 3
"""System messages count for the classifier if they are among the first."""
REMEMBERED = 2048
"""Some hundred bytes each."""
_estimates: Memo[TokenEstimate] = Memo(REMEMBERED)
_classifications: Memo[Classification] = Memo(REMEMBERED)
_threads: RunVar[anyio.CapacityLimiter] = RunVar("floop_gateway_cpu_threads")


async def run_cpu_bound(characters: int, work: Callable[[], T], *, shield: bool = False) -> T:
    """Run pure work here if it is short, else in a worker thread; `shield` keeps that from being cancelled."""
    if characters <= INLINE_CHARACTERS:
        return work()
    limiter = _threads.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(MAX_THREADS)
        _threads.set(limiter)
    with anyio.CancelScope(shield=shield):
        result = await anyio.to_thread.run_sync(work, limiter=limiter)
    return result  # noqa: RET504 - a scope may swallow what it cancels, so mypy wants it outside


def characters_of(call: Call) -> int:
    """Return the characters of all that is estimated."""
    texts = (text for message in call.messages for text in texts_of(message.content))
    return len(call.system or "") + sum(map(len, texts)) + sum(map(len, _schemas(call)))


def _schemas(call: Call) -> list[str]:
    """Return the JSON that describes tools and the answer's format, which costs tokens like text."""
    wanted = call.shape.response_format
    tools = [f"{tool.name}{tool.description or ''}{tool.schema or ''}" for tool in call.shape.tools]
    return tools if wanted is None or wanted.schema is None else [*tools, wanted.schema]


async def preload_tables(routing: RoutingTable) -> None:
    """Read the tables of the estimator and the classifier, so that the first request does not wait for them."""
    names = {deployment.vocabulary for deployment in routing.deployments.values()}

    def read() -> None:
        for name in names:
            estimate_tokens("x", name)
        if routing.classifier is None:
            classify([])

    await anyio.to_thread.run_sync(read)


async def estimate_input(call: Call, vocabularies: Iterable[str]) -> Mapping[str, TokenEstimate]:
    """Estimate the input's tokens once for each vocabulary."""
    names = tuple(dict.fromkeys(vocabularies))
    return await run_cpu_bound(
        characters_of(call) * len(names),
        lambda: {name: _estimate(call, name) for name in names},
    )


def _estimate(call: Call, vocabulary: str) -> TokenEstimate:
    found = estimate_messages(call.messages, call.system, vocabulary, estimate=_remembered)
    for schema in _schemas(call):
        one = _remembered(schema, vocabulary)
        found = TokenEstimate(found.expected + one.expected + TOOL_TOKENS, found.upper + one.upper + TOOL_TOKENS)
    return found


async def choose_alias(routing: RoutingTable, call: Call) -> Classification:
    """Ask the classifier; return `smart` if a host's own is too slow or fails."""
    classifier = routing.classifier
    if classifier is None:
        return await run_cpu_bound(characters_of(call), partial(_classified, call, routing.thresholds))
    judged: Classification | None = None
    try:
        with anyio.move_on_after(routing.classifier_s):
            judged = await _ask_host(classifier, call)
    except Exception:
        log.exception("the classifier failed; using smart")
    return judged or Classification("smart", 0.5, (("classifier_unavailable", 1.0),))


def _remembered(text: str, vocabulary: str) -> TokenEstimate:
    return _estimates.get((vocabulary, digest(text)), partial(estimate_tokens, text, vocabulary))


def _classified(call: Call, thresholds: Thresholds) -> Classification:
    """Classify a call. The assistant's turns do not count, so every call of an agent's task gets the same result."""
    texts: list[str] = []
    for index, message in enumerate(call.messages):
        if message.role != "assistant":
            early = message.role == "system" and index < EARLY_MESSAGES
            texts += (f"{message.role}{early}", message.text)
    ours = partial(classify, call.messages, call.system, thresholds=thresholds)
    return _classifications.get((digest(call.system, *texts), thresholds), ours)


async def _ask_host(classifier: Classifier, call: Call) -> Classification:
    if inspect.iscoroutinefunction(classifier):
        return await classifier(call.messages, call.system)  # type: ignore[no-any-return]
    judged = await anyio.to_thread.run_sync(partial(classifier, call.messages, call.system), abandon_on_cancel=True)
    return judged if isinstance(judged, Classification) else await judged
