"""The administration: projects and keys, money, the log, and who did what."""

from floop_gateway_core.admin.base import Operator
from floop_gateway_core.admin.log import DIMENSIONS, SummaryRow
from floop_gateway_core.admin.money import Statement
from floop_gateway_core.admin.service import (
    MAX_COUNT,
    Admin,
    KeyRotated,
    KeyRotatedHook,
    NewKey,
    ProjectStatus,
)

__all__ = [
    "DIMENSIONS",
    "MAX_COUNT",
    "Admin",
    "KeyRotated",
    "KeyRotatedHook",
    "NewKey",
    "Operator",
    "ProjectStatus",
    "Statement",
    "SummaryRow",
]
