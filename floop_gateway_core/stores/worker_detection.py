"""Whether this process is one of several workers of one server, as far as can be seen from inside.

Workers have the same parent and the same command line. The first of them binds a name derived from both in Linux's
abstract socket namespace, which is cleaned up when the process dies; a process that finds the name taken has a sibling.
Other systems have no such namespace, so nothing is detected there.
"""

import hashlib
import os
import socket
import sys
import threading

__all__ = ["is_one_of_several_workers"]

_lock = threading.Lock()
_held: tuple[int, int] | None = None
"""The process, and the descriptor that holds its name for as long as it lives."""


def is_one_of_several_workers() -> bool:
    """Take the name, once per process, and return whether another process has it already."""
    with _lock:
        return _take_name()


def _take_name() -> bool:
    global _held
    if sys.platform != "linux" or (_held is not None and _held[0] == os.getpid()):
        return False
    command = hashlib.sha256("\0".join(sys.argv).encode("utf-8", "replace")).hexdigest()[:16]
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mark.bind(f"\0floop-gateway-memory-{os.getppid()}-{command}")
    except OSError:
        mark.close()
        return True
    _held = os.getpid(), mark.detach()
    return False
