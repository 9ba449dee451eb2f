"""The idempotency keys of a memory store, and their answers. The caller holds the store's lock."""

from dataclasses import dataclass

from floop_gateway_core.policy.idempotency import KEEP_S, KeptAnswer, KeyTaken
from floop_gateway_core.stores.base import HoldRequest, Settled, Settlement
from floop_gateway_core.types import ProjectId

__all__ = ["Answers"]

MAX_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: KeptAnswer
    until: float


class Answers:
    """Answers by project and key, in the order of claiming; the oldest go when there are more than `most`."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        self._most = most
        self._kept: dict[tuple[ProjectId, str], _Kept] = {}

    def kept(self, project: ProjectId, key: str, now: float) -> KeptAnswer | None:
        """See `LedgerStore.kept_answer`."""
        found = self._kept.get((project, key))
        return None if found is None or found.until <= now else found.answer

    def taken(self, request: HoldRequest) -> KeyTaken | None:
        """Return what another request has for the key that a hold would claim."""
        if request.claim is None:
            return None
        found = self.kept(request.record.project_id, request.claim.key, request.now)
        if found is None or found.request_id == request.record.request_id:
            return None
        return KeyTaken(found, request.claim)

    def claim(self, request: HoldRequest) -> None:
        """Claim a hold's key, which is free, until the hold expires."""
        if request.claim is None:
            return
        answer = KeptAnswer(request.record.request_id, request.claim.digest, "running")
        place = request.record.project_id, request.claim.key
        self._kept.pop(place, None)
        self._kept[place] = _Kept(answer, request.expires_at)
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def settle(self, settlement: Settlement, settled: Settled) -> None:
        """Keep the answer for the key of a request that has ended, or free the key."""
        if settlement.claim is None:
            return
        record, place = settlement.record, (settlement.record.project_id, settlement.claim.key)
        found = self._kept.get(place)
        is_anothers = found is not None and found.answer.request_id != record.request_id
        if found is not None and is_anothers and (settlement.answer is None or found.until > settlement.now):
            # The claim is another request's, even if its hold seems expired by this clock, or it was made after this
            # request's hold expired.
            return
        self._kept.pop(place, None)
        if settlement.answer is not None:
            answer = KeptAnswer(
                record.request_id, settlement.claim.digest, "kept", settlement.answer,
                settled.hold.charged, settled.account.posted,
            )  # fmt: skip
            self._kept[place] = _Kept(answer, settlement.now + KEEP_S)

    def prune(self, now: float) -> None:
        """Drop what is over."""
        self._kept = {place: one for place, one in self._kept.items() if one.until > now}

    def drop(self, project: ProjectId) -> None:
        """Drop the answers of a deleted project."""
        self._kept = {place: one for place, one in self._kept.items() if place[0] != project}
