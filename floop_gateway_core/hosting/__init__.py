"""The kit that adapters are made of: a bridge for synchronous hosts, bodies read in threads, event streams."""
