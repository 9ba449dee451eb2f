"""Sending a codec's bytes over HTTP: the driver and the clients beneath it."""
