"""A deterministic simulation of several gateways on one store, and an auditor that keeps books of its own.

schedule    what happens, as values that a seed gives
world       lets it happen: virtual time, processes, clients, operators
link        a process's way to the store, which may be slow, cut, or that of a dead process
upstream    providers that do what the schedule says
facts       what is in the store
auditor     the rules, checked after every step
shrink      the shortest schedule that still breaks a rule
faults      mistakes planted in the engine and the stores, each of which must be found
"""
