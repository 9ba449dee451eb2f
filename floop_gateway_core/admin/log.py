"""The usage log as an operator reads it: pages, and sums by time, alias, deployment and so on."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

from floop_gateway_core.admin.money import MoneyAdmin
from floop_gateway_core.errors import AdminError
from floop_gateway_core.policy.summary import DAY_S, HOUR_S, SummaryRow, grouped
from floop_gateway_core.types import UsageFilter, UsageRecord

__all__ = ["DIMENSIONS", "Cursor", "LogAdmin", "SummaryRow"]

Dimension = Literal["hour", "day", "alias", "deployment", "status", "project", "owner"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
_COLUMNS_OF = {"hour": ("start",), "day": ("start",), "owner": ("project_id",), "project": ("project_id", "project")}
Cursor = tuple[float, str]
"""The place of a record in the log: when it was settled, and its id."""
RECORDS_A_PAGE = 1000


class LogAdmin(MoneyAdmin):
    """What an operator reads in the usage log."""

    async def usage_page(
        self, wanted: UsageFilter, *, after: Cursor | None = None, newest_first: bool = True, limit: int = 100
    ) -> list[UsageRecord]:
        """Return the next records after a position in the log, in order of settlement."""
        await self.expire()
        return await self._ledger.usage_page(wanted, after=after, newest_first=newest_first, limit=limit)

    async def every_record(self, wanted: UsageFilter, *, newest_first: bool = True) -> AsyncIterator[UsageRecord]:
        """Yield all wanted records, by settlement."""
        after: Cursor | None = None
        while True:
            page = await self.usage_page(wanted, after=after, newest_first=newest_first, limit=RECORDS_A_PAGE)
            for record in page:
                yield record
            if len(page) < RECORDS_A_PAGE:
                return
            after = place_of(page[-1])

    async def summary(self, wanted: UsageFilter, by: Sequence[str]) -> list[SummaryRow]:
        """Return sums of the wanted records by one or two of `DIMENSIONS`, ordered by their keys.

        Raises `AdminError` for another dimension.
        """
        if not 1 <= len(by) <= 2 or len(set(by)) != len(by) or not set(by) <= set(DIMENSIONS):
            raise AdminError(f"by must be one or two of {', '.join(DIMENSIONS)}")
        columns = tuple(dict.fromkeys(name for dimension in by for name in _COLUMNS_OF.get(dimension, (dimension,))))
        rows = await self._ledger.summary(wanted, HOUR_S if "hour" in by else DAY_S, columns)
        labels: dict[str, Mapping[str, str]] = {}
        if "owner" in by:
            labels["owner"] = {project.id: project.owner for project in await self._store.projects(deleted=True)}
        if "project" in by:
            ids, names = columns.index("project_id"), columns.index("project")
            found = {str(row.keys[ids]): str(row.keys[names]) for row in rows}
            labels["project"] = _told_apart(found, {project.id for project in await self._store.projects()})
        keys = [_key_of(dimension, columns, labels) for dimension in by]
        return grouped(rows, lambda group: tuple([key(group) for key in keys]))


def place_of(record: UsageRecord) -> Cursor:
    """Return a record's place in the log."""
    return record.settled_at or 0.0, record.request_id


def _told_apart(names: Mapping[str, str], present: Container[str]) -> dict[str, str]:
    """Return each project's name, or its id if it was deleted and another project has had the same name."""
    uses = Counter(names.values())
    return {id: name if id in present or uses[name] == 1 else id for id, name in names.items()}


def _key_of(
    dimension: str, columns: Sequence[str], labels: Mapping[str, Mapping[str, str]]
) -> Callable[[tuple[object, ...]], object]:
    """Return the function that reads a dimension's value from the values of `columns`."""
    place = columns.index(_COLUMNS_OF.get(dimension, (dimension,))[0])
    match dimension:
        case "hour" | "day":
            form = "%Y-%m-%dT%H:00:00Z" if dimension == "hour" else "%Y-%m-%d"
            return lambda group: datetime.fromtimestamp(float(str(group[place])), UTC).strftime(form)
        case "owner" | "project":
            return lambda group: labels[dimension].get(str(group[place]))
        case _:
            return lambda group: group[place]
