"""Aliases to deployments: `fast`, `smart`, `reason` and a host's own aliases each name an ordered route.

A deployment's id may be asked for directly, and is then the whole route. `auto` is not a route: the classifier turns it
into one of the three before anything is looked up here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from floop_gateway_core.errors import ErrorCode, Refusal

__all__ = ["AUTO", "JUDGED", "RoutedAlias", "Routes"]

AUTO = "auto"
RoutedAlias = Literal["fast", "smart", "reason"]
JUDGED: tuple[RoutedAlias, ...] = ("fast", "smart", "reason")


@dataclass(frozen=True, slots=True)
class Routes:
    """Raises ValueError for a missing route and for an unknown or repeated deployment.

    >>> routes = Routes({"fast": ["mini"], "smart": ["big", "mini"], "reason": ["big"]}, ["mini", "big"])
    >>> routes.resolve("smart"), routes.resolve("mini")
    (('big', 'mini'), ('mini',))
    """

    table: Mapping[str, Sequence[str]]
    deployments: Sequence[str]

    def __post_init__(self) -> None:
        for judged in JUDGED:
            if judged not in self.table:
                raise ValueError(f"route {judged!r} is missing; {', '.join(JUDGED)} must each have one")
        for alias, route in self.table.items():
            if alias == AUTO:
                raise ValueError("'auto' cannot be a route: the gateway picks fast, smart or reason for it")
            if alias in self.deployments:
                raise ValueError(f"route {alias!r} has the name of a deployment; give one of them another name")
            if not route:
                raise ValueError(f"route {alias!r} is empty; name one or more deployments")
            if len(set(route)) != len(route):
                raise ValueError(f"route {alias!r} names a deployment twice")
            for deployment in route:
                if deployment not in self.deployments:
                    known = ", ".join(self.deployments)
                    raise ValueError(
                        f"route {alias!r} names {deployment!r}, which is not a deployment; deployments are: {known}"
                    )

    def knows(self, alias: str) -> bool:
        """Return whether this is an alias or a deployment."""
        return alias == AUTO or alias in self.table or alias in self.deployments

    def resolve(self, alias: str) -> tuple[str, ...]:
        """Return the deployments in order of preference; raise KeyError if `knows` is false."""
        return tuple(self.table[alias]) if alias in self.table else (self.deployments[self.deployments.index(alias)],)

    def check_models(self, models: Sequence[str] | None) -> None:
        """Raise ValueError unless these names can be what a plan allows; None is all."""
        for name in models or ():
            if not self.knows(name):
                raise ValueError(f"{name!r} is not an alias or a deployment")
        if models is not None and AUTO in models and not set(models) & set(JUDGED):
            raise ValueError(f"'auto' requires at least one of {', '.join(JUDGED)} as well")

    def default(self, models: Sequence[str] | None) -> str:
        """Return what a call without a model means: `auto`, or the first name that the plan allows."""
        return AUTO if models is None or AUTO in models else models[0]

    def nearest(self, judged: str, models: Sequence[str] | None) -> str:
        """Return the alias that `auto` uses: the classifier's choice, else the next dearer, else the next cheaper one.

        >>> Routes({"fast": ["m"], "smart": ["m"], "reason": ["m"]}, ["m"]).nearest("smart", ["auto", "fast", "reason"])
        'reason'
        """
        if models is None or judged in models:
            return judged
        at = JUDGED.index(judged)
        return next(alias for alias in (*JUDGED[at:], *reversed(JUDGED[:at])) if alias in models)

    def alias_refusal(self, alias: str, models: Sequence[str] | None = None) -> Refusal | None:
        """Refuse an alias that is unknown, or that the plan does not allow.

        The client's text is not echoed, because it could be long or contain anything.
        """
        if self.knows(alias) and (models is None or alias in models):
            return None
        known = ", ".join((AUTO, *self.table, *self.deployments) if models is None else models)
        return Refusal(ErrorCode.INVALID_MODEL, f"model must be an alias or a deployment. Use one of: {known}.")
