"""Upstreams: pure codecs for each vendor's wire format, one thin HTTP driver under them, and `echo`."""
