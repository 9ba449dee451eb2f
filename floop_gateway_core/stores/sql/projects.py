"""Rows of projects and keys. Each function runs inside a transaction that its caller opened."""

from floop_gateway_core.stores.base import NoSuchProject, ProjectExists
from floop_gateway_core.stores.sql import answers, books
from floop_gateway_core.stores.sql.connection import Connection
from floop_gateway_core.types import Project, ProjectId, ProjectSettings, Suspension
from floop_gateway_core.types.amounts import OWN_ACCOUNT

_COLUMNS = (
    "id, name, owner, plan, requests_per_minute, daily_tokens, prefix, projects.created_at, keys.created_at,"
    " suspended_at, suspended_by_operator"
)
_PROJECT = f"""
    SELECT {_COLUMNS} FROM projects JOIN keys ON keys.project_id = projects.id AND keys.revoked_at IS NULL
    WHERE projects.deleted_at IS NULL
"""
_DELETED = """
    SELECT id, name, owner, plan, requests_per_minute, daily_tokens, '', created_at, created_at, suspended_at,
    suspended_by_operator FROM projects WHERE deleted_at IS NOT NULL
"""
Row = tuple[ProjectId, str, str, str, int | None, int | None, str, float, float, float | None, int]


def _project(row: Row | None) -> Project | None:
    if row is None:
        return None
    id, name, owner, plan, requests_per_minute, daily_tokens, prefix, created_at, key_created_at, since, by = row
    settings = ProjectSettings(plan, requests_per_minute, daily_tokens)
    suspension = None if since is None else Suspension(since, bool(by))
    return Project(id, name, owner, settings, prefix, created_at, key_created_at, suspension)


def by_id(connection: Connection, id: ProjectId) -> Project:
    """Return a project; raise `NoSuchProject`."""
    project = _project(connection.execute(_PROJECT + "AND id = ?", (id,)).fetchone())
    if project is None:
        raise NoSuchProject(id)
    return project


def by_name(connection: Connection, name: str) -> Project | None:
    """Return the project of this name, else of this id, or None."""
    for condition in ("AND name = ?", "AND id = ?"):
        if (project := _project(connection.execute(_PROJECT + condition, (name,)).fetchone())) is not None:
            return project
    return None


def by_digest(digest: str, now: float, connection: Connection) -> Project | None:
    """Return the project that a key opens, the active one or one in grace, or None."""
    project = _project(connection.execute(_PROJECT + "AND digest = ?", (digest,)).fetchone())
    if project is None:
        row = connection.execute("SELECT project_id FROM keys WHERE digest = ? AND grace_until > ?", (digest, now))
        if (found := row.fetchone()) is not None:
            project = _project(connection.execute(_PROJECT + "AND id = ?", found).fetchone())
    return project


def every(connection: Connection, *, deleted: bool = False) -> list[Project]:
    """Return all projects, ordered by name; if `deleted`, those that were deleted too, without a key."""
    rows = connection.execute(_PROJECT + "ORDER BY name, id").fetchall()
    if deleted:
        rows = sorted([*rows, *connection.execute(_DELETED).fetchall()], key=lambda row: (row[1], row[0]))
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
    connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, NULL, NULL)", (digest, id, prefix, now))


def change(connection: Connection, id: ProjectId, settings: ProjectSettings) -> Project:
    """Replace a project's settings; raise `NoSuchProject`."""
    connection.execute(
        "UPDATE projects SET plan = ?, requests_per_minute = ?, daily_tokens = ? WHERE id = ?",
        (settings.plan, settings.requests_per_minute, settings.daily_tokens, id),
    )
    return by_id(connection, id)


def rotate(
    connection: Connection, id: ProjectId, digest: str, prefix: str, now: float, grace_until: float | None
) -> Project:
    """Revoke the active key, now or at the end of its grace, and insert a new one; raise `NoSuchProject`."""
    by_id(connection, id)
    connection.execute("UPDATE keys SET grace_until = NULL WHERE project_id = ? AND grace_until IS NOT NULL", (id,))
    connection.execute(
        "UPDATE keys SET revoked_at = ?, grace_until = ? WHERE project_id = ? AND revoked_at IS NULL",
        (now, grace_until, id),
    )
    _add_key(connection, id, digest, prefix, now)
    return by_id(connection, id)


def suspend(connection: Connection, id: ProjectId, suspension: Suspension | None) -> Project:
    """Set or clear a project's suspension; raise `NoSuchProject`."""
    connection.execute(
        "UPDATE projects SET suspended_at = ?, suspended_by_operator = ? WHERE id = ?",
        (None, 0, id) if suspension is None else (suspension.at, int(suspension.by_operator), id),
    )
    return by_id(connection, id)


def delete(connection: Connection, id: ProjectId, now: float, *, erase: bool) -> None:
    """Free a project's name, revoke its keys, and rename its own account and all references after the id."""
    project = by_id(connection, id)
    name = id if erase else project.name
    connection.execute("UPDATE projects SET deleted_at = ?, name = ? WHERE id = ?", (now, name, id))
    connection.execute(
        "UPDATE keys SET revoked_at = coalesce(revoked_at, ?), grace_until = NULL WHERE project_id = ?", (now, id)
    )
    if erase:
        connection.execute("UPDATE usage SET project = project_id WHERE project_id = ?", (id,))
        connection.execute("UPDATE audit SET project = project_id WHERE project_id = ?", (id,))
        connection.execute("UPDATE rollups SET project = project_id WHERE project_id = ?", (id,))
    answers.drop(connection, id)
    if project.owner == OWN_ACCOUNT + project.name:
        closed = OWN_ACCOUNT + id
        for table in ("accounts", "entries", "carried", "holds", "named_holds"):
            connection.execute(f"UPDATE {table} SET owner = ? WHERE owner = ?", (closed, project.owner))
        connection.execute("UPDATE projects SET owner = ? WHERE id = ?", (closed, id))
        books.close_account(connection, closed, now, id)
