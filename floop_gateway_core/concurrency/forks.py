"""Fork safety: threads are stopped and connections closed before a fork, and started again after it."""

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["ForkAware", "watch_forks"]


class ForkAware(Protocol):
    """Has threads or connections."""

    def before_fork(self) -> None:
        """Finish, close, and let nobody in until the fork is over."""

    def after_fork_in_parent(self) -> None:
        """Let work in again."""

    def after_fork_in_child(self) -> None:
        """Start anew: locks may be held by threads that exist in the parent only."""


_watched: "WeakSet[ForkAware]" = WeakSet()
_forking: list[ForkAware] = []


def watch_forks(one: ForkAware) -> None:
    """Tell an object of every fork for as long as it lives."""
    _watched.add(one)


def _before_fork() -> None:
    _forking[:] = list(_watched)
    for one in _forking:
        one.before_fork()


def _after_fork_in_parent() -> None:
    for one in _forking:
        one.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for one in _forking:
        one.after_fork_in_child()
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
