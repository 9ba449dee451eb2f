"""Single pieces of the gateway for a host's own routes and calls: rate limits, event streams, breakers, credits.

The policy is that of `policy` and `wire`; what is added here is a clock, a lock or a store. None of it needs a gateway.
"""
