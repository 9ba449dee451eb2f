"""The administration: projects, keys, accounts."""

from floop_gateway_core.admin.service import (
    MAX_COUNT,
    Admin,
    KeyRotated,
    KeyRotatedHook,
    NewKey,
    ProjectStatus,
)

__all__ = ["MAX_COUNT", "Admin", "KeyRotated", "KeyRotatedHook", "NewKey", "ProjectStatus"]
