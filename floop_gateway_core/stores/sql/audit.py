"""Rows of the audit log. Each function runs inside a transaction that its caller opened."""

import json

from floop_gateway_core.stores.sql.connection import Connection, among
from floop_gateway_core.types import AuditLine, ProjectId

LAST = 2**62
"""Greater than the number of any line."""
_COLUMNS = "at, by, what, project_id, project, account, origin, details, number"


def add(connection: Connection, line: AuditLine) -> None:
    """Insert a line."""
    connection.execute(
        "INSERT INTO audit (at, by, what, project_id, project, account, origin, details)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            line.at, line.by, line.what, line.project_id, line.project, line.account, line.origin,
            json.dumps(dict(line.details), ensure_ascii=False),
        ),
    )  # fmt: skip


def deleted_by(connection: Connection, project_id: str) -> str | None:
    """Return who deleted a project, if that is known."""
    query = "SELECT by FROM audit WHERE project_id = ? AND what = 'delete' ORDER BY number DESC LIMIT 1"
    row = connection.execute(query, (project_id,)).fetchone()
    return None if row is None else str(row[0])


def lines(
    before: int | None, projects: frozenset[ProjectId] | None, limit: int, connection: Connection
) -> list[AuditLine]:
    """See `ProjectStore.audit_lines`."""
    conditions, values = ["number < ?"], list[object]([LAST if before is None else before])
    if projects is not None:
        conditions.append(among("project_id", len(projects)))
        values += sorted(projects)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?", (*values, limit)
    ).fetchall()
    return [_line(*row) for row in rows]


def _line(
    at: float,
    by: str,
    what: str,
    project_id: ProjectId | None,
    project: str | None,
    account: str | None,
    origin: str | None,
    details: str,
    number: int,
) -> AuditLine:
    return AuditLine(at, by, what, project_id, project, account, origin, json.loads(details), number)
