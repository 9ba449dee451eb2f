"""What the forms do, through the administration's handlers. Each returns a path to redirect to, and a notice."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from floop_gateway_core.errors import AdminError, Conflict
from floop_gateway_core.management import handlers, models
from floop_gateway_core.management.dashboard.forms import amount, integer
from floop_gateway_core.management.dashboard.pages import Page, call
from floop_gateway_core.management.desk import Desk

__all__ = ["ACTIONS", "Action", "Went"]

Form: TypeAlias = Mapping[str, str]
Went: TypeAlias = tuple[str, str]
"""A path below the mount, and a notice."""
Action: TypeAlias = Callable[[Desk, str, Form], Awaitable[Page | Went]]


async def create(desk: Desk, _: str, form: Form) -> Page:
    """Create a project, and show its key."""
    body = models.CreateProject(
        name=form.get("name", ""),
        owner=form.get("owner") or None,
        plan=form.get("plan") or "default",
        credits=amount(form, "credits") or 0,
    )
    return Page("key.html", await handlers.create_project(call(desk, None, body)), 201)


async def rotate(desk: Desk, name: str, form: Form) -> Page:
    """Rotate a key, and show the new one."""
    project = await desk.project(name)
    if form.get("current") != project.key_prefix:  # also if the page of the new key is loaded again
        raise Conflict("the key was replaced after this page was opened; nothing was changed")
    body = models.Rotation(grace_s=float(integer(form, "grace_s") or 0))
    return Page("key.html", await handlers.rotate_key(call(desk, {"p": name}, body)))


async def settings(desk: Desk, name: str, form: Form) -> Went:
    """Save limits; an empty field means the plan's limit."""
    body = models.ChangeProject(
        requests_per_minute=integer(form, "requests_per_minute"), daily_tokens=integer(form, "daily_tokens")
    )
    if form.get("plan"):
        body = models.ChangeProject(**body.model_dump(exclude_unset=True), plan=form["plan"])
    await handlers.change_project(call(desk, {"p": name}, body))
    return f"/projects/{name}", "Limits saved."


async def suspend(desk: Desk, name: str, _: Form) -> Went:
    """Suspend a project."""
    await handlers.suspend(call(desk, {"p": name}))
    return f"/projects/{name}", "Project suspended."


async def resume(desk: Desk, name: str, _: Form) -> Went:
    """Resume a project."""
    await handlers.resume(call(desk, {"p": name}))
    return f"/projects/{name}", "Project resumed."


async def delete(desk: Desk, name: str, form: Form) -> Went:
    """Delete a project, after its name was typed for confirmation."""
    project = await desk.project(name)
    if form.get("confirm") != project.name:
        raise AdminError("type the project's name to delete it")
    await handlers.delete_project(call(desk, {"p": name}))
    return "/", f"Project {project.name} deleted."


async def money(desk: Desk, name: str, form: Form) -> Went:
    """Grant or debit credits."""
    project = await desk.project(name)
    body = models.Posting(
        credits=amount(form, "credits") or 0, id=form.get("id") or None, note=form.get("note") or None
    )
    post = handlers.debit if form.get("kind") == "debit" else handlers.grant
    await post(call(desk, {"o": project.owner}, body))
    return f"/projects/{name}", "Balance updated."


async def refund(desk: Desk, id: str, form: Form) -> Went:
    """Refund a request."""
    body = models.RefundRequest(
        credits=amount(form, "credits"), id=form.get("id") or None, note=form.get("note") or None
    )
    await handlers.refund(call(desk, {"id": id}, body))
    return f"/requests/{id}", "Request refunded."


async def test(desk: Desk, deployment: str, _: Form) -> Went:
    """Test a deployment."""
    result = await handlers.test(call(desk, {"deployment": deployment}))
    return "/health", f"{deployment}: {'it answered' if result['ok'] else result['reason']}."


ACTIONS: Mapping[str, Action] = {
    r"/projects": create,
    r"/projects/([^/]+)/rotate-key": rotate,
    r"/projects/([^/]+)/settings": settings,
    r"/projects/([^/]+)/suspend": suspend,
    r"/projects/([^/]+)/resume": resume,
    r"/projects/([^/]+)/delete": delete,
    r"/projects/([^/]+)/money": money,
    r"/requests/([^/]+)/refund": refund,
    r"/health/([^/]+)/test": test,
}
"""Actions by path; the pattern's group is the name of what an action applies to."""
