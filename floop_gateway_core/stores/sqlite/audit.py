"""Rows of the audit log. Each function runs inside a transaction that its caller opened."""

import json
import sqlite3

from floop_gateway_core.types import AuditLine, ProjectId

Connection = sqlite3.Connection

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


def lines(
    before: int | None, projects: frozenset[ProjectId] | None, limit: int, connection: Connection
) -> list[AuditLine]:
    """See `ProjectStore.audit_lines`."""
    only = "" if projects is None else f" AND project_id IN ({', '.join('?' * len(projects))})"
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE (?1 IS NULL OR number < ?1){only} ORDER BY number DESC LIMIT {int(limit)}",
        (before, *(projects or ())),
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
