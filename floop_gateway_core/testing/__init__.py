"""What a user needs to test an app against the gateway, and against providers that fail."""

from floop_gateway_core.testing.answers import Answer, Break, Called, Hold, Reply, Status
from floop_gateway_core.testing.connection import Received
from floop_gateway_core.testing.gateway import ScriptedGateway, scripted_gateway
from floop_gateway_core.testing.upstream import ScriptedUpstream

__all__ = [
    "Answer",
    "Break",
    "Called",
    "Hold",
    "Received",
    "Reply",
    "ScriptedGateway",
    "ScriptedUpstream",
    "Status",
    "scripted_gateway",
]
