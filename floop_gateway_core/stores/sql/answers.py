"""Rows of idempotency keys and their answers. Each function runs inside a transaction that its caller opened."""

from floop_gateway_core.policy.idempotency import KEEP_S, KeptAnswer, KeyTaken
from floop_gateway_core.stores.base import HoldRequest, Settled, Settlement
from floop_gateway_core.stores.sql.connection import Connection, upsert
from floop_gateway_core.types import Microcredits, ProjectId, RequestId

_UPSERT = upsert(
    "answers", "project_id, key, digest, request_id, state, answer, charged, posted, until", "project_id, key"
)


def kept(project: ProjectId, key: str, now: float, connection: Connection) -> KeptAnswer | None:
    """See `LedgerStore.kept_answer`."""
    row = connection.execute(
        "SELECT request_id, digest, state, answer, charged, posted FROM answers"
        " WHERE project_id = ? AND key = ? AND until > ?",
        (project, key, now),
    ).fetchone()
    if row is None:
        return None
    request_id, digest, state, answer, charged, posted = row
    return KeptAnswer(RequestId(request_id), digest, state, answer, Microcredits(charged), Microcredits(posted))


def taken(connection: Connection, request: HoldRequest) -> KeyTaken | None:
    """Return what another request has for the key that a hold would claim."""
    if request.claim is None:
        return None
    found = kept(request.record.project_id, request.claim.key, request.now, connection)
    if found is None or found.request_id == request.record.request_id:
        return None
    return KeyTaken(found, request.claim)


def claim(connection: Connection, request: HoldRequest) -> None:
    """Claim a hold's key, which is free, until the hold expires."""
    if request.claim is not None:
        claim = request.claim
        values = request.record.project_id, claim.key, claim.digest, request.record.request_id
        connection.execute(_UPSERT, (*values, "running", b"", 0, 0, request.expires_at))


def settle(connection: Connection, settlement: Settlement, settled: Settled) -> None:
    """Keep the answer for the key of a request that has ended, or free the key."""
    if settlement.claim is None:
        return
    project, request_id = settlement.record.project_id, settlement.record.request_id
    found = kept(project, settlement.claim.key, settlement.now, connection)
    if found is not None and found.request_id != request_id:
        return  # freed when the hold expired, and claimed by another request since
    if settlement.answer is None:
        free(connection, request_id)
        return
    free(connection, request_id)  # the same request may have claimed another key before
    connection.execute(
        _UPSERT,
        (
            project, settlement.claim.key, settlement.claim.digest, request_id, "kept", settlement.answer,
            settled.hold.charged, settled.account.posted, settlement.now + KEEP_S,
        ),
    )  # fmt: skip


def free(connection: Connection, request_id: str) -> None:
    """Free the key that a request has claimed, if it has claimed one."""
    connection.execute("DELETE FROM answers WHERE request_id = ?", (request_id,))


def prune(connection: Connection, now: float, limit: int) -> int:
    """Delete answers whose day is over, and return how many."""
    where = "WHERE request_id IN (SELECT request_id FROM answers WHERE until <= ? LIMIT ?)"
    return len(connection.execute(f"DELETE FROM answers {where} RETURNING 1", (now, limit)).fetchall())


def drop(connection: Connection, project: ProjectId) -> None:
    """Delete the answers of a deleted project."""
    connection.execute("DELETE FROM answers WHERE project_id = ?", (project,))
