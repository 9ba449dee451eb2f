"""Small async building blocks that know nothing of the gateway: background tasks, heartbeats, worker threads."""
