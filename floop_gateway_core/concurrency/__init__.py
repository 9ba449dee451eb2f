"""Small async building blocks that do not depend on the gateway: background tasks, heartbeats, worker threads."""
