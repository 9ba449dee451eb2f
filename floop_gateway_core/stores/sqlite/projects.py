"""Rows of projects and keys. Each function runs inside a transaction that its caller opened."""

import sqlite3

from floop_gateway_core.stores.base import NoSuchProject, ProjectExists
from floop_gateway_core.types import Project, ProjectId, ProjectSettings

Connection = sqlite3.Connection

_COLUMNS = "id, name, owner, plan, requests_per_minute, daily_tokens, prefix, projects.created_at, keys.created_at"
_PROJECT = f"""
    SELECT {_COLUMNS} FROM projects JOIN keys ON keys.project_id = projects.id AND keys.revoked_at IS NULL
    WHERE projects.deleted_at IS NULL
"""
Row = tuple[ProjectId, str, str, str, int | None, int | None, str, float, float]


def _project(row: Row | None) -> Project | None:
    if row is None:
        return None
    id, name, owner, plan, requests_per_minute, daily_tokens, prefix, created_at, key_created_at = row
    settings = ProjectSettings(plan, requests_per_minute, daily_tokens)
    return Project(id, name, owner, settings, prefix, created_at, key_created_at)


def by_id(connection: Connection, id: ProjectId) -> Project:
    """Return a project; raise `NoSuchProject`."""
    project = _project(connection.execute(_PROJECT + "AND id = ?", (id,)).fetchone())
    if project is None:
        raise NoSuchProject(id)
    return project


def by_name(connection: Connection, name: str) -> Project | None:
    """Return a project, or None."""
    return _project(connection.execute(_PROJECT + "AND name = ?", (name,)).fetchone())


def by_digest(digest: str, connection: Connection) -> Project | None:
    """Return the project of an active key, or None."""
    return _project(connection.execute(_PROJECT + "AND digest = ?", (digest,)).fetchone())


def every(connection: Connection) -> list[Project]:
    """Return all projects, ordered by name."""
    rows = connection.execute(_PROJECT + "ORDER BY name").fetchall()
    return [project for row in rows if (project := _project(row))]


def create(connection: Connection, project: Project, digest: str) -> None:
    """Insert a project and its key; raise `ProjectExists`."""
    if by_name(connection, project.name) is not None:
        raise ProjectExists(project.name)
    settings = project.settings
    connection.execute(
        "INSERT INTO projects (id, name, owner, plan, requests_per_minute, daily_tokens, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            project.id, project.name, project.owner, settings.plan, settings.requests_per_minute,
            settings.daily_tokens, project.created_at,
        ),
    )  # fmt: skip
    _add_key(connection, project.id, digest, project.key_prefix, project.key_created_at)


def _add_key(connection: Connection, id: ProjectId, digest: str, prefix: str, now: float) -> None:
    connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, NULL)", (digest, id, prefix, now))


def change(connection: Connection, id: ProjectId, settings: ProjectSettings) -> Project:
    """Replace a project's settings; raise `NoSuchProject`."""
    connection.execute(
        "UPDATE projects SET plan = ?, requests_per_minute = ?, daily_tokens = ? WHERE id = ?",
        (settings.plan, settings.requests_per_minute, settings.daily_tokens, id),
    )
    return by_id(connection, id)


def rotate(connection: Connection, id: ProjectId, digest: str, prefix: str, now: float) -> Project:
    """Revoke the active key and insert a new one; raise `NoSuchProject`."""
    by_id(connection, id)
    connection.execute("UPDATE keys SET revoked_at = ? WHERE project_id = ? AND revoked_at IS NULL", (now, id))
    _add_key(connection, id, digest, prefix, now)
    return by_id(connection, id)
