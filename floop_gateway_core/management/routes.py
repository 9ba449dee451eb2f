"""The paths of the administration: one table, from which requests are dispatched and the OpenAPI document is made."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from floop_gateway_core.management import handlers, models
from floop_gateway_core.management.query import FILTERS

__all__ = ["ROUTES", "Route"]

PAGED = ("limit", "cursor")
LOG = tuple(FILTERS)


@dataclass(frozen=True)
class Route:
    """One operation. `gives` is the model of the response's `data`, a list if `paged`; None means no body."""

    method: str
    path: str
    handler: Callable[[Any], Awaitable[object]]
    gives: type[BaseModel] | None
    query: tuple[str, ...] = ()
    takes: type[BaseModel] | None = None
    status: int = 200
    paged: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Return the expression that matches the path, with its parameters as groups."""
        return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(self.path)))

    @property
    def parameters(self) -> list[str]:
        """Return the names of the path's parameters."""
        return re.findall(r"\{(\w+)\}", self.path)


def _page(path: str, handler: Any, gives: type[BaseModel], *query: str) -> Route:
    return Route("GET", path, handler, gives, (*query, *PAGED), paged=True)


def _post(path: str, handler: Any, takes: type[BaseModel], gives: type[BaseModel], status: int = 200) -> Route:
    return Route("POST", path, handler, gives, (), takes, status)


ROUTES = (
    _page("/projects", handlers.list_projects, models.Project, "q"),
    _post("/projects", handlers.create_project, models.CreateProject, models.NewKey, 201),
    Route("GET", "/projects/{p}", handlers.show_project, models.Project),
    Route("PATCH", "/projects/{p}", handlers.change_project, models.Project, takes=models.ChangeProject),
    Route("DELETE", "/projects/{p}", handlers.delete_project, None, ("erase",), models.Deletion, 204),
    _post("/projects/{p}/rotate-key", handlers.rotate_key, models.Rotation, models.NewKey),
    _post("/projects/{p}/suspend", handlers.suspend, models.Empty, models.Project),
    _post("/projects/{p}/resume", handlers.resume, models.Empty, models.Project),
    _page("/projects/{p}/usage", handlers.usage, models.Record, *LOG, "order", "format"),
    _page("/usage", handlers.usage, models.Record, *LOG, "project", "order", "format"),
    Route("GET", "/usage/tail", handlers.tail, None, (*LOG, "project")),
    Route("GET", "/projects/{p}/summary", handlers.summary, models.SummaryRow, (*LOG, "by"), paged=True),
    Route("GET", "/summary", handlers.summary, models.SummaryRow, (*LOG, "project", "by"), paged=True),
    Route("GET", "/requests/{id}", handlers.show_request, models.Record),
    _post("/requests/{id}/refund", handlers.refund, models.RefundRequest, models.Posted),
    _page("/accounts", handlers.list_accounts, models.Account, "q"),
    Route("GET", "/accounts/{o}", handlers.show_account, models.Account),
    _page("/accounts/{o}/entries", handlers.list_entries, models.Entry, "since", "until"),
    Route("GET", "/accounts/{o}/statement", handlers.statement, models.Statement, ("since", "until")),
    _post("/accounts/{o}/grants", handlers.grant, models.Posting, models.Posted),
    _post("/accounts/{o}/debits", handlers.debit, models.Posting, models.Posted),
    _page("/audit", handlers.audit, models.AuditLine, "project"),
    Route("GET", "/health", handlers.health, models.Health),
    _post("/health/{deployment}/test", handlers.test, models.Empty, models.TestResult),
)
