"""Rows of projects and keys. Each function runs inside a transaction that its caller opened."""

import sqlite3

from floop_gateway_core.stores.base import NoSuchProject, ProjectExists
from floop_gateway_core.types import Project, ProjectSettings

Connection = sqlite3.Connection

_PROJECT = """
    SELECT name, owner, plan, requests_per_minute, daily_tokens, prefix, projects.created_at
    FROM projects JOIN keys ON keys.project = projects.name AND keys.revoked_at IS NULL
"""
Row = tuple[str, str, str, int | None, int | None, str, float]


def _project(row: Row | None) -> Project | None:
    if row is None:
        return None
    name, owner, plan, requests_per_minute, daily_tokens, prefix, created_at = row
    return Project(name, owner, ProjectSettings(plan, requests_per_minute, daily_tokens), prefix, created_at)


def by_name(connection: Connection, name: str) -> Project | None:
    """Return a project, or None."""
    return _project(connection.execute(_PROJECT + "WHERE name = ?", (name,)).fetchone())


def by_digest(digest: str, connection: Connection) -> Project | None:
    """Return the project of an active key, or None."""
    return _project(connection.execute(_PROJECT + "WHERE digest = ?", (digest,)).fetchone())


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
        "INSERT INTO projects VALUES (?, ?, ?, ?, ?, ?)",
        (
            project.name,
            project.owner,
            settings.plan,
            settings.requests_per_minute,
            settings.daily_tokens,
            project.created_at,
        ),
    )
    _add_key(connection, project.name, digest, project.key_prefix, project.created_at)


def _add_key(connection: Connection, name: str, digest: str, prefix: str, now: float) -> None:
    connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, NULL)", (digest, name, prefix, now))


def change(connection: Connection, name: str, settings: ProjectSettings) -> Project:
    """Replace a project's settings; raise `NoSuchProject`."""
    connection.execute(
        "UPDATE projects SET plan = ?, requests_per_minute = ?, daily_tokens = ? WHERE name = ?",
        (settings.plan, settings.requests_per_minute, settings.daily_tokens, name),
    )
    return _existing(connection, name)


def rotate(connection: Connection, name: str, digest: str, prefix: str, now: float) -> Project:
    """Revoke the active key and insert a new one; raise `NoSuchProject`."""
    _existing(connection, name)
    connection.execute("UPDATE keys SET revoked_at = ? WHERE project = ? AND revoked_at IS NULL", (now, name))
    _add_key(connection, name, digest, prefix, now)
    return _existing(connection, name)


def _existing(connection: Connection, name: str) -> Project:
    if (project := by_name(connection, name)) is None:
        raise NoSuchProject(name)
    return project
