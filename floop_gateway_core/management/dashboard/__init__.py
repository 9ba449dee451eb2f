"""*Project settings → AI*: pages for operators and owners over the administration, made on the server.

They show and do what the administration over HTTP does, through the same handlers, and nothing else.
"""

from floop_gateway_core.management.dashboard.application import DashboardApplication

__all__ = ["DashboardApplication"]
