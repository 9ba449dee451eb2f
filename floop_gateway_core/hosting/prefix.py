"""Where a host mounts an application: the default prefix, and the paths that belong to a prefix."""

__all__ = ["PREFIX", "below", "checked_prefix"]

PREFIX = "/api/v1/ai"


def checked_prefix(prefix: str) -> str:
    """Return the prefix; raise ValueError unless it starts with a slash and does not end with one."""
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise ValueError(f"prefix must start with a slash and not end with one, got {prefix!r}")
    return prefix


def below(path: str, prefix: str) -> bool:
    """Return whether a path is below the prefix, by whole segments.

    >>> below("/ai/chat", "/ai"), below("/ai", "/ai"), below("/aix", "/ai")
    (True, True, False)
    """
    return (path + "/").startswith(prefix + "/")
