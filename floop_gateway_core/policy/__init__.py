"""Pure policy: every decision of the gateway as a function of its arguments.

Nothing here does I/O, reads a clock, draws a random number, awaits, or imports a third-party package: time, jitter and
ids come in as arguments. Each module can be imported alone.
"""
