"""Wire dialects: how bytes become a `Call` and its answer becomes bytes. Pure; no I/O."""
