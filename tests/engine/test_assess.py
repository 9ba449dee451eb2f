"""A host's own classifier in place of ours: asked, kept to its deadline, and survived."""

import time
from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from floop_gateway_core import Classification, Gateway, MemoryStore, Message, Settings
from floop_gateway_core.engine.routing import Classifier
from floop_gateway_core.types import Microcredits, UsageRecord

pytestmark = pytest.mark.anyio

HARD = [Message.of("user", "Prove that there are infinitely many primes.")]
UNAVAILABLE = (("classifier_unavailable", 1.0),)


def plain(messages: Sequence[Message], system: str | None) -> Classification:
    return Classification("fast", 0.1, (("host", 1.0),))


async def waiting(messages: Sequence[Message], system: str | None) -> Classification:
    await anyio.lowlevel.checkpoint()
    return Classification("reason", 0.9, (("host", 1.0),))


async def stuck(messages: Sequence[Message], system: str | None) -> Classification:
    await anyio.sleep(60)
    raise AssertionError("nobody waits so long")


def blocked(messages: Sequence[Message], system: str | None) -> Classification:
    time.sleep(1)
    return plain(messages, system)


def broken(messages: Sequence[Message], system: str | None) -> Classification:
    raise RuntimeError("out of order")


async def asked(classifier: Classifier | None, deadline_s: float) -> UsageRecord:
    """Ask `auto` for an answer, and give the record of it."""
    settings = Settings.read({"store": "memory://", "auto": {"deadline_s": deadline_s}}, source="test")
    async with Gateway(settings, store=MemoryStore(), classifier=classifier) as gateway:
        new = await gateway.admin.create_project("p", credits=Microcredits(10**12))
        answer = await gateway.chat(new.key, HARD, model="auto")
        assert answer.content
        (record,) = [record async for record in gateway.store.usage()]
        return record


@pytest.mark.parametrize(
    ("classifier", "alias", "reasons"),
    [(plain, "fast", (("host", 1.0),)), (waiting, "reason", (("host", 1.0),)), (broken, "smart", UNAVAILABLE)],
)
async def test_a_hosts_classifier_decides_sync_or_async_and_smart_is_taken_where_it_fails(
    classifier: Classifier, alias: str, reasons: tuple[tuple[str, float], ...]
) -> None:
    record = await asked(classifier, 5.0)
    assert (record.resolved_alias, record.auto_reasons) == (alias, reasons)


@pytest.mark.parametrize("classifier", [stuck, blocked])
async def test_smart_is_taken_where_a_hosts_classifier_is_too_slow(classifier: Classifier) -> None:
    record = await asked(classifier, 0.05)
    assert (record.resolved_alias, record.auto_reasons) == ("smart", UNAVAILABLE)


async def test_ours_names_its_features_in_the_record_and_never_the_text() -> None:
    record = await asked(None, 1.0)
    assert record.resolved_alias == "reason"
    reasons = record.auto_reasons or ()
    assert 1 <= len(reasons) <= 5
    assert not any("prime" in name for name, _ in reasons)
