"""*Project settings → AI*: server-rendered pages over the administration, for operators and owners.

They show and do what the administration over HTTP does, through the same handlers, and nothing else.
"""

from floop_gateway_core.management.dashboard.application import DashboardApplication

__all__ = ["DashboardApplication"]
