"""Measures a gateway over real sockets, beside two floors in the same run (`floop-gateway bench`, `python -m benchmarks`).

Four processes: a mock upstream and the load on one core, the gateway on the other, and the floors in its place by turns.
"""
