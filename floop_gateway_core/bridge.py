"""`Bridge` under its documented import path; the implementation is in `hosting.bridge`."""

from floop_gateway_core.hosting.bridge import Bridge, SyncReply

__all__ = ["Bridge", "SyncReply"]
